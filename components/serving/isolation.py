"""Namespaces for models: closed by default."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi

from components.clusters.objects import KubernetesObject
from components.core.base import Component
from components.serving.handle import NamespaceHandle
from components.serving.manifests import namespace as manifests
from components.serving.manifests import network_policy, preset


@dataclass(frozen=True, kw_only=True)
class ModelNamespaceArgs:
    """`gateway` is the Gateway whose routes may come from here; the secrets are Outputs or None.

    `spans_hosts` says whether a model here has replicas of several hosts; what knows the kinds of KServe is then
    in `platform`.
    """

    namespace: str
    gateway: str
    hf_token: pulumi.Output[str] | None = None
    pull_secret: pulumi.Output[str] | None = None
    after: tuple[pulumi.Resource, ...] = ()
    spans_hosts: bool = False
    platform: tuple[pulumi.Resource, ...] = ()


class ModelNamespace(Component):
    """A namespace in which nothing may talk to anything until a model opens its own paths."""

    TOKEN = "llmp:index:ModelNamespace"

    def __init__(self, name: str, args: ModelNamespaceArgs, opts: pulumi.ResourceOptions | None = None):
        super().__init__(name, opts)
        here = args.namespace
        namespace = KubernetesObject(
            name, manifests.model_namespace(here, args.gateway), self.child(depends_on=list(args.after))
        )
        objects = {
            "default-deny": network_policy.default_deny(here),
            "dns": network_policy.dns(here),
        }
        if args.hf_token is not None:
            objects["hf-token"] = manifests.hf_secret(here, args.hf_token)
        if args.pull_secret is not None:
            objects["image-pull"] = manifests.pull_secret(here, args.pull_secret)
        inside = self.child(depends_on=[namespace])
        made = [KubernetesObject(f"{name}-{role}", item, inside) for role, item in objects.items()]
        if args.spans_hosts:
            known = self.child(depends_on=[namespace, *args.platform])
            made.append(KubernetesObject(f"{name}-preset", preset.pipeline_parallel(here), known))
        self.handle = NamespaceHandle(
            name=here,
            resource=namespace,
            secrets=(manifests.HF_SECRET,) if args.hf_token is not None else (),
            pull_secrets=(manifests.PULL_SECRET,) if args.pull_secret is not None else (),
            ready=(namespace, *made),
        )
        self.register_outputs({"namespace": here})
