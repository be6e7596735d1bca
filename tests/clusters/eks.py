"""EKS clusters as configuration, as arguments, and as recorded."""

from __future__ import annotations

import copy
import importlib
import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

from components.clusters.eks.args import EksGpuClusterArgs
from components.clusters.eks.component import EksGpuCluster
from components.clusters.handle import ClusterHandle
from stacks.config import StackConfig, load_config
from stacks.eks import NAME, eks_cluster_args
from tests.support.recorder import Recording, record
from tests.support.stacks import raw_stack

Change = Callable[[dict[str, Any]], None]
ADMIN, VIEWER = "arn:aws:iam::123456789012:role/pipeline", "arn:aws:iam::123456789012:role/reviews"
# One of every kind of pool and of everything that is off by default.
EVERYTHING = {
    "zones": ["us-east-1a", "us-east-1b", "us-east-1c"],
    "accountId": "123456789012",
    "version": "1.34",
    "nat": "per-zone",
    "endpoint": {"publicCidrs": ["198.51.100.0/24"]},
    "adminRoles": [ADMIN],
    "viewerRoles": [VIEWER],
    "deletionProtection": True,
    "tags": {"team": "search"},
    "accelerators": {
        "l4": {"instanceType": "g6.4xlarge", "maxNodes": 2},
        "l4x4": {"instanceType": "g6.12xlarge", "maxNodes": 2, "minNodes": 1, "zone": "us-east-1b"},
        "cheap": {"instanceType": "g6.xlarge", "maxNodes": 1, "capacity": "spot", "storage": "ebs"},
        "held": {
            "instanceType": "g6.xlarge",
            "maxNodes": 1,
            "capacity": "reservation",
            "reservation": {"id": "cr-0123456789abcdef0", "zone": "us-east-1a"},
        },
    },
}


def everything(raw: dict[str, Any]) -> None:
    """One of every kind of pool, everything switched on."""
    raw["cluster"].update(copy.deepcopy(EVERYTHING))


def config(change: Change = lambda raw: None) -> StackConfig:
    """The gpu stack, changed by a function of its raw configuration."""
    raw = copy.deepcopy(raw_stack("gpu"))
    change(raw)
    return load_config(raw)


def args(change: Change = lambda raw: None) -> EksGpuClusterArgs:
    """The cluster's arguments of the changed stack."""
    return eks_cluster_args(config(change))


@cache
def _sdk() -> None:
    """Loads Amazon's SDK, which deprecates classes of its own as it is loaded; warnings are errors in tests."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"aws\.", DeprecationWarning)
        for module, anything in (("ec2", "Vpc"), ("eks", "Cluster"), ("iam", "Role"), ("kms", "Key")):
            # They load when something of theirs is asked for.
            getattr(importlib.import_module(f"pulumi_aws.{module}"), anything)


def run(change: Change = lambda raw: None) -> tuple[Recording, ClusterHandle]:
    """What the component registers, and its handle."""
    built: list[EksGpuCluster] = []

    def program() -> dict[str, Any]:
        built.append(EksGpuCluster(NAME, args(change)))
        return {"kubeconfig": built[0].kubeconfig}

    _sdk()
    recording = record(program)
    return recording, built[0].handle
