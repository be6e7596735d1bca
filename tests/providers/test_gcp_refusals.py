"""What Google refuses, each refusal where Google makes it: in the check, at creation, or before deletion."""

from __future__ import annotations

import pytest

from rehearsal.cloud.settings import BadSettings
from rehearsal.providers.server import Refusal
from tests.support.simulated_google import (
    PROJECT,
    ZONE,
    Failed,
    Google,
    cluster_inputs,
    pool_inputs,
)

SLICE = {"type": "COMPACT", "tpuTopology": "4x4"}
PROXY = {"purpose": "REGIONAL_MANAGED_PROXY", "role": "ACTIVE"}


@pytest.fixture
def google(tmp_path):
    return Google(tmp_path)


@pytest.fixture
def cluster(google):
    return google.make_cluster()


def refused(google, cluster, text, config=None, **more):
    """The pool is refused, and nothing is left of it."""
    with pytest.raises((Refusal, Failed), match=text):
        google.make_pool(cluster, config=config, **more)
    assert google.plugin.project.read().of("container/nodePool") == {}
    assert google.kube.nodes() == []


# -- projects ----------------------------------------------------------------------------------------


def test_an_api_that_is_off_is_named_with_the_page_that_enables_it(google):
    google.set(services=[])
    with pytest.raises(
        Refusal, match=r"403: compute.googleapis.com has not been used .*overview\?project=my-project"
    ):
        google.create("network", "net")
    google.create("service", "compute", service="compute.googleapis.com")
    google.create("network", "net")


def test_an_api_stays_on_when_its_resource_goes_unless_asked_otherwise(google):
    google.set(services=[])
    google.delete(google.create("service", "c", service="compute.googleapis.com"))
    google.create("network", "net")
    google.delete(google.create("service", "c", service="compute.googleapis.com", disableOnDestroy=True))
    with pytest.raises(Refusal, match="accessNotConfigured"):
        google.create("network", "other")


def test_enabling_what_is_on_is_no_error(google):
    for _ in range(2):
        google.create("service", "c", service="compute.googleapis.com")


def test_a_newly_enabled_api_works_only_after_a_while_where_a_test_wants_that(google):
    google.set(services=[], propagation={"projects/service": 30})
    google.create("service", "c", service="compute.googleapis.com")
    with pytest.raises(Refusal, match="wait a few minutes"):
        google.create("network", "net")
    google.now += 31
    google.create("network", "net")


def test_a_name_is_given_once(google):
    google.create("network", "net", name="net")
    with pytest.raises(
        Refusal, match=r"409: The resource 'projects/my-project/global/networks/net' already exists"
    ):
        google.create("network", "again", name="net")


def test_an_account_that_does_not_exist_gets_no_role(google):
    member = f"serviceAccount:node-account@{PROJECT}.iam.gserviceaccount.com"
    with pytest.raises(Refusal, match="Service account node-account@.* does not exist"):
        google.create("member", "m", project=PROJECT, role="roles/viewer", member=member)
    google.create("account", "a", accountId="node-account")
    google.create("member", "m", project=PROJECT, role="roles/viewer", member=member)


def test_a_new_account_is_seen_only_after_a_while_where_a_test_wants_that(google):
    google.set(propagation={"serviceaccount/account": 5})
    account = google.create("account", "a", accountId="node-account")
    grant = {"project": PROJECT, "role": "roles/viewer", "member": account.outputs["member"]}
    with pytest.raises(Refusal, match="does not exist"):
        google.create("member", "m", **grant)
    google.now += 6
    google.create("member", "m", **grant)


@pytest.mark.parametrize("account", ["ab", "Upper-case", "1-digit-first", "x" * 31])
def test_an_account_id_that_google_does_not_take_fails_the_preview(google, account):
    with pytest.raises(Failed, match="must match the regex"):
        google.check("account", "a", {"accountId": account})


@pytest.mark.parametrize(
    ("member", "role"), [("someone@example.com", "roles/viewer"), ("user:a@b.c", "viewer")]
)
def test_a_member_or_role_without_its_prefix_fails_the_preview(google, member, role):
    with pytest.raises(Failed):
        google.check("member", "m", {"project": PROJECT, "role": role, "member": member})


# -- networks ----------------------------------------------------------------------------------------


def test_a_network_that_is_not_there_is_named(google):
    with pytest.raises(Refusal, match="404: The resource 'nowhere' was not found"):
        google.create("subnetwork", "s", network="nowhere", ipCidrRange="10.0.0.0/20")


@pytest.mark.parametrize("value", ["10.0.0.1/20", "10.0.0.0/33", "ten"])
def test_a_range_that_is_none_fails_the_preview(google, value):
    with pytest.raises(Failed, match="not a valid CIDR range"):
        google.check("subnetwork", "s", {"network": "n", "ipCidrRange": value})


@pytest.mark.parametrize("taken", ["10.0.8.0/24", "10.5.0.0/16", "10.8.0.0/24"])
def test_overlapping_subnets_of_a_network_are_refused_secondary_ranges_included(google, taken):
    network, _ = google.make_network()
    with pytest.raises(Refusal, match="Invalid IPCidrRange: .* conflicts with existing subnetwork 'nodes'"):
        google.create("subnetwork", "s", network=network.identity, ipCidrRange=taken)


def test_the_same_range_in_another_network_is_fine(google):
    google.make_network()
    other = google.create("network", "other")
    google.create("subnetwork", "s", network=other.identity, ipCidrRange="10.0.0.0/20")


def test_ranges_of_one_subnet_may_not_overlap(google):
    network = google.create("network", "net")
    with pytest.raises(Refusal, match="Invalid IPCidrRange"):
        google.create(
            "subnetwork",
            "s",
            network=network.identity,
            ipCidrRange="10.0.0.0/20",
            secondaryIpRanges=[{"rangeName": "pods", "ipCidrRange": "10.0.0.0/16"}],
        )


def test_a_region_has_one_active_proxy_only_subnet_per_network(google):
    network, _ = google.make_network()
    google.create(
        "subnetwork", "p", name="p", network=network.identity, ipCidrRange="192.168.100.0/23", **PROXY
    )
    second = {"network": network.identity, "ipCidrRange": "192.168.102.0/23"}
    with pytest.raises(Refusal, match="already an active subnetwork 'p'"):
        google.create("subnetwork", "q", **second, **PROXY)
    google.create("subnetwork", "r", **second, **PROXY | {"role": "BACKUP"})
    google.create(
        "subnetwork", "t", region="us-east1", **second | {"ipCidrRange": "192.168.104.0/23"}, **PROXY
    )


def test_a_proxy_only_subnet_has_a_role_and_no_flow_logs(google):
    network, _ = google.make_network()
    subnet = {"network": network.identity, "ipCidrRange": "192.168.100.0/23"}
    with pytest.raises(Refusal, match="Role must be set"):
        google.create("subnetwork", "p", **subnet, purpose="REGIONAL_MANAGED_PROXY")
    with pytest.raises(Refusal, match="Flow logs are not supported"):
        google.create("subnetwork", "p", **subnet, **PROXY, logConfig={"flowSampling": 0.5})


def test_a_firewall_rule_allows_or_denies(google):
    allow = [{"protocol": "tcp", "ports": ["443"]}]
    for rule in ({}, {"allows": allow, "denies": allow}):
        with pytest.raises(Failed, match='"allow" and "deny"'):
            google.check("firewall", "f", {"network": "n", **rule})


@pytest.mark.parametrize("user", ["subnetwork", "router", "firewall", "cluster"])
def test_a_network_in_use_is_not_deleted_and_the_user_is_named(google, user):
    network, subnet = google.make_network()
    reference = {"network": network.identity}
    more = {
        "subnetwork": None,
        "router": reference,
        "firewall": {**reference, "allows": [{"protocol": "tcp"}]},
        "cluster": cluster_inputs(network, subnet),
    }[user]
    used = subnet if more is None else google.create(user, "u", **more)
    if more is not None and user != "cluster":
        google.delete(subnet)
    with pytest.raises(Refusal, match="is already being used by '.*'.*resourceInUseByAnotherResource"):
        google.delete(subnet if user == "cluster" else network)
    google.delete(used)
    if user == "cluster":
        google.delete(subnet)
    google.delete(network)
    assert google.plugin.project.read().empty


def test_a_nat_goes_with_its_router(google):
    network = google.create("network", "net")
    router = google.create("router", "r", network=network.identity)
    nat = google.create("nat", "n", router=router.outputs["name"], sourceSubnetworkIpRangesToNat="ALL")
    google.delete(router)
    assert google.read(nat) is None
    google.delete(network)


# -- clusters ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("inputs", "text"),
    [
        ({"minMasterVersion": "1.99"}, 'Master version "1.99" is unsupported'),
        ({"minMasterVersion": "1.34.1-gke.7"}, "is unsupported"),
        ({"initialNodeCount": 0}, "initial_node_count must be greater than zero"),
        ({"nodeConfig": {"machineType": "e2-medium"}}, "initial_node_count must be greater than zero"),
        (
            {
                "ipAllocationPolicy": {
                    "clusterSecondaryRangeName": "p",
                    "servicesSecondaryRangeName": "services",
                }
            },
            'secondary range "p" does not exist in subnetwork "nodes"',
        ),
        (
            {
                "ipAllocationPolicy": {
                    "clusterSecondaryRangeName": "pods",
                    "servicesSecondaryRangeName": "pods",
                }
            },
            "must not share",
        ),
        (
            {"datapathProvider": "ADVANCED_DATAPATH", "networkPolicy": {"enabled": True}},
            "Enabling NetworkPolicy for clusters with DatapathProvider=ADVANCED_DATAPATH is not allowed",
        ),
        (
            {"workloadIdentityConfig": {"workloadPool": "other.svc.id.goog"}},
            'must be "my-project.svc.id.goog"',
        ),
        (
            {
                "gatewayApiConfig": {"channel": "CHANNEL_STANDARD"},
                "addonsConfig": {"httpLoadBalancing": {"disabled": True}},
            },
            "Gateway API requires the HttpLoadBalancing addon",
        ),
        (
            {"controlPlaneEndpointsConfig": {"ipEndpointsConfig": {"enabled": False}}},
            "At least one of IP endpoints and DNS endpoint",
        ),
        ({"clusterAutoscaling": {"enabled": True}}, "resource limits for cpu and memory"),
        ({"subnetwork": "nowhere"}, "404: The resource 'nowhere' was not found"),
    ],
)
def test_a_cluster_that_google_would_not_make(google, inputs, text):
    with pytest.raises(Refusal, match=text):
        google.make_cluster(**inputs)
    assert google.plugin.project.read().of("container/cluster") == {}


def test_a_prefix_of_an_offered_version_is_taken_and_a_test_decides_what_is_offered(google):
    google.set(versions=["1.35"])
    network, subnet = google.make_network()
    with pytest.raises(Refusal, match="unsupported"):
        google.create("cluster", "c", **cluster_inputs(network, subnet, minMasterVersion="1.34"))
    made = google.create("cluster", "c", **cluster_inputs(network, subnet, minMasterVersion="1.35"))
    assert made.outputs["masterVersion"].startswith("1.35.")


def test_a_protected_cluster_is_not_deleted_until_the_protection_was_taken_off_by_an_update(google):
    protected = google.make_cluster(deletionProtection=True)
    with pytest.raises(Refusal, match="deletion_protection is set to true"):
        google.delete(protected)
    inputs = {k: v for k, v in protected.inputs.items() if not k.startswith("__")}
    google.delete(google.update(protected, **{**inputs, "deletionProtection": False}))
    assert google.read(protected) is None


def test_protection_is_on_where_nothing_is_said(google):
    network, subnet = google.make_network()
    inputs = cluster_inputs(network, subnet)
    del inputs["deletionProtection"]
    with pytest.raises(Refusal, match="deletion_protection"):
        google.delete(google.create("cluster", "c", **inputs))


def test_a_second_cluster_is_refused_as_a_limit_of_the_rehearsal(google, cluster):
    inputs = {k: v for k, v in cluster.inputs.items() if not k.startswith("__")}
    with pytest.raises(Refusal, match="a rehearsal has one API server and so one cluster"):
        google.create("cluster", "d", **{**inputs, "name": "d"})


# -- node pools --------------------------------------------------------------------------------------


def test_a_pool_needs_its_cluster(google):
    with pytest.raises(Refusal, match="404"):
        google.create("pool", "p", cluster="projects/x/locations/y/clusters/z")


@pytest.mark.parametrize(
    ("machine", "zone"), [("n1-standard-4", "us-east5-a"), ("ct6e-standard-4t", "europe-west4-b")]
)
def test_a_machine_type_that_the_zone_does_not_have(google, machine, zone):
    network = google.create("network", "net", name="net")
    subnet = google.create(
        "subnetwork", "s", network=network.identity, ipCidrRange="10.0.0.0/20", region=zone[:-2]
    )
    inputs = cluster_inputs(network, subnet, location=zone)
    del inputs["ipAllocationPolicy"]
    cluster = google.create("cluster", "c", **inputs)
    refused(
        google,
        cluster,
        f"'{machine}' does not exist in zone '{zone}'",
        {"machineType": machine},
        nodeLocations=[zone],
    )


@pytest.mark.parametrize("machine", ["ct6e-standard-256t", "n1-huge-4", "e2-standard-0", "standard"])
def test_a_machine_type_that_nobody_has(google, cluster, machine):
    refused(google, cluster, f"Machine type with name '{machine}' does not exist", {"machineType": machine})


def test_a_test_decides_what_a_zone_offers(google, cluster):
    google.set(offers=[{"machine": "ct6e-*", "zone": ZONE, "offered": False}])
    refused(google, cluster, "does not exist in zone")
    google.set(offers=[{"machine": "ct6e-*", "zone": "europe-west4-b", "offered": True}])
    google.make_pool(cluster, nodeLocations=["europe-west4-b"])


def test_a_zone_of_another_region(google, cluster):
    refused(google, cluster, "not a zone of the cluster's region", nodeLocations=["us-east1-d"])


def test_a_single_host_slice_takes_no_topology(google, cluster):
    policy = {"type": "COMPACT", "tpuTopology": "2x2"}
    refused(
        google,
        cluster,
        "TPU topology can't be specified with single-host TPU slice pool",
        placementPolicy=policy,
    )


@pytest.mark.parametrize("topology", ["2x3", "2x2x1", "32x32", "1x1"])
def test_a_topology_that_v6e_does_not_have(google, cluster, topology):
    policy = {"type": "COMPACT", "tpuTopology": topology}
    refused(google, cluster, f'TPU topology "{topology}" is invalid', placementPolicy=policy)


@pytest.mark.parametrize(
    ("more", "text"),
    [
        (
            {"autoscaling": {"totalMinNodeCount": 0, "totalMaxNodeCount": 4}},
            "Maximum node count 0 is not a valid size",
        ),
        ({"autoscaling": {"minNodeCount": 0, "maxNodeCount": 3}}, "Maximum node count 3 is not a valid size"),
        ({"autoscaling": {"minNodeCount": 1, "maxNodeCount": 4}}, "Minimum node count 1 is not a valid size"),
        ({"autoscaling": None, "nodeCount": 2}, "Node count 2 is not a valid size"),
        ({"nodeLocations": [ZONE, "europe-west4-b"]}, "exactly one zone"),
        ({"upgradeSettings": {"strategy": "BLUE_GREEN"}}, "Blue-green upgrades are not supported"),
        ({"placementPolicy": {"tpuTopology": "4x4"}}, "type COMPACT is needed"),
    ],
)
def test_a_multi_host_slice_is_whole_compact_and_in_one_zone(google, cluster, more, text):
    google.set(offers=[{"machine": "ct6e-*", "offered": True}])
    good = {"placementPolicy": SLICE, "autoscaling": {"minNodeCount": 0, "maxNodeCount": 4}}
    refused(google, cluster, text, **good | more)
    google.make_pool(cluster, **good)


def test_both_counts_fail_the_preview(google, cluster):
    with pytest.raises(Failed, match="Cannot set both initial_node_count and node_count on node pool v6e"):
        google.check("pool", "v6e", pool_inputs(cluster, nodeCount=1, initialNodeCount=1))


def test_limits_per_zone_and_in_total_exclude_each_other_in_the_preview(google, cluster):
    mixed = {"minNodeCount": 0, "totalMaxNodeCount": 3}
    with pytest.raises(Failed, match="conflicts with"):
        google.check("pool", "v6e", pool_inputs(cluster, autoscaling=mixed))


def test_an_effect_in_kubernetes_spelling_fails_the_preview(google, cluster):
    taints = [{"key": "google.com/tpu", "value": "present", "effect": "NoSchedule"}]
    with pytest.raises(Failed, match="expected taint.0.effect"):
        google.check("pool", "v6e", pool_inputs(cluster, config={"taints": taints}))


@pytest.mark.parametrize(
    ("autoscaling", "text"),
    [
        ({"minNodeCount": 0, "maxNodeCount": 0}, "maximum node count must be at least 1, got 0"),
        ({"minNodeCount": 3, "maxNodeCount": 2}, "minimum 3 is greater than maximum 2"),
    ],
)
def test_limits_that_leave_no_room(google, cluster, autoscaling, text):
    refused(google, cluster, text, autoscaling=autoscaling)


@pytest.mark.parametrize(
    ("config", "more", "text"),
    [
        ({"spot": True, "flexStart": True}, {}, "Spot VMs can't be used with flex start"),
        (
            {"spot": True, "reservationAffinity": {"consumeReservationType": "SPECIFIC_RESERVATION"}},
            {},
            "reservation can't be consumed by spot",
        ),
        (
            {"reservationAffinity": {"consumeReservationType": "SPECIFIC_RESERVATION"}},
            {},
            "needs a key and values",
        ),
        ({"flexStart": True}, {"autoscaling": None}, "Flex start requires node pool autoscaling"),
        (
            {"flexStart": True},
            {"autoscaling": {"minNodeCount": 1, "maxNodeCount": 3}},
            "minimum node count of 0",
        ),
        ({"flexStart": True}, {}, "auto repair to be disabled"),
        ({"flexStart": True}, {"management": {"autoRepair": False}}, "NO_RESERVATION"),
        (
            {},
            {"queuedProvisioning": {"enabled": True}, "autoscaling": {"minNodeCount": 1, "maxNodeCount": 3}},
            "Queued provisioning requires a minimum node count of 0",
        ),
    ],
)
def test_kinds_of_capacity_that_exclude_each_other(google, cluster, config, more, text):
    refused(google, cluster, text, config, **more)


def test_flex_start_as_google_wants_it(google, cluster):
    config = {"flexStart": True, "reservationAffinity": {"consumeReservationType": "NO_RESERVATION"}}
    google.make_pool(cluster, config=config, management={"autoRepair": False})


def test_a_pool_with_an_account_that_does_not_exist(google, cluster):
    email = f"nobody@{PROJECT}.iam.gserviceaccount.com"
    refused(google, cluster, f"Service account {email} does not exist", {"serviceAccount": email})


def test_a_node_version_that_is_not_offered(google, cluster):
    refused(google, cluster, 'Node version "1.12" is unsupported', version="1.12")


def test_nodes_beyond_the_quota_are_refused_and_named_in_chips(google, cluster):
    google.set(quotas=[{"metric": "TPUS_PER_TPU_FAMILY", "region": "europe-west4", "limit": 8}])
    refused(
        google,
        cluster,
        r"Quota 'TPUS_PER_TPU_FAMILY' exceeded. Limit: 8.0 in region europe-west4 .*tpu_family=CT6E; 12 chips",
        autoscaling=None,
        nodeCount=3,
    )
    google.make_pool(cluster, autoscaling=None, nodeCount=2)
    with pytest.raises(Refusal, match="exceeded"):
        google.make_pool(cluster, "other", autoscaling=None, nodeCount=1)


def test_a_region_without_any_quota(google, cluster):
    google.set(quotas=[{"metric": "TPUS_PER_TPU_FAMILY", "limit": 0}])
    refused(google, cluster, r"Limit: 0\.0", autoscaling=None, nodeCount=1)
    # An empty pool costs no quota.
    google.make_pool(cluster)


def test_spot_spends_the_preemptible_quota_first_and_then_the_familys(google, cluster):
    google.set(
        quotas=[
            {"metric": "PREEMPTIBLE_TPU_V6E", "limit": 4},
            {"metric": "TPUS_PER_TPU_FAMILY", "limit": 4},
        ]
    )
    spot = {"config": {"spot": True}, "autoscaling": None}
    refused(google, cluster, "exceeded", **spot, nodeCount=3)
    google.make_pool(cluster, **spot, nodeCount=2)


def test_an_update_beyond_the_quota_leaves_the_pool_as_it_was(google, cluster):
    google.set(quotas=[{"metric": "TPUS_PER_TPU_FAMILY", "limit": 4}])
    pool = google.make_pool(cluster, autoscaling=None, nodeCount=1)
    with pytest.raises(Refusal, match="Error waiting for updating GKE NodePool.*exceeded"):
        google.update(pool, **pool_inputs(cluster, autoscaling=None, nodeCount=2))
    assert len(google.kube.nodes()) == 1
    assert google.read(pool).outputs["nodeCount"] == 1


def test_a_stock_out_is_by_kind_of_capacity(google, cluster):
    google.set(stockOuts=[{"machine": "ct6e-*", "zone": ZONE, "capacity": "spot"}])
    refused(
        google,
        cluster,
        "does not have enough resources available.*ZONE_RESOURCE_POOL_EXHAUSTED",
        {"spot": True},
        autoscaling=None,
        nodeCount=1,
    )
    google.make_pool(cluster, autoscaling=None, nodeCount=1)


# -- whatever a test wants ---------------------------------------------------------------------------


def test_an_injected_refusal_strikes_as_often_as_it_says(google):
    google.set(
        refusals=[
            {
                "kind": "compute/network",
                "operation": "create",
                "status": 503,
                "message": "try later",
                "times": 1,
            }
        ]
    )
    with pytest.raises(Refusal, match="Error 503: try later"):
        google.create("network", "net", name="net")
    assert google.plugin.project.read().empty
    made = google.create("network", "net", name="net")
    google.set(refusals=[{"kind": "compute/*", "operation": "delete", "status": 409, "message": "busy"}])
    for _ in range(2):
        with pytest.raises(Refusal, match="409: busy"):
            google.delete(made)


def test_deletion_policies_are_kept(google):
    kept = google.create("network", "kept", deletionPolicy="PREVENT")
    with pytest.raises(Refusal, match="deletion_policy is set to PREVENT"):
        google.delete(kept)
    left = google.create("network", "left", deletionPolicy="ABANDON")
    google.delete(left)
    assert google.read(left) is not None


def test_a_word_that_the_settings_do_not_know_is_named(google):
    google.set(stockouts=[])
    with pytest.raises(BadSettings, match="stockouts; there are: .*stockOuts"):
        google.create("network", "net")
