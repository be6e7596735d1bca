"""GKE clusters and node pools.

Fields whose change replaces, and what the provider itself refuses: Google's provider,
resource_container_cluster.go, resource_container_node_pool.go and node_config.go. A cluster is the rehearsal's
embedded API server; a node pool is Node objects in it.
"""

from __future__ import annotations

from typing import Any

from ops.kube import Manifest
from rehearsal.cloud import releases, storage_classes
from rehearsal.cloud.load_balancers import has_gateway_api
from rehearsal.cloud.project import CLUSTER, POOL
from rehearsal.providers.gcp import gateway_api, network, pool_rules
from rehearsal.providers.gcp.call import Call, google
from rehearsal.providers.gcp.identity import require_account
from rehearsal.providers.gcp.kinds import Kind
from rehearsal.providers.gcp.values import always, at, fields, labelled, project, token
from rehearsal.providers.server import Refusal

API = "container.googleapis.com"
_COMPONENTS = ["SYSTEM_COMPONENTS", "WORKLOADS"]


# -- clusters --------------------------------------------------------------------------------------


def offered_version(call: Call, field: str, what: str) -> str:
    """The full version that a prefix such as `1.34` stands for; refused where it is not offered."""
    asked, offered = call.inputs.get(field), call.settings.versions
    if not asked:
        return releases.full(offered[len(offered) // 2])
    minor = releases.minor_of(asked)
    # A version may be given in part; what is given must be that of the one patch there is.
    if minor not in offered or not f"{releases.full(minor)}.".replace("-", ".").startswith(
        f"{asked}.".replace("-", ".")
    ):
        raise google(400, f'{what} version "{asked}" is unsupported.', "badRequest")
    return releases.full(minor)


def _master_version(call: Call) -> str:
    return offered_version(call, "minMasterVersion", "Master")


def _version(call: Call) -> None:
    _master_version(call)


def _one_cluster(call: Call) -> None:
    others = [i for i in call.state.of(CLUSTER) if i != call.identity]
    if others:
        raise Refusal(
            f"a rehearsal has one API server and so one cluster, and {others[0]} is there; "
            "delete it first (a cluster with a name of its own is deleted before it is replaced)"
        )


def _size(call: Call) -> None:
    """A default pool of no nodes is an error; a cluster without one is asked for by leaving everything out."""
    count = call.inputs.get("initialNodeCount")
    if count == 0 or (count is None and call.inputs.get("nodeConfig")):
        raise google(400, "Cluster.initial_node_count must be greater than zero.", "badRequest")


def _secondary_ranges(call: Call) -> None:
    policy = call.inputs.get("ipAllocationPolicy") or {}
    found = call.find(network.SUBNETWORK, call.inputs.get("subnetwork"))
    names = [policy.get("clusterSecondaryRangeName"), policy.get("servicesSecondaryRangeName")]
    if found is None or not any(names):
        return
    there = {entry["rangeName"] for entry in found[1]["inputs"].get("secondaryIpRanges") or ()}
    for name in names:
        if name and name not in there:
            raise google(
                400,
                f'Services and pods need existing ranges: secondary range "{name}" does not exist in '
                f'subnetwork "{found[0].rsplit("/", 1)[-1]}".',
                "badRequest",
            )
    if names[0] == names[1]:
        raise google(400, f'Pods and services must not share the secondary range "{names[0]}".', "badRequest")


def _datapath(call: Call) -> None:
    calico = (call.inputs.get("networkPolicy") or {}).get("enabled")
    if calico and call.inputs.get("datapathProvider") == "ADVANCED_DATAPATH":
        raise google(
            400,
            "Enabling NetworkPolicy for clusters with DatapathProvider=ADVANCED_DATAPATH is not allowed.",
            "badRequest",
        )


def _workload_pool(call: Call) -> None:
    pool = (call.inputs.get("workloadIdentityConfig") or {}).get("workloadPool")
    if pool and pool != f"{call.project}.svc.id.goog":
        raise google(400, f'Workload pool "{pool}" must be "{call.project}.svc.id.goog".', "badRequest")


def _gateway_api(call: Call) -> None:
    balancing = ((call.inputs.get("addonsConfig") or {}).get("httpLoadBalancing") or {}).get("disabled")
    if has_gateway_api(call.inputs) and balancing:
        raise google(400, "Gateway API requires the HttpLoadBalancing addon to be enabled.", "badRequest")


def _reachable(call: Call) -> None:
    """Without a DNS name and without addresses, nobody could talk to the control plane."""
    endpoints = call.inputs.get("controlPlaneEndpointsConfig") or {}
    address = (endpoints.get("ipEndpointsConfig") or {}).get("enabled", True)
    name = (endpoints.get("dnsEndpointConfig") or {}).get("allowExternalTraffic")
    if not address and not name:
        raise google(
            400,
            "At least one of IP endpoints and DNS endpoint with external traffic must be enabled.",
            "badRequest",
        )


def _limits_of_autoprovisioning(call: Call) -> None:
    scaling = call.inputs.get("clusterAutoscaling") or {}
    kinds = {limit.get("resourceType") for limit in scaling.get("resourceLimits") or ()}
    if scaling.get("enabled") and not {"cpu", "memory"} <= kinds:
        raise google(400, "Cluster autoscaling needs resource limits for cpu and memory.", "badRequest")


def _unprotected(call: Call) -> None:
    # As the provider reads it: from what was applied last, so it must be switched off by an update first.
    if (call.record or {}).get("inputs", {}).get("deletionProtection", True):
        raise Refusal(
            "Cannot destroy cluster because deletion_protection is set to true. "
            "Set it to false to proceed with cluster deletion."
        )


def _default_pool(call: Call) -> None:
    """The pool that Google makes with a cluster, unless it is asked to remove it at once."""
    count = call.inputs.get("initialNodeCount")
    if not count or call.inputs.get("removeDefaultNodePool"):
        return
    identity = f"{call.identity}/nodePools/default-pool"
    inputs = {"cluster": call.identity, "nodeConfig": call.inputs.get("nodeConfig") or {}}
    call.state.of(POOL)[identity] = {"inputs": inputs, "outputs": {}, "created": call.now, "size": count}
    pool_rules.show(call, identity)


def _made(call: Call) -> None:
    _default_pool(call)
    _changed(call)


def _changed(call: Call) -> None:
    gateway_api.bring(call, _master_version(call))
    addons = call.inputs.get("addonsConfig") or {}
    disks = (addons.get("gcePersistentDiskCsiDriverConfig") or {}).get("enabled", True)
    files = (addons.get("gcpFilestoreCsiDriverConfig") or {}).get("enabled", False)
    storage_classes.bring(call.embedded.kube, storage_classes.google(disks, files), "gke-addon-manager")


def _load_balancers(call: Call) -> list[Manifest]:
    """Services in the cluster for which Google keeps load balancers, while their controllers run."""
    return [s for s in call.embedded.kube.list("v1", "Service") if s["spec"].get("type") == "LoadBalancer"]


def _deleted(call: Call) -> None:
    """Pools go with their cluster, and nodes with their pools.

    Load balancers do not: nobody is left who would take their firewall rules away, and these keep the network.
    Those of Gateways are on record already (rehearsal/stand_ins/google_gateway.py).
    """
    for item in _load_balancers(call):
        meta = item["metadata"]
        name = f"k8s-fw-{meta.get('namespace', 'default')}-{meta['name']}"
        inputs = {"name": name, "network": call.inputs["network"]}
        left = {"inputs": inputs, "outputs": inputs, "created": call.now}
        call.state.of(network.FIREWALL)[f"projects/{call.project}/global/firewalls/{name}"] = left
    for identity in [i for i in call.state.of(POOL) if i.startswith(f"{call.identity}/")]:
        pool_rules.hide(call, identity)
    gateway_api.take_away(call)
    storage_classes.take_away(call.embedded.kube, [storage_classes.DISK, storage_classes.FILES])


def _endpoint(call: Call) -> str:
    return call.embedded.address


def _self_link(call: Call) -> str:
    return f"https://container.googleapis.com/v1/{call.identity}"


def _node_locations(call: Call) -> list[str]:
    return [] if call.zonal else [f"{call.location}-{letter}" for letter in "abc"]


def _services_range(call: Call) -> str:
    policy = call.inputs.get("ipAllocationPolicy") or {}
    found = call.find(network.SUBNETWORK, call.inputs.get("subnetwork"))
    entries = found[1]["inputs"].get("secondaryIpRanges") or () if found else ()
    wanted = policy.get("servicesSecondaryRangeName")
    return next((e["ipCidrRange"] for e in entries if e["rangeName"] == wanted), "34.118.224.0/20")


def _component_block(call: Call) -> dict[str, Any]:
    return {"enableComponents": list(_COMPONENTS)}


def _pod_ranges_stay(call: Call) -> None:
    """In a preview: what can only mean one of two things."""
    if call.inputs.get("nodePools") and call.inputs.get("removeDefaultNodePool"):
        raise Refusal("node_pools within the cluster and remove_default_node_pool exclude each other")


_CLUSTER = Kind(
    token="gcp:container/cluster:Cluster",
    title="Cluster",
    identity=at("projects/{project}/locations/{location}/clusters/{name}"),
    api=API,
    max_name=40,
    defaults={
        "deletionProtection": True,
        "allowNetAdmin": False,
        "enableKubernetesAlpha": False,
        "enableLegacyAbac": False,
        "enableShieldedNodes": True,
        "network": "default",
        "removeDefaultNodePool": False,
        "enableCiliumClusterwideNetworkPolicy": False,
    },
    outputs={
        "project": project,
        "location": lambda call: call.location,
        "selfLink": _self_link,
        "endpoint": _endpoint,
        "masterVersion": _master_version,
        "emulatedVersion": always(""),
        "nodeVersion": _master_version,
        "nodeLocations": _node_locations,
        "labelFingerprint": token,
        "operation": always(""),
        "servicesIpv4Cidr": _services_range,
        "tpuIpv4CidrBlock": always(""),
        "clusterIpv4Cidr": always(""),
        "datapathProvider": always("LEGACY_DATAPATH"),
        "defaultMaxPodsPerNode": always(110),
        "networkingMode": always("VPC_NATIVE"),
        "subnetwork": always(""),
        "loggingService": always("logging.googleapis.com/kubernetes"),
        "monitoringService": always("monitoring.googleapis.com/kubernetes"),
        "databaseEncryption": always({"state": "DECRYPTED"}),
        "enableIntranodeVisibility": always(False),
        "enableL4IlbSubsetting": always(False),
        "privateIpv6GoogleAccess": always(""),
        "addonsConfig": always({"httpLoadBalancing": {"disabled": False}}),
        "loggingConfig": _component_block,
        "monitoringConfig": _component_block,
        "releaseChannel": always({"channel": "REGULAR"}),
        "securityPostureConfig": always(
            {"mode": "BASIC", "vulnerabilityMode": "VULNERABILITY_MODE_UNSPECIFIED"}
        ),
        "serviceExternalIpsConfig": always({"enabled": False}),
        "verticalPodAutoscaling": always({"enabled": False}),
        "clusterAutoscaling": always({"enabled": False, "autoscalingProfile": "BALANCED"}),
        **labelled("resourceLabels"),
    },
    filled={
        "masterAuth": {
            "clusterCaCertificate": lambda call: call.embedded.authority,
            "clientCertificate": always(""),
            "clientKey": always(""),
        },
        "controlPlaneEndpointsConfig": {"dnsEndpointConfig.endpoint": _endpoint},
        "privateClusterConfig": {
            "privateEndpoint": _endpoint,
            "publicEndpoint": _endpoint,
            "peeringName": always(""),
        },
    },
    force_new=fields(
        "clusterIpv4Cidr",
        "confidentialNodes",
        "datapathProvider",
        "defaultMaxPodsPerNode",
        "description",
        "enableAutopilot",
        "enableKubernetesAlpha",
        "enableMultiNetworking",
        "enableTpu",
        "initialNodeCount",
        "ipAllocationPolicy",
        "location",
        "masterAuth.clientCertificateConfig",
        "name",
        "network",
        "networkingMode",
        "nodeConfig",
        "privateClusterConfig.masterIpv4CidrBlock",
        "privateClusterConfig.privateEndpointSubnetwork",
        "project",
        "subnetwork",
        "tpuConfig",
    ),
    references={"network": network.NETWORK, "subnetwork": network.SUBNETWORK},
    plan=(_pod_ranges_stay,),
    checks=(
        _one_cluster,
        _size,
        _version,
        _secondary_ranges,
        _datapath,
        _workload_pool,
        _gateway_api,
        _reachable,
        _limits_of_autoprovisioning,
    ),
    removal=(_unprotected,),
    made=_made,
    changed=_changed,
    removed=_deleted,
)


# -- node pools ------------------------------------------------------------------------------------


def _pool_identity(call: Call) -> str:
    return f"{pool_rules.cluster_of(call)}/nodePools/{call.name}"


def _pool_project(call: Call) -> str:
    return call.identity.split("/")[1]


def _pool_location(call: Call) -> str:
    return call.identity.split("/")[3]


def _pool_version(call: Call) -> str:
    return offered_version(call, "version", "Node")


def _node_version(call: Call) -> None:
    _pool_version(call)


def _account(call: Call) -> None:
    email = (call.inputs.get("nodeConfig") or {}).get("serviceAccount")
    if email and email != "default":
        require_account(call, email)


_POOL = Kind(
    token="gcp:container/nodePool:NodePool",
    title="NodePool",
    identity=_pool_identity,
    api=API,
    max_name=40,
    required=("cluster",),
    outputs={
        "project": _pool_project,
        "location": _pool_location,
        "nodeCount": pool_rules.count_per_zone,
        "initialNodeCount": pool_rules.count_per_zone,
        "instanceGroupUrls": pool_rules.groups,
        "managedInstanceGroupUrls": pool_rules.groups,
        "maxPodsPerNode": always(110),
        "namePrefix": always(""),
        "nodeLocations": pool_rules.zones,
        "operation": always(""),
        "version": _pool_version,
        "management": always({"autoRepair": True, "autoUpgrade": True}),
        "upgradeSettings": always({"strategy": "SURGE", "maxSurge": 1, "maxUnavailable": 0}),
        "networkConfig": always({}),
        "nodeConfig": always({"machineType": "e2-medium"}),
    },
    force_new=fields(
        "cluster",
        "initialNodeCount",
        "location",
        "maxPodsPerNode",
        "name",
        "namePrefix",
        "placementPolicy",
        "project",
        "queuedProvisioning",
        *(
            f"networkConfig.{name}"
            for name in (
                "acceleratorNetworkProfile",
                "createPodRange",
                "podIpv4CidrBlock",
                "podRange",
                "subnetwork",
            )
        ),
        *(
            f"nodeConfig.{name}"
            for name in (
                "confidentialNodes",
                "ephemeralStorageLocalSsdConfig",
                "flexStart",
                "guestAccelerators",
                "localSsdCount",
                "maxRunDuration",
                "metadata",
                "minCpuPlatform",
                "nodeGroup",
                "oauthScopes",
                "preemptible",
                "reservationAffinity",
                "secondaryBootDisks",
                "serviceAccount",
                "shieldedInstanceConfig",
                "soleTenantConfig",
                "spot",
            )
        ),
    ),
    references={"cluster": CLUSTER},
    part_of="cluster",
    plan=pool_rules.PLAN,
    checks=(_node_version, _account, *pool_rules.CHECKS),
    made=pool_rules.grow_to_start,
    changed=pool_rules.resize,
    removed=lambda call: pool_rules.hide(call, call.identity),
    observed=pool_rules.observed,
)

KINDS = (_CLUSTER, _POOL)
