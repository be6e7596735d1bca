"""The bundle: every operator that a cluster needs and does not have, in the order of their needs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import pulumi

from components.clusters.objects import KubernetesObject, KubernetesPatch
from components.core import labels
from components.core.base import Component
from components.core.manifest import Manifest, manifest
from components.platform import cert_manager, gpu_operator, istio, kserve, lws
from components.platform.artifacts import Artifacts
from components.platform.crds import GATEWAY_API, INFERENCE_EXTENSION, shared_definitions
from components.platform.helm_release import helm_release
from components.platform.kserve import KServeArgs
from components.platform.release import ReleaseSpec
from components.platform.webhook_check import DEADLINE_SECONDS, webhook_check

# Operators by the name that stacks use, and the manifests among them.
BUNDLES = {"gateway-api": GATEWAY_API, "inference-extension": INFERENCE_EXTENSION}
# What makes a Gateway into a gateway with a certificate.
GATEWAY_NEEDS = (istio.ISTIOD, cert_manager.NAME)
OPERATORS = ("cert-manager", "istio", "leader-worker-set", "kserve", "gpu-operator")


@dataclass(frozen=True, kw_only=True)
class PlatformArgs:
    """`managed` are the operators to install, by name; `kubectl_image` asks KServe's webhooks."""

    managed: frozenset[str]
    artifacts: Artifacts
    kserve: KServeArgs
    kubectl_image: str


@dataclass(frozen=True, kw_only=True)
class PlatformHandle:
    """An installed platform.

    `ready` are the last resources of each chain: what depends on them comes after everything.
    `gateway` is the part of it that a Gateway needs, which is there long before the rest.
    `versions` are those of the installed charts and manifests; `kept` the API groups
    whose definitions stay in the cluster when the stack goes. `tls` says whether model pods speak TLS.
    """

    ready: tuple[pulumi.Resource, ...]
    gateway: tuple[pulumi.Resource, ...]
    versions: Mapping[str, str]
    kept: tuple[str, ...]
    tls: bool


def releases_of(managed: Iterable[str], kserve_args: KServeArgs) -> tuple[ReleaseSpec, ...]:
    """The Helm releases of the named operators, each after those it needs."""
    table = {
        "cert-manager": cert_manager.releases,
        "istio": istio.releases,
        "leader-worker-set": lws.releases,
        "kserve": lambda: kserve.releases(kserve_args),
        "gpu-operator": gpu_operator.releases,
    }
    wanted = frozenset(managed)
    return tuple(spec for name in OPERATORS if name in wanted for spec in table[name]())


def manifests_of(managed: Iterable[str]) -> tuple[str, ...]:
    """The manifests of the named operators, by their names in the lock file."""
    wanted = frozenset(managed)
    return tuple(entry for name, entry in BUNDLES.items() if name in wanted)


class Platform(Component):
    """Definitions and operators of one cluster."""

    TOKEN = "llmp:index:Platform"

    def __init__(self, name: str, args: PlatformArgs, opts: pulumi.ResourceOptions | None = None):
        super().__init__(name, opts)
        self._name, self._args = name, args
        # What was registered under each name that a `needs` can say.
        self._steps: dict[str, tuple[pulumi.Resource, ...]] = {}
        self._needed: set[str] = set()
        self._kept: set[str] = set()
        specs = releases_of(args.managed, args.kserve)
        for bundle in manifests_of(args.managed):
            self._define_bundle(bundle)
        namespaces = self._define_namespaces(spec.namespace for spec in specs)
        for spec in specs:
            if spec.name == kserve.PRESETS:
                self._define_webhook_check()
            self._define_release(spec, namespaces[spec.namespace])
        last = [step for name, step in self._steps.items() if name not in self._needed]
        self.handle = PlatformHandle(
            ready=tuple(resource for step in last for resource in step),
            gateway=tuple(r for need in GATEWAY_NEEDS for r in self._steps.get(need, ())),
            versions=args.artifacts.versions,
            kept=tuple(sorted(self._kept.union(*(spec.keeps for spec in specs)))),
            tls=args.kserve.tls,
        )
        self.register_outputs({"versions": dict(self.handle.versions)})

    def _define_bundle(self, bundle: str) -> None:
        definitions = shared_definitions(bundle, self._args.artifacts.manifests[bundle])
        self._steps[bundle] = tuple(self._define_definition(definition) for definition in definitions)

    def _define_definition(self, definition: Manifest) -> pulumi.Resource:
        name = definition["metadata"]["name"]
        self._kept.add(definition["spec"]["group"])
        # Kept: deleting a definition deletes every object of its kind, whoever made it.
        options = self.child(retain_on_delete=True)
        return KubernetesPatch(f"{self._name}-{name}", definition, options)

    def _define_namespaces(self, names: Iterable[str]) -> dict[str, pulumi.Resource]:
        return {
            name: KubernetesObject(
                f"{self._name}-{name}",
                manifest("v1", "Namespace", name, labels=labels.common("platform")),
                self.child(),
            )
            for name in sorted(set(names))
        }

    def _define_release(self, spec: ReleaseSpec, namespace: pulumi.Resource) -> None:
        chart = self._args.artifacts.charts[spec.name]
        options = self.child(depends_on=[namespace, *self._after(spec.needs)])
        # Two words, because an operator's namespace often has the operator's name.
        self._steps[spec.name] = (helm_release(f"{self._name}-release-{spec.name}", spec, chart, options),)

    def _define_webhook_check(self) -> None:
        version = self._args.artifacts.versions[kserve.LLM_RESOURCES]
        after: tuple[pulumi.Resource, ...] = self._after((kserve.LLM_RESOURCES,))
        for role, item in webhook_check(self._args.kubectl_image, version):
            options = self.child(
                depends_on=list(after),
                # A job cannot change, and its name is taken until it is gone.
                delete_before_replace=True if role == "job" else None,
                custom_timeouts=pulumi.CustomTimeouts(create=f"{DEADLINE_SECONDS + 30}s")
                if role == "job"
                else None,
            )
            after = (*after, KubernetesObject(f"{self._name}-{kserve.WEBHOOK_CHECK}-{role}", item, options))
        self._steps[kserve.WEBHOOK_CHECK] = after[-1:]

    def _after(self, needs: tuple[str, ...]) -> tuple[pulumi.Resource, ...]:
        """What is registered for the needs; those that somebody else provides are there already."""
        self._needed.update(needs)
        return tuple(resource for need in needs for resource in self._steps.get(need, ()))
