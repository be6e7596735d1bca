"""Namespaces for models: closed by default, with what their owner allows."""

from __future__ import annotations

from dataclasses import dataclass, field

import pulumi

from components.clusters.objects import SECRET_FIELDS, KubernetesObject
from components.core.base import Component
from components.core.manifest import Manifest
from components.serving.handle import NamespaceHandle
from components.serving.manifests import namespace as manifests
from components.serving.manifests import network_policy, picker, preset, quota, storage, team
from components.serving.manifests.quota import LimitsSpec, QuotaSpec
from components.serving.manifests.serving_runtime import RuntimeSpec, serving_runtime
from components.serving.manifests.storage import Store
from components.serving.manifests.team import TeamSpec


@dataclass(frozen=True, kw_only=True)
class Credential:
    """What pods show to somebody else: a `value` that we put into a Secret, or the name of an `existing` Secret.

    `unread` says that the value is kept elsewhere and was not looked at, as in a preview; a plan then takes it for
    unchanged.
    """

    value: pulumi.Output[str] | None = None
    existing: str | None = None
    unread: bool = False

    def secret(self, ours: str) -> str | None:
        """The Secret that holds it, `ours` where we make it; None where there is none."""
        return ours if self.value is not None else self.existing


@dataclass(frozen=True, kw_only=True)
class StoreKeys:
    """The access key of a store of weights, of which a Secret is made."""

    store: Store
    access_key: pulumi.Output[str]
    secret_key: pulumi.Output[str]


@dataclass(frozen=True, kw_only=True)
class ModelNamespaceArgs:
    """`gateway` is the Gateway whose routes may come from here; `quota`, `limits` and `team` are None where unlimited.

    `spans_hosts` says whether a model here has replicas of several hosts, `picker_image` is that of the endpoint pickers,
    None without one, `runtime` is what InferenceServices here share; what knows the kinds of KServe is then in
    `platform`.
    """

    namespace: str
    gateway: str
    hf_token: Credential = field(default_factory=Credential)
    pull_secret: Credential = field(default_factory=Credential)
    store_keys: StoreKeys | None = None
    quota: QuotaSpec | None = None
    limits: LimitsSpec | None = None
    team: TeamSpec | None = None
    after: tuple[pulumi.Resource, ...] = ()
    spans_hosts: bool = False
    picker_image: str | None = None
    runtime: RuntimeSpec | None = None
    platform: tuple[pulumi.Resource, ...] = ()


class ModelNamespace(Component):
    """A namespace in which nothing may talk to anything until a model opens its own paths."""

    TOKEN = "llmp:index:ModelNamespace"

    def __init__(self, name: str, args: ModelNamespaceArgs, opts: pulumi.ResourceOptions | None = None):
        super().__init__(name, opts)
        self._args = args
        here = args.namespace
        namespace = KubernetesObject(
            name, manifests.model_namespace(here, args.gateway), self.child(depends_on=list(args.after))
        )
        objects = {
            "default-deny": network_policy.default_deny(here),
            "dns": network_policy.dns(here),
            **_allowances(args),
            **({"store-keys": _store_secret(here, args.store_keys)} if args.store_keys else {}),
        }
        inside = self.child(depends_on=[namespace])
        made = [KubernetesObject(f"{name}-{role}", item, inside) for role, item in objects.items()]
        made += self._secrets(name, namespace)
        known = self.child(depends_on=[namespace, *args.platform])
        shared = [KubernetesObject(f"{name}-{role}", item, known) for role, item in _shared(args).items()]
        self.handle = NamespaceHandle(
            name=here,
            resource=namespace,
            secrets=_named(args.hf_token.secret(manifests.HF_SECRET)),
            pull_secrets=_named(args.pull_secret.secret(manifests.PULL_SECRET)),
            ready=(namespace, *made),
            shared=tuple(shared),
        )
        self.register_outputs({"namespace": here})

    def _secrets(self, name: str, namespace: pulumi.Resource) -> list[pulumi.Resource]:
        """Secrets of ours, from values that the configuration or a store of the cloud holds."""
        args = self._args
        wanted = (
            ("hf-token", args.hf_token, manifests.hf_secret),
            ("image-pull", args.pull_secret, manifests.pull_secret),
        )
        return [
            KubernetesObject(
                f"{name}-{role}",
                build(args.namespace, given.value),
                self.child(
                    depends_on=[namespace], ignore_changes=list(SECRET_FIELDS) if given.unread else None
                ),
            )
            for role, given, build in wanted
            if given.value is not None
        ]


def _allowances(args: ModelNamespaceArgs) -> dict[str, Manifest]:
    """What may be used here and by whom, by role; pods come after it, as a quota counts from the first."""
    return {
        **({"limits": quota.limit_range(args.limits)} if args.limits else {}),
        **({"quota": quota.resource_quota(args.quota)} if args.quota else {}),
        **(dict(team.team(args.team)) if args.team else {}),
    }


def _shared(args: ModelNamespaceArgs) -> dict[str, Manifest]:
    """What KServe merges with the models here, by role."""
    return {
        **({"preset": preset.pipeline_parallel(args.namespace)} if args.spans_hosts else {}),
        **({"picker": picker.scheduler(args.namespace, args.picker_image)} if args.picker_image else {}),
        **({"runtime": serving_runtime(args.runtime)} if args.runtime else {}),
    }


def _store_secret(namespace: str, keys: StoreKeys) -> Manifest:
    return storage.keys_secret(namespace, keys.store, keys.access_key, keys.secret_key)


def _named(secret: str | None) -> tuple[str, ...]:
    return () if secret is None else (secret,)
