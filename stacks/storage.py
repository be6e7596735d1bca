"""Configuration to where weights are: claims, what fills them, stores, and who may read a bucket. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from components.clusters.eks.args import Reader
from components.clusters.handle import AcceleratorPool
from components.core import labels, naming
from components.platform.cluster_autoscaler import SYSTEM_POOL
from components.platform.lock import Lock
from components.serving.handle import NamespaceHandle
from components.serving.manifests import claim as claims
from components.serving.manifests import storage
from components.serving.manifests.cache import KEPT
from components.serving.manifests.claim import ClaimSpec
from components.serving.manifests.fill import FillSpec
from components.serving.manifests.storage import Store
from stacks.config import EksCluster, Model, StackConfig
from stacks.config.model import ClaimKey

ZONE = "topology.kubernetes.io/zone"


def foreign_claims(config: StackConfig) -> dict[str, ClaimKey]:
    """The claims that somebody else makes, by the models that read them."""
    ours = config.claim_owners
    read = {name: model.reads for name, model in sorted(config.models.items())}
    return {name: key for name, key in read.items() if key is not None and key not in ours}


def announcement(config: StackConfig) -> str:
    """What has to be there already, for people; "" where there is nothing."""
    return "\n".join(
        f"{name} reads the volume claim {claim}, which this stack does not make: without it in namespace {namespace} "
        f"the model's pods wait until loadBudgetSeconds are over (models.{name}.claim makes and fills one)"
        for name, (namespace, claim) in foreign_claims(config).items()
    )


def store(config: StackConfig, uri: str) -> Store | None:
    """Where weights of an s3:// uri are, and who the pods are there; None for other weights, and for anybody's."""
    if not uri.startswith(storage.SCHEME):
        return None
    bucket = Store(pod_identity=True) if _in_bucket(config, uri) else None
    return own_store(config) or bucket


def own_store(config: StackConfig) -> Store | None:
    """The stack's own store; None where s3:// is AWS's."""
    if config.storage is None:
        return None
    given = config.storage.s3
    return Store(
        endpoint=given.endpoint,
        region=given.region,
        path_style=given.path_style,
        secret=given.existing_secret or storage.SECRET,
        port=given.port,
        networks=given.networks,
        namespace=given.namespace,
    )


def _in_bucket(config: StackConfig, uri: str) -> bool:
    cluster = config.cluster
    if not isinstance(cluster, EksCluster) or cluster.bucket is None:
        return False
    return storage.bucket_of(uri) == cluster.bucket


def readers(config: StackConfig) -> tuple[Reader, ...]:
    """The accounts of pods that download from the cluster's bucket: models', which have their names, and fillers'."""
    if config.storage is not None:
        return ()
    return tuple(
        Reader(namespace=namespace, account=account)
        for namespace, account, uri in _downloads(config)
        if _in_bucket(config, uri)
    )


def _downloads(config: StackConfig) -> Iterator[tuple[str, str, str]]:
    """(namespace, account of the pods, uri) of all that the stack's pods download."""
    for name, model in sorted(config.models.items()):
        yield model.namespace, name, model.uri
        if model.fill is not None:
            yield model.namespace, naming.filler(name), model.fill.source


def uses_keys(config: StackConfig, namespace: str) -> bool:
    """Whether pods of a namespace show an access key of the stack's own to the store."""
    here = [model for model in config.models.values() if model.namespace == namespace]
    stored = any(model.origin.startswith(storage.SCHEME) for model in here)
    return config.storage is not None and config.storage.s3.existing_secret is None and stored


def filling(config: StackConfig, model: Model) -> str | None:
    """What the claim that a model reads is filled with; None where this stack fills none."""
    owner = config.claim_owner(model)
    fill = owner.fill if owner else None
    return FillSpec.fingerprint_of(fill.source, fill.include, fill.exclude) if fill else None


def claim_spec(name: str, config: StackConfig) -> ClaimSpec:
    """The claim that a model's entry describes."""
    model = config.models[name]
    if model.claim is None:
        raise TypeError(f"{name} has no claim of its own")
    return ClaimSpec(
        name=claims.parts(model.uri)[0],
        namespace=model.namespace,
        model=name,
        size=model.claim.size,
        storage_class=model.claim.storage_class,
        shared=model.claim.shared,
    )


def fill_spec(
    name: str,
    config: StackConfig,
    pools: Mapping[str, AcceleratorPool],
    lock: Lock,
    home: NamespaceHandle,
) -> FillSpec | None:
    """What fills a model's claim; None where somebody else does."""
    model = config.models[name]
    if model.claim is None or model.claim.fill is None:
        return None
    fill, (claim, path) = model.claim.fill, claims.parts(model.uri)
    hub = home.secrets if fill.source.startswith(KEPT) else ()
    return FillSpec(
        model=name,
        namespace=model.namespace,
        claim=claim,
        path=path,
        source=fill.source,
        include=fill.include,
        exclude=fill.exclude,
        image=lock.images["storage-initializer"].pinned,
        budget_seconds=fill.budget_seconds,
        shared=model.claim.shared,
        hf_secret=next(iter(hub), None),
        store=store(config, fill.source),
        pull_secrets=home.pull_secrets,
        **_place(config, model, pools[model.accelerator]),
    )


def _place(config: StackConfig, model: Model, pool: AcceleratorPool) -> dict[str, object]:
    """Where a filler runs, so that the model's nodes can mount the volume after it.

    A volume of one node is made where its first pod is. On EKS that is a zone, where system nodes do as well as those
    with GPUs, which then need not run yet; of clusters whose volumes are not known the nodes of the model do,
    without a chip.
    """
    if model.claim is not None and model.claim.shared:
        return {}
    cluster = config.cluster
    if isinstance(cluster, EksCluster):
        zone = cluster.accelerators[model.accelerator].zone or cluster.zones[0]
        system = {labels.POOL: SYSTEM_POOL}
        return {"node_selector": {ZONE: zone}, "tolerations": pool.tolerations, "rather": system}
    return {"node_selector": dict(pool.node_selector), "tolerations": pool.tolerations}
