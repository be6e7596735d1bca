"""From a stack's configuration to the cluster's arguments, and what is refused on the way."""

from __future__ import annotations

import subprocess
import sys
from importlib import util
from typing import Any

import pytest

from components.clusters.gke.args import MAX_NAME, RANDOM_SUFFIX, pools_of
from rehearsal.paths import CHECKOUT
from stacks.config import load_config
from stacks.gke import NAME, gke_cluster_args, gke_problems
from tests.clusters.conftest import MULTI_HOST, args, config, everything, on_google
from tests.support.stacks import raw_stack


def pools(**entries: dict[str, Any]) -> Any:
    """A change that leaves only these pools, the first of which the model uses."""

    def change(raw: dict[str, Any]) -> None:
        raw["cluster"]["accelerators"] = entries
        raw["models"]["qwen2-5-3b"].update(accelerator=next(iter(entries)), replicas=1)

    return change


SMALL = {"machineType": "ct6e-standard-4t", "topology": "2x2", "maxNodes": 1}


def test_the_committed_stack_is_fine_and_complete() -> None:
    found = args()
    assert gke_problems(config()) == []
    assert (found.project, found.zone, found.region) == ("my-project", "europe-west4-a", "europe-west4")
    assert (found.system.machine_type, found.system.nodes, found.system.max_nodes) == ("n1-standard-4", 2, 4)
    (pool,) = found.accelerators.values()
    assert (pool.hosts, pool.chips, pool.max_nodes, pool.min_nodes) == (1, 4, 3, 0)
    assert pool.zones == ("europe-west4-a",) and pool.capacity == "on-demand"
    assert found.awake and not found.google_gateway and found.network.proxy_only is None


def test_what_the_file_says_arrives() -> None:
    found = args(everything)
    assert found.labels == {"team": "search"} and found.version == "1.34" and found.deletion_protection
    assert found.authorized_networks == {"office": "198.51.100.0/24"} and found.secrets_key
    assert found.accelerators["held"].reservation == "tpus-of-ours"
    assert found.accelerators["flex"].max_run_hours == 24
    assert (found.accelerators["wide"].hosts, found.accelerators["wide"].max_nodes) == (4, 8)
    assert gke_problems(config(everything)) == []


def test_power_decides_whether_it_is_awake() -> None:
    assert not args(lambda raw: raw.update(power="asleep")).awake


def test_webhooks_of_operators_that_somebody_else_installs_are_somebody_else_s() -> None:
    found = args(lambda raw: raw.update(platform={"istio": "provided", "kserve": "provided"}))
    assert found.webhook_ports == (9443, 10250)


def test_a_shared_subnet_for_proxies_is_not_made_again() -> None:
    def shared(raw: dict[str, Any]) -> None:
        on_google(raw)
        raw["cluster"]["network"] = {"sharedProxyOnlySubnet": "proxies", "proxyOnly": "192.168.0.0/23"}

    assert args(shared).network.proxy_only is None
    assert args(on_google).network.proxy_only == "192.168.100.0/23"


@pytest.mark.parametrize(
    ("entry", "longest"),
    [(SMALL, 14), ({**SMALL, "capacity": "spot"}, 19), (MULTI_HOST, 12)],
    ids=["on demand", "spot", "slices with numbers"],
)
def test_names_that_google_refuses_are_refused_with_the_length_that_fits(
    entry: dict[str, Any], longest: int
) -> None:
    assert gke_problems(config(pools(**{"a" * longest: entry}))) == []
    (problem,) = gke_problems(config(pools(**{"a" * (longest + 1): entry})))
    assert problem.path == f"llm-platform:cluster.accelerators.{'a' * (longest + 1)}"
    assert problem.fix == f"use {longest} characters at most"


def test_the_longest_names_fit_google_s_limit() -> None:
    found = args(pools(**{"a" * 12: MULTI_HOST})).accelerators
    names = [f"{NAME}-{name}" for key, pool in found.items() for name in pools_of(key, pool)]
    assert max(map(len, names)) + RANDOM_SUFFIX == MAX_NAME


@pytest.mark.parametrize(
    ("window", "wrong"),
    [
        ({"days": ["Sat"], "hours": 6}, "1 days of 6 hours are 6 hours a week"),
        ({"days": ["Sat", "Sat"], "hours": 6}, "1 days of 6 hours are 6 hours a week"),
        ({"days": ["Sat", "Sun"], "hours": 4}, "2 days of 4 hours are 8 hours a week"),
    ],
)
def test_maintenance_that_google_finds_too_short_is_refused(window: dict[str, Any], wrong: str) -> None:
    (problem,) = gke_problems(config(lambda raw: raw["cluster"].update(maintenance=window)))
    assert problem.path == "llm-platform:cluster.maintenance" and problem.wrong == wrong


def test_enough_maintenance_is_fine() -> None:
    window = {"days": ["Sat"], "hours": 12}
    assert not gke_problems(config(lambda raw: raw["cluster"].update(maintenance=window)))


def test_a_missing_sdk_is_said_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(util, "find_spec", lambda name: None)
    (problem,) = gke_problems(config())
    assert "pip install -r requirements-gcp.txt" in problem.fix
    assert (CHECKOUT / "requirements-gcp.txt").is_file()


def test_other_clusters_have_no_problems_here_and_no_arguments() -> None:
    dev = load_config(raw_stack("dev"))
    assert gke_problems(dev) == []
    with pytest.raises(TypeError, match="kind existing, not gke"):
        gke_cluster_args(dev)


def test_arguments_are_made_without_the_sdk() -> None:
    """It takes seconds and much memory to load, and stacks on other clouds do without it."""
    seen = "import sys, stacks.gke; sys.exit('pulumi_gcp' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", seen], cwd=CHECKOUT, check=False).returncode == 0
