"""Inputs of the cluster itself. Pure. Sources as in `pools`, and Google's accelerated-platforms for the choices."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from components.clusters.gke.args import GkeTpuClusterArgs, MaintenanceArgs

PODS, SERVICES = "pods", "services"
_RFC5545_DAYS = {"Mon": "MO", "Tue": "TU", "Wed": "WE", "Thu": "TH", "Fri": "FR", "Sat": "SA", "Sun": "SU"}
# A window needs a first day, any in the past. The program reads no clock.
_FIRST_DAY = "2025-01-01"
_METRICS = (
    "SYSTEM_COMPONENTS",
    "STORAGE",
    "POD",
    "DEPLOYMENT",
    "STATEFULSET",
    "DAEMONSET",
    "JOBSET",
    "KUBELET",
    "CADVISOR",
)


def cluster_inputs(args: GkeTpuClusterArgs) -> dict[str, Any]:
    """The cluster's inputs but for its network. Updates in place, unless a comment says otherwise.

    `node_config` is left out: together with a removed default pool it replaces the cluster at every `up`.
    """
    return {
        "location": args.zone,
        "min_master_version": args.version,
        "release_channel": {"channel": args.release_channel.upper()},
        "deletion_protection": args.deletion_protection,
        "resource_labels": dict(args.labels),
        "maintenance_policy": {"recurring_window": maintenance_window(args.maintenance)},
        "gateway_api_config": {"channel": "CHANNEL_STANDARD" if args.google_gateway else "CHANNEL_DISABLED"},
        **_without_default_pool(),
        **_addresses(bool(args.authorized_networks)),
        **endpoints(args.dns_endpoint, args.authorized_networks),
        **_security(args),
        **_operations(args.shared_volumes),
    }


def _without_default_pool() -> dict[str, Any]:
    """GKE makes no cluster without a pool; this one is deleted as soon as the cluster stands."""
    return {"remove_default_node_pool": True, "initial_node_count": 1}


def _addresses(by_address: bool) -> dict[str, Any]:
    """Private nodes, and pods with addresses of the network. Another data path replaces the cluster.

    Dataplane V2 enforces network policies by itself: `network_policy` would ask for Calico beside it.
    """
    return {
        "networking_mode": "VPC_NATIVE",
        "ip_allocation_policy": {
            "cluster_secondary_range_name": PODS,
            "services_secondary_range_name": SERVICES,
        },
        "datapath_provider": "ADVANCED_DATAPATH",
        "enable_intranode_visibility": True,
        "private_cluster_config": {
            "enable_private_nodes": True,
            # Says which addresses of the API server there are, so only where there are any.
            **({"enable_private_endpoint": False} if by_address else {}),
        },
    }


def endpoints(dns: bool, networks: Mapping[str, str]) -> dict[str, Any]:
    """How the API server is reached: by name with an IAM permission, by address from named networks, or both."""
    config = {
        "dns_endpoint_config": {"allow_external_traffic": dns},
        "ip_endpoints_config": {"enabled": bool(networks)},
    }
    if not networks:
        return {"control_plane_endpoints_config": config}
    blocks = [{"cidr_block": network, "display_name": name} for name, network in sorted(networks.items())]
    authorized = {"cidr_blocks": blocks, "gcp_public_cidrs_access_enabled": False}
    return {"control_plane_endpoints_config": config, "master_authorized_networks_config": authorized}


def _security(args: GkeTpuClusterArgs) -> dict[str, Any]:
    secrets = {"database_encryption": {"state": "ENCRYPTED", "key_name": args.secrets_key}}
    return {
        "workload_identity_config": {"workload_pool": f"{args.project}.svc.id.goog"},
        "enable_shielded_nodes": True,
        "enable_legacy_abac": False,
        "master_auth": {"client_certificate_config": {"issue_client_certificate": False}},
        "anonymous_authentication_config": {"mode": "LIMITED"},
        "security_posture_config": {"mode": "BASIC"},
        "secret_manager_config": {"enabled": True},
        **(secrets if args.secrets_key else {}),
        "node_pool_defaults": {
            "node_config_defaults": {
                "insecure_kubelet_readonly_port_enabled": "FALSE",
                "gcfs_config": {"enabled": True},
            }
        },
    }


def _operations(shared_volumes: bool) -> dict[str, Any]:
    return {
        "addons_config": {
            "http_load_balancing": {"disabled": False},
            "horizontal_pod_autoscaling": {"disabled": False},
            "gce_persistent_disk_csi_driver_config": {"enabled": True},
            "gcs_fuse_csi_driver_config": {"enabled": True},
            **({"gcp_filestore_csi_driver_config": {"enabled": True}} if shared_volumes else {}),
        },
        # The profile holds for plain autoscaled pools as well: idle TPUs go sooner. No pool is made by itself.
        "cluster_autoscaling": {"enabled": False, "autoscaling_profile": "OPTIMIZE_UTILIZATION"},
        "logging_config": {"enable_components": ["SYSTEM_COMPONENTS", "WORKLOADS"]},
        "monitoring_config": {
            "enable_components": list(_METRICS),
            "managed_prometheus": {"enabled": True, "auto_monitoring_config": {"scope": "NONE"}},
        },
        "cost_management_config": {"enabled": True},
    }


def maintenance_window(window: MaintenanceArgs) -> dict[str, str]:
    """GKE's form of a weekly window; a window over midnight ends on the next day."""
    start = datetime.fromisoformat(f"{_FIRST_DAY}T{window.start}:00")
    end = start + timedelta(hours=window.hours)
    days = ",".join(_RFC5545_DAYS[day] for day in window.days)
    return {
        "start_time": f"{start.isoformat()}Z",
        "end_time": f"{end.isoformat()}Z",
        "recurrence": f"FREQ=WEEKLY;BYDAY={days}",
    }
