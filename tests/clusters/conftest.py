"""GKE clusters as configuration, as arguments, and as recorded."""

from __future__ import annotations

import copy
import importlib
import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest

from components.clusters.gke.args import GkeTpuClusterArgs
from components.clusters.gke.component import GkeTpuCluster
from components.clusters.handle import ClusterHandle
from stacks.config import StackConfig, load_config
from stacks.gke import NAME, gke_cluster_args
from tests.support.recorder import Recording, record
from tests.support.stacks import raw_stack

Change = Callable[[dict[str, Any]], None]
MULTI_HOST = {"machineType": "ct6e-standard-4t", "topology": "4x4", "maxNodes": 8}
# One of every kind of pool and of everything that is off by default.
EVERYTHING = {
    "labels": {"team": "search"},
    "version": "1.34",
    "secretsKey": "projects/p/locations/l/keyRings/r/cryptoKeys/k",
    "deletionProtection": True,
    "controlPlane": {"dnsEndpoint": True, "authorizedNetworks": {"office": "198.51.100.0/24"}},
    "accelerators": {
        "v6e": {"machineType": "ct6e-standard-4t", "topology": "2x2", "maxNodes": 3, "minNodes": 1},
        "wide": MULTI_HOST,
        "spot": {"machineType": "ct6e-standard-1t", "topology": "1x1", "maxNodes": 2, "capacity": "spot"},
        "flex": {
            "machineType": "ct6e-standard-8t",
            "topology": "2x4",
            "maxNodes": 1,
            "capacity": "flex-start",
            "maxRunHours": 24,
        },
        "held": {
            "machineType": "ct6e-standard-4t",
            "topology": "2x2",
            "maxNodes": 1,
            "capacity": "reservation",
            "reservation": "tpus-of-ours",
        },
    },
}


def config(change: Change = lambda raw: None) -> StackConfig:
    """The tpu stack, changed by a function of its raw configuration."""
    raw = copy.deepcopy(raw_stack("tpu"))
    change(raw)
    return load_config(raw)


def on_google(raw: dict[str, Any]) -> None:
    """Google's gateway, which takes no keys and limits of ours, hence no access."""
    raw["gateway"] = {"kind": "gke"}
    del raw["access"]


def everything(raw: dict[str, Any]) -> None:
    """One of every kind of pool, and Google's gateway."""
    on_google(raw)
    raw["cluster"].update(copy.deepcopy(EVERYTHING))
    raw["models"]["qwen2-5-3b"]["cache"] = {"size": "100Gi"}


def args(change: Change = lambda raw: None) -> GkeTpuClusterArgs:
    """The cluster's arguments of the changed stack."""
    return gke_cluster_args(config(change))


@cache
def _sdk() -> None:
    """Loads Google's SDK, which deprecates classes of its own as it is loaded; warnings are errors in tests."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"gcp\.", DeprecationWarning)
        for module, anything in (("compute", "Network"), ("container", "Cluster")):
            # They load when something of theirs is asked for.
            getattr(importlib.import_module(f"pulumi_gcp.{module}"), anything)


def run(change: Change = lambda raw: None) -> tuple[Recording, ClusterHandle]:
    """What the component registers, and its handle."""
    built: list[GkeTpuCluster] = []

    def program() -> dict[str, Any]:
        built.append(GkeTpuCluster(NAME, args(change)))
        return {"kubeconfig": built[0].kubeconfig}

    _sdk()
    recording = record(program)
    return recording, built[0].handle


@pytest.fixture(scope="session")
def whole() -> Recording:
    """Everything at once, recorded."""
    return run(everything)[0]


@pytest.fixture(scope="session")
def plain() -> Recording:
    """The tpu stack as it is committed, recorded."""
    return run()[0]
