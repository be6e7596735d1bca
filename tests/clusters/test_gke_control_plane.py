"""The cluster's own inputs: what must be so, and what must not be there."""

from __future__ import annotations

from typing import Any

import pytest

from components.clusters.gke.args import MaintenanceArgs
from components.clusters.gke.control_plane import cluster_inputs, endpoints, maintenance_window
from tests.clusters.conftest import args, everything, on_google

# By the identifiers under which checkov lists them.
BASELINE = {
    "CKV_GCP_7 no legacy authorization": ("enable_legacy_abac", False),
    "CKV_GCP_12 network policies are enforced": ("datapath_provider", "ADVANCED_DATAPATH"),
    "CKV_GCP_13 no client certificates": (
        "master_auth.client_certificate_config.issue_client_certificate",
        False,
    ),
    "CKV_GCP_23 pods have addresses of the network": ("networking_mode", "VPC_NATIVE"),
    "CKV_GCP_25 private nodes": ("private_cluster_config.enable_private_nodes", True),
    "CKV_GCP_61 traffic within a node is seen": ("enable_intranode_visibility", True),
    "CKV_GCP_70 a release channel": ("release_channel.channel", "REGULAR"),
    "CKV_GCP_71 shielded nodes": ("enable_shielded_nodes", True),
    "kubelets answer nobody without a key": (
        "node_pool_defaults.node_config_defaults.insecure_kubelet_readonly_port_enabled",
        "FALSE",
    ),
    "strangers may ask for health only": ("anonymous_authentication_config.mode", "LIMITED"),
    "security posture": ("security_posture_config.mode", "BASIC"),
    "workloads have identities": ("workload_identity_config.workload_pool", "my-project.svc.id.goog"),
    "secrets from Secret Manager": ("secret_manager_config.enabled", True),
    "costs by namespace": ("cost_management_config.enabled", True),
    "managed Prometheus": ("monitoring_config.managed_prometheus.enabled", True),
    "no pools that nobody asked for": ("cluster_autoscaling.enabled", False),
    "idle nodes go soon": ("cluster_autoscaling.autoscaling_profile", "OPTIMIZE_UTILIZATION"),
    "load balancers for Gateways": ("addons_config.http_load_balancing.disabled", False),
}


def at(value: Any, path: str) -> Any:
    """The value at a dotted path."""
    for step in path.split("."):
        value = value[step]
    return value


@pytest.mark.parametrize(("path", "wanted"), BASELINE.values(), ids=list(BASELINE))
def test_the_baseline_holds(path: str, wanted: Any) -> None:
    assert at(cluster_inputs(args()), path) == wanted


@pytest.mark.parametrize("change", [lambda raw: None, everything], ids=["tpu stack", "everything"])
def test_what_would_replace_the_cluster_or_ask_for_calico_is_left_out(change: Any) -> None:
    """`node_config` beside a removed default pool replaces at every run, inline pools are the cluster's own."""
    inputs = cluster_inputs(args(change))
    assert not {"node_config", "node_pools", "network_policy", "enable_autopilot"} & inputs.keys()
    assert "network_policy_config" not in inputs["addons_config"]
    assert "master_ipv4_cidr_block" not in inputs["private_cluster_config"]


def test_the_pool_that_google_insists_on_is_removed_at_once() -> None:
    inputs = cluster_inputs(args())
    assert (inputs["remove_default_node_pool"], inputs["initial_node_count"]) == (True, 1)


def test_definitions_of_the_gateway_api_are_ours_or_googles_never_both() -> None:
    assert cluster_inputs(args())["gateway_api_config"] == {"channel": "CHANNEL_DISABLED"}
    assert cluster_inputs(args(on_google))["gateway_api_config"] == {"channel": "CHANNEL_STANDARD"}


def test_by_default_the_api_server_has_a_name_guarded_by_iam_and_no_address() -> None:
    assert endpoints(True, {}) == {
        "control_plane_endpoints_config": {
            "dns_endpoint_config": {"allow_external_traffic": True},
            "ip_endpoints_config": {"enabled": False},
        }
    }


def test_addresses_open_to_named_networks_only() -> None:
    found = endpoints(False, {"b": "198.51.100.0/24", "a": "203.0.113.0/24"})
    assert found["control_plane_endpoints_config"] == {
        "dns_endpoint_config": {"allow_external_traffic": False},
        "ip_endpoints_config": {"enabled": True},
    }
    assert found["master_authorized_networks_config"] == {
        "cidr_blocks": [
            {"cidr_block": "203.0.113.0/24", "display_name": "a"},
            {"cidr_block": "198.51.100.0/24", "display_name": "b"},
        ],
        "gcp_public_cidrs_access_enabled": False,
    }


def test_a_key_of_the_users_encrypts_secrets() -> None:
    assert "database_encryption" not in cluster_inputs(args())
    encryption = cluster_inputs(args(everything))["database_encryption"]
    assert encryption == {
        "state": "ENCRYPTED",
        "key_name": "projects/p/locations/l/keyRings/r/cryptoKeys/k",
    }


@pytest.mark.parametrize(
    ("days", "start", "hours", "window"),
    [
        (("Sat", "Sun"), "02:00", 6, ("2025-01-01T02:00:00Z", "2025-01-01T08:00:00Z", "SA,SU")),
        (("Mon",), "22:30", 12, ("2025-01-01T22:30:00Z", "2025-01-02T10:30:00Z", "MO")),
    ],
    ids=["weekend", "over midnight"],
)
def test_maintenance_is_a_weekly_window_from_a_fixed_day(
    days: tuple[str, ...], start: str, hours: int, window: tuple[str, str, str]
) -> None:
    found = maintenance_window(MaintenanceArgs(days=days, start=start, hours=hours))
    first, end, by_day = window
    assert found == {
        "start_time": first,
        "end_time": end,
        "recurrence": f"FREQ=WEEKLY;BYDAY={by_day}",
    }


def test_network_file_systems_have_their_driver_where_a_cache_is_shared() -> None:
    def cached(shared: bool) -> Any:
        cache = {"size": "100Gi", "shared": shared}
        return cluster_inputs(args(lambda raw: raw["models"]["qwen2-5-3b"].update(cache=cache, replicas=1)))

    driver = "gcp_filestore_csi_driver_config"
    assert cached(True)["addons_config"][driver] == {"enabled": True}
    assert driver not in cached(False)["addons_config"]
