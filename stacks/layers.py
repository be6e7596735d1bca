"""The three layers, each from the handles of those below it."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi

from components.clusters.existing import ExistingCluster
from components.clusters.handle import ClusterHandle
from components.platform.artifacts import Artifacts
from components.platform.cluster_autoscaler import AutoscalerArgs
from components.platform.lock import Lock
from components.platform.platform import Platform, PlatformArgs, PlatformHandle
from components.serving.gateway import InferenceGateway, InferenceGatewayArgs
from components.serving.handle import GatewayHandle, NamespaceHandle
from components.serving.isolation import ModelNamespace, ModelNamespaceArgs, StoreKeys
from components.serving.model_service import ModelService, ModelServiceArgs
from components.serving.monitoring import Monitoring, MonitoringArgs
from components.serving.rollouts import RoomMaker, RoomMakerArgs
from components.serving.weights import WeightsClaim, WeightsClaimArgs
from stacks import eks, gke, storage, translate
from stacks.config import EksCluster, Secrets, StackConfig
from stacks.config.model import ClaimKey
from stacks.config.plans import needs_room, rollout
from stacks.namespaces import credential, limits_spec, quota_spec, team_spec


@dataclass(frozen=True, kw_only=True)
class Serving:
    """What serves: the gateway, and the models' addresses by name."""

    gateway: GatewayHandle
    urls: dict[str, pulumi.Output[str]]


def on(cluster: ClusterHandle) -> pulumi.ResourceOptions:
    """Options of a component whose objects live in this cluster."""
    return pulumi.ResourceOptions(providers=[cluster.provider])


def build_cluster(config: StackConfig) -> ClusterHandle:
    """The cluster of the stack's kind; a cloud's SDK is loaded only where it is used."""
    if config.cluster.kind == "gke":
        from components.clusters.gke.component import GkeTpuCluster

        return GkeTpuCluster(gke.NAME, gke.gke_cluster_args(config)).handle
    if config.cluster.kind == "eks":
        from components.clusters.eks.component import EksGpuCluster

        return EksGpuCluster(eks.NAME, eks.eks_cluster_args(config)).handle
    return ExistingCluster("cluster", translate.existing_cluster(config.cluster)).handle


def build_platform(
    config: StackConfig, cluster: ClusterHandle, artifacts: Artifacts, lock: Lock
) -> PlatformHandle:
    """Definitions and operators."""
    managed, _ = translate.operators(config)
    args = PlatformArgs(
        managed=managed,
        artifacts=artifacts,
        kserve=translate.kserve_args(config),
        kubectl_image=lock.images["kubectl"].pinned,
        google_class=translate.google_class(config),
        autoscaler=_autoscaler(config, cluster),
    )
    return Platform("platform", args, on(cluster)).handle


def _autoscaler(config: StackConfig, cluster: ClusterHandle) -> AutoscalerArgs | None:
    if not isinstance(config.cluster, EksCluster) or cluster.name is None:
        return None
    return AutoscalerArgs(cluster=cluster.name, region=config.cluster.region)


def build_serving(
    config: StackConfig,
    secrets: Secrets,
    cluster: ClusterHandle,
    platform: PlatformHandle,
    lock: Lock,
    stack: str,
) -> Serving:
    """The gateway, the models' namespaces, and the models."""
    scraper = translate.monitoring_peer(config)
    args = InferenceGatewayArgs(
        spec=translate.gateway_spec(config),
        requests=translate.requests(config, stack, lock),
        certificate=translate.certificate(config),
        proxies=translate.proxies(config),
        monitoring=scraper,
        after=(*cluster.ready, *platform.gateway),
    )
    gateway = InferenceGateway("gateway", args, on(cluster)).handle
    homes = _namespaces(config, secrets, cluster, platform, lock)
    claims = _claims(config, cluster, homes, lock)
    urls = {}
    for name, model in sorted(config.models.items()):
        model_args = ModelServiceArgs(
            spec=translate.model_spec(name, config, cluster.accelerators, lock),
            gateway=gateway,
            namespace=homes[model.namespace],
            tls=platform.tls,
            monitoring=scraper,
            request_timeout_seconds=model.request_timeout_seconds,
            after=(*cluster.ready, *platform.ready, *claims.get(model.reads, ())),
        )
        urls[name] = ModelService(name, model_args, on(cluster)).url
        if needs_room(config, name):
            room = RoomMakerArgs(
                model=name,
                namespace=homes[model.namespace],
                image=lock.images["python"].pinned,
                one_node=rollout(config, name).one_node,
            )
            RoomMaker(f"{name}-room", room, on(cluster))
    if scraped := translate.monitoring_spec(config):
        after = (gateway.resource, *(home.resource for home in homes.values()))
        Monitoring("monitoring", MonitoringArgs(spec=scraped, after=after), on(cluster))
    return Serving(gateway=gateway, urls=urls)


def _namespaces(
    config: StackConfig, secrets: Secrets, cluster: ClusterHandle, platform: PlatformHandle, lock: Lock
) -> dict[str, NamespaceHandle]:
    """The namespaces of the models; each credential is read once for all of them."""
    sources = config.secrets
    login = secrets.pull_secret if config.platform.image_pull_secret else None
    token = credential("hfToken", secrets.hf_token, sources.hf_token, cluster)
    pull = credential("pullSecret", login, sources.pull_secret, cluster)
    homes = {}
    for name in translate.namespaces(config):
        args = ModelNamespaceArgs(
            namespace=name,
            gateway=config.gateway.name,
            hf_token=token,
            pull_secret=pull,
            store_keys=_store_keys(name, config, secrets),
            quota=quota_spec(name, config),
            limits=limits_spec(name, config),
            team=team_spec(name, config),
            after=cluster.ready,
            spans_hosts=translate.spans_hosts(name, config),
            picker_image=lock.images["endpoint-picker"].pinned if translate.picks(name, config) else None,
            runtime=translate.serving_runtime(name, config, lock),
            platform=platform.ready,
        )
        homes[name] = ModelNamespace(f"namespace-{name}", args, on(cluster)).handle
    return homes


def _store_keys(name: str, config: StackConfig, secrets: Secrets) -> StoreKeys | None:
    """The access key for a namespace's downloads; None where it shows none of the stack's own."""
    store = storage.own_store(config)
    access, secret = secrets.store_access_key, secrets.store_secret_key
    if store is None or access is None or secret is None or not storage.uses_keys(config, name):
        return None
    return StoreKeys(store=store, access_key=access, secret_key=secret)


def _claims(
    config: StackConfig, cluster: ClusterHandle, homes: dict[str, NamespaceHandle], lock: Lock
) -> dict[ClaimKey | None, tuple[pulumi.Resource, ...]]:
    """The claims that the models' entries describe, and what has to be done before one of them is read."""
    made = {}
    for key, name in config.claim_owners.items():
        home = homes[config.models[name].namespace]
        args = WeightsClaimArgs(
            claim=storage.claim_spec(name, config),
            namespace=home,
            fill=storage.fill_spec(name, config, cluster.accelerators, lock, home),
            after=cluster.ready,
        )
        made[key] = WeightsClaim(f"{name}-weights", args, on(cluster)).ready
    return made
