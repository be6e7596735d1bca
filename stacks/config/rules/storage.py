"""Where weights come from and whether they fit there: claims, node disks, buckets, and who may read them."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatch
from ipaddress import IPv4Address, ip_network

from components.core.accelerators import ACCELERATORS
from components.core.models import GIB
from components.serving.manifests import storage as s3
from components.serving.manifests.cache import KEPT
from components.serving.manifests.llm_service import DOWNLOADED
from stacks.config.eks import EksCluster
from stacks.config.errors import Problem
from stacks.config.model import ClaimKey, Model
from stacks.config.pools import PoolShape
from stacks.config.root import StackConfig
from stacks.config.rules.draft import Draft, problem
from stacks.config.rules.memory import stored_gib
from stacks.config.storage import ClaimFill
from stacks.config.types import quantity_value

# Of a file system, its own share: ext4 keeps 5 % for root and needs some for itself.
CLAIM_SHARE = 1.1
# Of vLLM's image, unpacked: 12.6 GB (vllm-project/vllm#27154, 2025-10; discuss.vllm.ai/t/1204). Other images of the
# engine are of the same kind, so that one number does for all.
IMAGE_GIB = 12.6e9 / GIB
# A node's own: the operating system, logs, images of its daemons (GPU operator and network), and 10 % that the kubelet
# keeps free (its threshold of eviction for images and containers).
NODE_GIB, NODE_SHARE = 20, 1.1
# One name of each of the two sets that repositories carry side by side.
TWO_SETS = ("model-00001-of-00010.safetensors", "consolidated.safetensors")


def passes(name: str, fill: ClaimFill) -> bool:
    """Whether a file of a repository is fetched; as `kserve_storage` and the hub's client decide."""
    wanted = not fill.include or any(fnmatch(name, pattern) for pattern in fill.include)
    return wanted and not any(fnmatch(name, pattern) for pattern in fill.exclude)


def _claiming(draft: Draft) -> Iterator[tuple[str, Model]]:
    return ((name, model) for name, model in draft.config.models.items() if model.claim)


def claims_of_claims(draft: Draft) -> Iterator[Problem]:
    """A claim is for a pvc:// uri, and described once."""
    owners: dict[ClaimKey, str] = {}
    for name, model in _claiming(draft):
        key = model.reads
        if key is None:
            yield problem(
                ("models", name, "claim"),
                f"the weights are in {model.uri}, not in a claim",
                "a volume would be made and paid for that nothing reads",
                f"write uri: pvc://{name}/ and claim.fill.from: {model.uri}, or remove claim",
            )
            continue
        if key in owners:
            yield problem(
                ("models", name, "claim"),
                f"{owners[key]} describes the claim {key[1]} as well",
                "the second of the two could not be made",
                "keep one of them; the other model only names the claim in its uri",
            )
        owners.setdefault(key, name)


def one_node(draft: Draft) -> Iterator[Problem]:
    """A volume of one node serves pods of one node, which several are where their pool has no second one."""
    for name, model in _claiming(draft):
        readers = _readers(draft, model)
        pods = sum(reader.replicas * pool.nodes_per_replica for reader, pool in readers)
        if model.claim is None or model.claim.shared or pods <= 1:
            continue
        if len({reader.accelerator for reader, _ in readers}) == 1 and readers[0][1].max_nodes == 1:
            continue
        yield problem(
            ("models", name, "claim", "shared"),
            f"{pods} pods read the claim, and its volume is of one node",
            "all but one could stay in ContainerCreating",
            "use a StorageClass of a network file system and shared: true, or one replica, or a claim for each model, or a "
            "pool for all of them with maxNodes: 1",
        )


def _readers(draft: Draft, owner: Model) -> list[tuple[Model, PoolShape]]:
    """The models with pods that read the claim of one, with their pools."""
    key = owner.reads
    return [
        (model, pool) for _, model, pool in draft.placed() if model.replicas and key and model.reads == key
    ]


# What makes each kind of volume one that one node mounts: a cache is shared unless it says otherwise.
UNSHARED = (("cache", "write shared: false"), ("claim", "remove shared"))


def network_file_system(draft: Draft) -> Iterator[Problem]:
    """EKS comes with disks of one node only."""
    if draft.config.cluster.kind != "eks":
        return
    for name, model in draft.config.models.items():
        for kind, unshared in UNSHARED:
            volume = getattr(model, kind)
            if volume is None or not volume.shared or volume.storage_class:
                continue
            yield problem(
                ("models", name, kind, "storageClass"),
                "the default class of EKS is a disk of one node",
                "the claim would never be bound, and the pods would stay Pending",
                f"name a class of a network file system that you have installed, or {unshared} for one replica",
            )


def claim_size(draft: Draft) -> Iterator[Problem]:
    """A claim holds its weights."""
    for name, model in _claiming(draft):
        weights = stored_gib(model)
        if model.claim is None or weights is None:
            continue
        needed = weights * CLAIM_SHARE
        if quantity_value(model.claim.size) >= needed * GIB:
            continue
        yield problem(
            ("models", name, "claim", "size"),
            f"{model.claim.size} is less than the weights, {weights:.1f} GiB, and a tenth for the file system, "
            f"together {needed:.1f} GiB",
            "the download fails when the volume is full",
            f"use {round(weights * 1.25 + 5)}Gi or more",
        )


def one_set(draft: Draft) -> Iterator[Problem]:
    """Of weights that a repository has twice, one set is fetched."""
    for name, model in _claiming(draft):
        fill = model.fill
        if fill is None:
            continue
        place = ("models", name, "claim", "fill")
        found = [file for file in TWO_SETS if passes(file, fill)]
        if len(found) == len(TWO_SETS):
            yield problem(
                (*place, "exclude"),
                f"{' and '.join(found)} would both be fetched where the repository has them",
                "the claim would hold the weights twice, of which vLLM loads one",
                'exclude one set, for example with "consolidated*" or "model*"',
            )
        elif not found and not passes("model.safetensors", fill) and not passes("model.gguf", fill):
            yield problem(
                (*place, "include" if fill.include else "exclude"),
                "no weights would be fetched",
                "the job fails, as the claim has nothing to serve",
                'include the weights, for example with "*.safetensors"',
            )


def ephemeral_storage(draft: Draft) -> Iterator[Problem]:
    """A pod that downloads has the disk for it: the weights count as its own, and its image is unpacked beside them.

    The size of the image is known for NVIDIA's engine alone.
    """
    for name, model, pool in draft.placed():
        weights = _downloaded_gib(model)
        asked = model.resources.ephemeral_storage if model.resources else None
        if weights is None or asked is None:
            continue
        image = IMAGE_GIB if ACCELERATORS[pool.accelerator].vendor == "nvidia" else 0.0
        needed = weights + image
        if quantity_value(asked) >= needed * GIB:
            continue
        beside = f", and the image, {image:.1f} GiB, which land" if image else ", which land"
        yield problem(
            ("models", name, "resources", "ephemeralStorage"),
            f"{asked} is less than the weights, {weights:.1f} GiB{beside} on the node's disk",
            "the pod would be evicted while it downloads, or have no room on its node",
            f"use {round(needed * 1.25)}Gi or more, or keep the weights on a claim (uri: pvc://…)",
        )


def node_disk(draft: Draft) -> Iterator[Problem]:
    """The disk of a pool's nodes holds the image, and the weights of all replicas that one node serves."""
    for name, pool in draft.pools().items():
        if pool.disk_gib is None:
            continue
        landing = [
            (each, gib * _beside(model, draft))
            for each, model, _ in draft.placed()
            if model.accelerator == name and (gib := _downloaded_gib(model)) is not None
        ]
        total = (sum(gib for _, gib in landing) + IMAGE_GIB + NODE_GIB) * NODE_SHARE
        if total <= pool.disk_gib:
            continue
        parts = "".join(f", {gib:.1f} GiB of weights of {each}" for each, gib in landing)
        yield problem(
            ("cluster", "accelerators", name, "diskGib"),
            f"{pool.disk_gib:.0f} GiB are less than {IMAGE_GIB:.1f} GiB of the engine's image, {NODE_GIB} GiB of the "
            f"node's own{parts}, and a tenth that stays free",
            "images and downloads would fill it, and the node would evict its pods",
            f"use {round(total + 5)} or more, or storage: instance-store",
        )


def _downloaded_gib(model: Model) -> float | None:
    """Weights that land on the node's disk, as far as their size is known."""
    if not model.uri.startswith(DOWNLOADED) or (model.cache and model.uri.startswith(KEPT)):
        return None
    return stored_gib(model)


def _beside(model: Model, draft: Draft) -> int:
    """Replicas of a model that one node may have at a time."""
    pool = draft.pools()[model.accelerator]
    return max(1, min(model.replicas, pool.chips_per_node // (model.tensor_parallel or pool.chips_per_node)))


def readable(draft: Draft) -> Iterator[Problem]:
    """Pods on EKS have a role for one bucket, and a store of one's own has all of them."""
    cluster, storage = draft.config.cluster, draft.config.storage
    if (
        not draft.knows("storage")
        or not isinstance(cluster, EksCluster)
        or not draft.knows("cluster", "kind")
    ):
        return
    if storage is not None and cluster.bucket is not None:
        yield problem(
            ("cluster", "bucket"),
            f"storage.s3 says that every s3:// uri is at {storage.s3.endpoint}, and {cluster.bucket} is a bucket of AWS",
            "its role would be made, and nothing would read from it",
            "remove bucket, or remove storage",
        )
    if storage is not None or not draft.knows("cluster", "bucket"):
        return
    for place, uri in s3_sources(draft.config):
        bucket = s3.bucket_of(uri)
        if bucket == cluster.bucket:
            continue
        other = f"and the pods may read {cluster.bucket} only" if cluster.bucket else "and no bucket is named"
        yield problem(
            place,
            f"the weights are in the bucket {bucket}, {other}",
            "S3 refuses the download",
            f"set cluster.bucket: {bucket}, or storage.s3 for a store of your own",
        )


def s3_sources(config: StackConfig) -> list[tuple[tuple[str, ...], str]]:
    """Every s3:// uri that weights are downloaded from, with its place."""
    found: list[tuple[tuple[str, ...], str]] = []
    for name, model in config.models.items():
        found.append((("models", name, "uri"), model.uri))
        if model.fill:
            found.append((("models", name, "claim", "fill", "from"), model.fill.source))
    return [(place, uri) for place, uri in found if uri.startswith(s3.SCHEME)]


def store_of_use(draft: Draft) -> Iterator[Problem]:
    """Something is loaded from a store that is described."""
    # The uri of a model that could not be read may be there.
    whole = not any(gone[0] == "models" for gone in draft.removed)
    if draft.config.storage is None or not whole or s3_sources(draft.config):
        return
    yield problem(
        ("storage",),
        "no weights are at an s3:// uri",
        "no Secret with its keys would be made, and nothing would be loaded from there",
        "remove it, or write s3://bucket/path in a model's uri or claim.fill.from",
    )


def store_in_reach(draft: Draft) -> Iterator[Problem]:
    """The NetworkPolicies of models open the way to an address: to the internet, or to the blocks in `networks`."""
    store = draft.config.storage.s3 if draft.config.storage else None
    address = store.address if store else None
    if store is None or address is None:
        return
    if not isinstance(address, IPv4Address):
        yield problem(
            ("storage", "s3", "endpoint"),
            f"{address} is an address of IPv6",
            "the NetworkPolicies of models open ways of IPv4 alone, and the downloads would wait in vain",
            "use the store's name, or its address of IPv4",
        )
    elif store.networks and not any(address in ip_network(block) for block in store.networks):
        yield problem(
            ("storage", "s3", "networks"),
            f"{address} is in none of {', '.join(store.networks)}",
            "pods reach nothing else, and the downloads would wait in vain",
            f"add {address}/32 or the block of the store",
        )
    elif not store.networks and not address.is_global:
        yield problem(
            ("storage", "s3", "networks"),
            f"{address} is a private address, and no block is named",
            "no NetworkPolicy would open the way to it, and the downloads would wait in vain",
            f"set it to [{address}/32] or the block of the store",
        )


def store_apart(draft: Draft) -> Iterator[Problem]:
    """A store in the cluster is not where models are."""
    store = draft.config.storage.s3 if draft.config.storage else None
    if store is None:
        return
    inside = [name for name, model in draft.config.models.items() if model.namespace == store.namespace]
    if not inside:
        return
    yield problem(
        ("storage", "s3", "endpoint"),
        f"the store is in {store.namespace}, a namespace of models ({', '.join(inside)})",
        "such a namespace is closed, and the store would get no request",
        "run the store in a namespace of its own",
    )


def keys_of_predictors(draft: Draft) -> Iterator[Problem]:
    """KServe tells an InferenceService's download where the store is by the annotations of its Secret."""
    storage = draft.config.storage
    if storage is None or storage.s3.existing_secret is None:
        return
    for name, model in draft.config.models.items():
        if model.runtime and model.uri.startswith("s3://"):
            yield problem(
                ("models", name, "runtime"),
                f"with runtime: {model.runtime} the address of the store comes from annotations of the Secret "
                f"{storage.s3.existing_secret}, which is not this stack's",
                "the download would look for the bucket at AWS",
                "remove existingSecret and set s3AccessKeyId and s3SecretAccessKey, or remove runtime",
            )


RULES = (
    claims_of_claims,
    one_node,
    network_file_system,
    claim_size,
    one_set,
    ephemeral_storage,
    node_disk,
    readable,
    store_of_use,
    store_in_reach,
    store_apart,
    keys_of_predictors,
)
