"""What stands before the models on Istio's gateway: keys, limits and the request program."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
import pulumi_random as random

from components.clusters.objects import KubernetesObject
from components.core.base import Component
from components.core.manifest import Manifest
from components.serving.manifests import access, chain, network_policy, token_limits
from components.serving.manifests.chain import ChainSpec
from components.serving.manifests.network_policy import Peer
from components.serving.manifests.token_limits import LimitsSpec

PASSWORD_LENGTH = 32


@dataclass(frozen=True, kw_only=True)
class RequestArgs:
    """`source` is the request program with its tables; `limits` is None without access."""

    spec: ChainSpec
    source: str
    limits: LimitsSpec | None = None


@dataclass(frozen=True, kw_only=True)
class RequestChainArgs:
    """`peer` are the gateway's pods and `monitoring` those that scrape metrics, for network policies."""

    requests: RequestArgs
    peer: Peer
    monitoring: Peer | None = None
    after: tuple[pulumi.Resource, ...] = ()


class RequestChain(Component):
    """Istio's objects that make a gateway ask for keys and count tokens, and the service that counts.

    `ready` is to be waited for before the gateway takes its first request.
    """

    TOKEN = "llmp:index:RequestChain"

    def __init__(self, name: str, args: RequestChainArgs, opts: pulumi.ResourceOptions | None = None):
        super().__init__(name, opts)
        self._name = name
        requests, spec = args.requests, args.requests.spec
        objects: list[tuple[str, Manifest]] = [
            ("filters", chain.chain(spec)),
            ("tables", chain.tables(spec, requests.source)),
        ]
        if spec.access is not None:
            policy = access.authorization_policy(spec.gateway, spec.namespace, redirects=spec.tls)
            objects.append(("policy", policy))
        self.ready = [self._define(role, item, args.after) for role, item in objects]
        if requests.limits is not None:
            self.ready += self._limits(requests.limits, args)
        self.register_outputs({})

    def _limits(self, spec: LimitsSpec, args: RequestChainArgs) -> list[pulumi.Resource]:
        generator = random.Provider(f"{self._name}-random", opts=self.child())
        password = random.RandomPassword(
            f"{self._name}-password",
            length=PASSWORD_LENGTH,
            # The store's settings are words between spaces.
            special=False,
            opts=self.child(provider=generator),
        ).result
        settings = password.apply(token_limits.store_settings)
        policies = network_policy.limits_policies(spec.namespace, args.peer, args.monitoring)
        objects = (*policies, *token_limits.objects(spec, password, settings))
        return [self._define(f"limits-{role}", item, args.after) for role, item in objects]

    def _define(self, role: str, item: Manifest, after: tuple[pulumi.Resource, ...]) -> KubernetesObject:
        return KubernetesObject(f"{self._name}-{role}", item, self.child(depends_on=list(after)))
