"""Where weights are: claims, what fills them, disks, buckets and stores, and what is refused of them."""

from __future__ import annotations

import pytest

from stacks.config import ConfigError, load_config
from stacks.config.buckets import bucket_fault

MISTRAL = "hf://mistralai/Mistral-Small-24B-Instruct-2501"
CLAIM = {
    "models/qwen/uri": "pvc://weights/",
    "models/qwen/claim": {"size": "120Gi", "fill": {"from": MISTRAL}},
}
STORE = {"storage": {"s3": {"endpoint": "https://store.example.com"}}}
S3 = {"models/qwen/uri": "s3://models/qwen"}
NUMBERS = {"parametersBillions": 23.57, "layers": 40, "kvHeads": 8, "headDim": 128, "bytesPerParameter": 2}
BIG = {"models/qwen/architecture": NUMBERS}
# Half of a machine's GPUs, of which the pool has one.
ONE_NODE = {
    **CLAIM,
    "models/qwen/claim/fill": {"from": "hf://Qwen/Qwen2.5-3B-Instruct"},
    "models/qwen/tensorParallel": 2,
    "cluster/accelerators/pool/maxNodes": 1,
}
READER = {"uri": "pvc://weights/", "accelerator": "pool", "maxModelLen": 2048, "tensorParallel": 2}
# kind of stack, change, path, words of what is wrong, words of the fix
CASES = {
    "a claim smaller than its weights": (
        "eks",
        {**CLAIM, "models/qwen/claim/size": "45Gi"},
        "models.qwen.claim.size",
        "weights, 43.9 GiB, and a tenth for the file system, together 48.3 GiB",
        "60Gi or more",
    ),
    "a claim for weights that are elsewhere": (
        "eks",
        {"models/qwen/claim": {"size": "10Gi"}},
        "models.qwen.claim",
        "not in a claim",
        "uri: pvc://qwen/ and claim.fill.from: hf://Qwen/Qwen2.5-3B-Instruct",
    ),
    "one claim described twice": (
        "eks",
        {**CLAIM, "models/twin": {"uri": "pvc://weights/", "accelerator": "pool", "claim": {"size": "120Gi"},
                                  "maxModelLen": 2048, "replicas": 0}},
        "models.twin.claim",
        "qwen describes the claim weights as well",
        "only names the claim in its uri",
    ),
    "two replicas on a volume of one node": (
        "eks",
        {**CLAIM, "models/qwen/replicas": 2},
        "models.qwen.claim.shared",
        "2 pods read the claim",
        "shared: true",
    ),
    "a shared claim of a class that cannot": (
        "eks",
        {**CLAIM, "models/qwen/claim/shared": True},
        "models.qwen.claim.storageClass",
        "a disk of one node",
        "network file system",
    ),
    "both sets of the weights": (
        "eks",
        {**CLAIM, "models/qwen/claim/fill": {"from": MISTRAL, "exclude": []}},
        "models.qwen.claim.fill.exclude",
        "would both be fetched",
        "exclude one set",
    ),
    "patterns that let no weights through": (
        "eks",
        {**CLAIM, "models/qwen/claim/fill": {"from": MISTRAL, "include": ["*.json"]}},
        "models.qwen.claim.fill.include",
        "no weights would be fetched",
        '"*.safetensors"',
    ),
    "a fill from a claim": (
        "eks",
        {**CLAIM, "models/qwen/claim/fill": {"from": "pvc://other/"}},
        "models.qwen.claim.fill.from",
        "nothing that can be downloaded",
        "hf://owner/model",
    ),
    "less disk than image and weights": (
        "eks",
        {**BIG, "models/qwen/resources": {"ephemeralStorage": "25Gi"}},
        "models.qwen.resources.ephemeralStorage",
        "weights, 43.9 GiB, and the image, 11.7 GiB",
        "70Gi or more",
    ),
    "a node's disk below image and weights": (
        "eks",
        {**BIG, "cluster/accelerators/pool/storage": "ebs", "cluster/accelerators/pool/diskGib": 70},
        "cluster.accelerators.pool.diskGib",
        "70 GiB are less than 11.7 GiB of the engine's image, 20 GiB of the node's own, 43.9 GiB of weights of qwen",
        "88 or more",
    ),
    "a bucket that no role may read": (
        "eks",
        {**S3, "cluster/bucket": "others"},
        "models.qwen.uri",
        "in the bucket models, and the pods may read others only",
        "cluster.bucket: models",
    ),
    "a fill from a bucket that no role may read": (
        "eks",
        {**CLAIM, "models/qwen/claim/fill": {"from": "s3://models/x"}},
        "models.qwen.claim.fill.from",
        "no bucket is named",
        "cluster.bucket: models",
    ),
    "a bucket beside a store of one's own": (
        "eks",
        {**S3, **STORE, "cluster/bucket": "models"},
        "cluster.bucket",
        "https://store.example.com",
        "remove bucket, or remove storage",
    ),
    "a store without encryption": (
        "existing",
        {**S3, "storage": {"s3": {"endpoint": "http://store.example.com"}}},
        "storage.s3.endpoint",
        "without encryption",
        "use https://",
    ),
    "a store with a path": (
        "existing",
        {**S3, "storage": {"s3": {"endpoint": "https://store.example.com/bucket"}}},
        "storage.s3.endpoint",
        "not the address of a store",
        "without path",
    ),
    "a Service of the cluster without its namespace": (
        "existing",
        {**S3, "storage": {"s3": {"endpoint": "http://minio.svc:9000"}}},
        "storage.s3.endpoint",
        "minio.svc is not the name of a Service",
        "name.namespace.svc",
    ),
    "a pod of a Service": (
        "existing",
        {**S3, "storage": {"s3": {"endpoint": "https://minio-0.minio.stores.svc.cluster.local"}}},
        "storage.s3.endpoint",
        "is not the name of a Service",
        "name.namespace.svc.cluster.local",
    ),
    "a Service with a dot at the end": (
        "existing",
        {**S3, "storage": {"s3": {"endpoint": "https://minio.stores.svc.cluster.local."}}},
        "storage.s3.endpoint",
        "is not the name of a Service",
        "without a dot at the end",
    ),
    "a store where models are": (
        "existing",
        {**S3, "storage": {"s3": {"endpoint": "http://minio.llm-models.svc:9000"}}},
        "storage.s3.endpoint",
        "in llm-models, a namespace of models (qwen)",
        "a namespace of its own",
    ),
    "a private address that no block holds": (
        "existing",
        {**S3, "storage": {"s3": {"endpoint": "https://10.1.2.3:9000"}}},
        "storage.s3.networks",
        "10.1.2.3 is a private address",
        "[10.1.2.3/32]",
    ),
    "an address outside of its blocks": (
        "existing",
        {**S3, "storage": {"s3": {"endpoint": "https://10.1.2.3:9000", "networks": ["10.2.0.0/16"]}}},
        "storage.s3.networks",
        "10.1.2.3 is in none of 10.2.0.0/16",
        "add 10.1.2.3/32",
    ),
    "an address that no policy can hold": (
        "existing",
        {**S3, "storage": {"s3": {"endpoint": "https://[2001:db8::1]:9000"}}},
        "storage.s3.endpoint",
        "an address of IPv6",
        "the store's name",
    ),
    "a store with nothing in it": (
        "existing",
        STORE,
        "storage",
        "no weights are at an s3:// uri",
        "remove it, or write s3://bucket/path",
    ),
    "a volume of one node on two pools of one node": (
        "eks",
        {**ONE_NODE, "cluster/accelerators/other": {"instanceType": "g6.12xlarge", "maxNodes": 1},
         "models/twin": {**READER, "accelerator": "other"}},
        "models.qwen.claim.shared",
        "2 pods read the claim",
        "maxNodes: 1",
    ),
    "a foreign Secret for an InferenceService": (
        "existing",
        {**S3, **STORE, "storage/s3/existingSecret": "keys", "models/qwen/runtime": "vllm-cuda"},
        "models.qwen.runtime",
        "annotations of the Secret keys",
        "remove existingSecret",
    ),
    "a reserved bucket": ("existing", {"models/qwen/uri": "s3://sthree-models/x"}, "models.qwen.uri", "sthree-", "own names"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_bad_storage_is_refused_once_at_its_place_with_a_fix(name: str, stack) -> None:
    kind, change, path, wrong, fix = CASES[name]
    with pytest.raises(ConfigError) as refusal:
        load_config(stack(kind, change))
    (problem,) = refusal.value.problems
    assert problem.path == f"llm-platform:{path}"
    assert wrong in problem.wrong and fix in problem.fix


@pytest.mark.parametrize(
    "change",
    [
        CLAIM,
        # Weights on a claim need nothing of the node's disk.
        {**CLAIM, "models/qwen/resources": {"ephemeralStorage": "25Gi"}},
        {**CLAIM, "models/qwen/claim/fill": {"from": MISTRAL, "exclude": ["model-*"]}},
        {"models/qwen/uri": "pvc://somebodys/"},
        {**S3, "cluster/bucket": "models"},
        {**S3, **STORE},
        {**S3, "storage": {"s3": {"endpoint": "http://minio.stores.svc.cluster.local:9000"}}},
        {**S3, "storage": {"s3": {"endpoint": "https://10.1.2.3:9000", "networks": ["10.1.0.0/16"]}}},
        {**CLAIM, **STORE, "models/qwen/claim/fill": {"from": "s3://models/qwen"}},
        # One machine has them all.
        {**ONE_NODE, "models/qwen/replicas": 2},
        {**ONE_NODE, "models/twin": READER},
        {**BIG, "models/qwen/resources": {"ephemeralStorage": "70Gi"}},
        {**BIG, "cluster/accelerators/pool/storage": "ebs", "cluster/accelerators/pool/diskGib": 90},
    ],
)
def test_what_fits_is_taken(change, stack) -> None:
    assert load_config(stack("eks", change)).models["qwen"]


def test_the_numbers_of_weights_in_a_claim_are_those_of_where_they_came_from(stack) -> None:
    """FP16 24B on one GPU is refused, although pvc:// says nothing of it."""
    one = {"cluster/accelerators/pool/instanceType": "g6.4xlarge"}
    with pytest.raises(ConfigError, match=r"does not fit: weights 43\.9 GiB .* budget 20\.1 GiB"):
        load_config(stack("eks", {**CLAIM, **one}))


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("ab", "2 characters"),
        ("a" * 64, "64 characters"),
        ("Models", '"M"'),
        ("my_models", '"_"'),
        ("-models", "begins and ends"),
        ("models.", "begins and ends"),
        ("my..models", "two dots"),
        ("192.168.5.4", "IP address"),
        ("xn--models", "xn--"),
        ("amzn-s3-demo-models", "amzn-s3-demo-"),
        ("models-s3alias", "-s3alias"),
        ("models--ol-s3", "--ol-s3"),
        ("models.mrap", ".mrap"),
        ("models--x-s3", "--x-s3"),
        ("models--table-s3", "--table-s3"),
    ],
)
def test_a_bucket_that_s3_refuses_is_told_the_rule(name: str, rule: str) -> None:
    assert rule in (bucket_fault(name) or "")


@pytest.mark.parametrize("name", ["llm-models", "a1b", "models.example.com", "1.2.3.4.5", "0models"])
def test_a_bucket_that_s3_takes_is_taken(name: str) -> None:
    assert bucket_fault(name) is None
