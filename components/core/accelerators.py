"""The accelerators that models run on, and everything that follows from the choice of one.

A model entry says what to serve; this table says how: resource name, memory, where the
scheduler puts the pods, which engine image serves and with which flags. A new accelerator
is a new row.

Memory is what software can use of one chip, not the number on the box (all read 2026-08):

* L4 22888 MiB: `instance-types.md` of karpenter-provider-aws 1d927085, g6 sizes.
* T4 15360 MiB: as `nvidia-smi` and the same page's g4dn sizes state; the card is sold as 16 GB.
* A100 80GB 81920 MiB, H100 80GB 81559 MiB: as `nvidia-smi` states for the SXM boards.
* TPU v6e 31.25 GiB: XLA's own limit in its out-of-memory message (EnzymeAD/Enzyme-JAX#2422,
  2026-04); docs.cloud.google.com/tpu/docs/v6e calls it 32 GB.

Node labels: `nvidia.com/gpu.product` is set by NVIDIA's GPU feature discovery and spells the
board, so another form factor of an A100 or H100 needs the pool's own `nodeSelector`.
`cloud.google.com/gke-tpu-accelerator` and the taint `google.com/tpu` are set by GKE.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

MIB_PER_GIB = 1024.0


@dataclass(frozen=True, kw_only=True)
class Accelerator:
    """One kind of chip.

    `memory_gib` is per chip. `node_selector` and `tolerations` are Kubernetes' own shapes and
    are what pods get on a cluster that somebody else made. `image_key` names an image of the
    lock file. `startup_budget_seconds` is the least load budget that a model on this chip may
    have: start of the pod, download, load and compile. `dtype` is the number format to use
    where a model states none (None: the model's own). `extra_args` go to `vllm serve`.
    `run_as_root` is for images that have no other user.
    """

    name: str
    vendor: str
    resource: str
    memory_gib: float
    node_selector: Mapping[str, str]
    tolerations: tuple[Mapping[str, Any], ...]
    image_key: str
    startup_budget_seconds: int
    dtype: str | None = None
    extra_args: tuple[str, ...] = ()
    extra_env: Mapping[str, str] = field(default_factory=dict)
    run_as_root: bool = False


def _nvidia(name: str, product: str, memory_mib: int, **more: Any) -> Accelerator:
    """An NVIDIA GPU. A minute is what the start of the engine alone takes, without weights to speak of."""
    return Accelerator(
        name=name,
        vendor="nvidia",
        resource="nvidia.com/gpu",
        memory_gib=memory_mib / MIB_PER_GIB,
        node_selector={"nvidia.com/gpu.product": product},
        tolerations=({"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},),
        image_key="vllm-cuda",
        startup_budget_seconds=30,
        **more,
    )


_TABLE = (
    # Turing has no bfloat16, and CUDA graphs of its kernels were seen to fail in compilation.
    _nvidia("nvidia-t4", "Tesla-T4", 15360, dtype="float16", extra_args=("--enforce-eager",)),
    _nvidia("nvidia-l4", "NVIDIA-L4", 22888),
    _nvidia("nvidia-a100-80gb", "NVIDIA-A100-SXM4-80GB", 81920),
    _nvidia("nvidia-h100-80gb", "NVIDIA-H100-80GB-HBM3", 81559),
    Accelerator(
        name="tpu-v6e",
        vendor="google",
        resource="google.com/tpu",
        memory_gib=31.25,
        node_selector={"cloud.google.com/gke-tpu-accelerator": "tpu-v6e-slice"},
        tolerations=(
            {"key": "google.com/tpu", "operator": "Equal", "value": "present", "effect": "NoSchedule"},
        ),
        image_key="vllm-tpu",
        # XLA compiles every batch shape before the server listens: three to five minutes after the download.
        startup_budget_seconds=600,
        # The image names no user, and KServe's preset refuses root unless told otherwise.
        run_as_root=True,
    ),
)

ACCELERATORS: Mapping[str, Accelerator] = MappingProxyType({row.name: row for row in _TABLE})
