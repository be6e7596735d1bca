"""The bundle: every operator that a cluster needs and does not have, in the order of their needs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import pulumi

from components.clusters.objects import KubernetesObject, KubernetesPatch
from components.core import labels
from components.core.base import Component
from components.core.manifest import Manifest, manifest
from components.platform import (
    cert_manager,
    cluster_autoscaler,
    google_gateway,
    gpu_operator,
    istio,
    kserve,
    lws,
)
from components.platform.artifacts import Artifacts
from components.platform.cluster_autoscaler import AutoscalerArgs
from components.platform.crds import GATEWAY_API, INFERENCE_EXTENSION, shared_definitions
from components.platform.helm_release import helm_release
from components.platform.kserve import KServeArgs
from components.platform.release import ReleaseSpec
from components.platform.webhook_check import webhook_check

# Operators by the name that stacks use, and the manifests among them.
BUNDLES = {"gateway-api": GATEWAY_API, "inference-extension": INFERENCE_EXTENSION}
# What makes a Gateway into a gateway with a certificate.
GATEWAY_NEEDS = (istio.ISTIOD, cert_manager.NAME, google_gateway.NAME)
OPERATORS = ("cluster-autoscaler", "cert-manager", "istio", "leader-worker-set", "kserve", "gpu-operator")


@dataclass(frozen=True, kw_only=True)
class PlatformArgs:
    """`managed` are the operators to install, by name; `kubectl_image` asks KServe's webhooks.

    `google_class` is the class of Google's gateway, which brings the definitions of both gateway APIs;
    None where the stack's gateway is another. `autoscaler` are the settings of the operator of that name.
    """

    managed: frozenset[str]
    artifacts: Artifacts
    kserve: KServeArgs
    kubectl_image: str
    google_class: str | None = None
    autoscaler: AutoscalerArgs | None = None


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


def releases_of(
    managed: Iterable[str], kserve_args: KServeArgs, autoscaler: AutoscalerArgs | None = None
) -> tuple[ReleaseSpec, ...]:
    """The Helm releases of the named operators, each after those it needs."""
    table = {
        "cluster-autoscaler": lambda: cluster_autoscaler.releases(autoscaler),
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
        specs = releases_of(args.managed, args.kserve, args.autoscaler)
        for bundle in manifests_of(args.managed):
            self._define_bundle(bundle)
        if args.google_class is not None:
            self._define_google_check(args.google_class)
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

    def _define_google_check(self, gateway_class: str) -> None:
        """What Google defines is there when its check is done, as ours is when it is applied."""
        objects = google_gateway.google_gateway_check(self._args.kubectl_image, gateway_class)
        done = self._define_check(google_gateway.NAME, objects, ())
        self._steps |= dict.fromkeys((google_gateway.NAME, GATEWAY_API, INFERENCE_EXTENSION), done)

    def _define_webhook_check(self) -> None:
        version = self._args.artifacts.versions[kserve.LLM_RESOURCES]
        objects = webhook_check(self._args.kubectl_image, version)
        after = self._after((kserve.LLM_RESOURCES,))
        self._steps[kserve.WEBHOOK_CHECK] = self._define_check(kserve.WEBHOOK_CHECK, objects, after)

    def _define_check(
        self, name: str, objects: Iterable[tuple[str, Manifest]], after: tuple[pulumi.Resource, ...]
    ) -> tuple[pulumi.Resource, ...]:
        """A check's objects one after the other, the job last; returns the job."""
        for role, item in objects:
            job = item["kind"] == "Job"
            seconds = item["spec"]["activeDeadlineSeconds"] + 30 if job else 0
            options = self.child(
                depends_on=list(after),
                # A job cannot change, and its name is taken until it is gone.
                delete_before_replace=True if job else None,
                custom_timeouts=pulumi.CustomTimeouts(create=f"{seconds}s") if job else None,
            )
            after = (*after, KubernetesObject(f"{self._name}-{name}-{role}", item, options))
        return after[-1:]

    def _after(self, needs: tuple[str, ...]) -> tuple[pulumi.Resource, ...]:
        """What is registered for the needs; those that somebody else provides are there already."""
        self._needed.update(needs)
        return tuple(resource for need in needs for resource in self._steps.get(need, ()))
