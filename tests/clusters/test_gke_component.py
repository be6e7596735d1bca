"""The whole GKE cluster as it is registered: parents, providers, order, times, locks and secrets."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.clusters.conftest import MULTI_HOST, on_google, run
from tests.support import sdk
from tests.support.recorder import ADDRESS, AUTHORITY, DNS_ENDPOINT, Recording, Registration

CLUSTER = "gcp:container/cluster:Cluster"
POOL = "gcp:container/nodePool:NodePool"
SERVICE = "gcp:projects/service:Service"
MEMBER = "gcp:projects/iAMMember:IAMMember"
SUBNET = "gcp:compute/subnetwork:Subnetwork"
NAT = "gcp:compute/routerNat:RouterNat"
FIREWALL = "gcp:compute/firewall:Firewall"
NETWORK = "gcp:compute/network:Network"
GOOGLE, KUBERNETES = "pulumi:providers:gcp", "pulumi:providers:kubernetes"
SYSTEM = "cluster-system"


def one(recording: Recording, token: str, name: str | None = None) -> Registration:
    """The one resource of a type, by name where there are several."""
    (found,) = (r for r in recording.of_type(token) if name in (None, r.name))
    return found


def googles(recording: Recording) -> list[Registration]:
    """All of Google's resources."""
    return [r for r in recording.registrations if r.type.startswith("gcp:")]


def by_address(raw: dict[str, Any]) -> None:
    """The API server by address only."""
    raw["cluster"]["controlPlane"] = {
        "dnsEndpoint": False,
        "authorizedNetworks": {"office": "198.51.100.0/24"},
    }


def test_every_resource_is_a_child_on_the_explicit_provider(whole: Recording) -> None:
    (component,) = whole.of_type("llmp:index:GkeTpuCluster")
    google = one(whole, GOOGLE)
    assert len(googles(whole)) > 25
    for item in googles(whole):
        assert item.parent == component.urn, item.name
        assert item.provider.startswith(f"{google.urn}::"), item.name
    assert google.parent == one(whole, KUBERNETES).parent == component.urn
    assert component.urn in whole.completed


def test_the_provider_takes_nothing_from_the_machine_that_runs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GOOGLE_PROJECT", "GOOGLE_REGION", "GOOGLE_ZONE", "CLOUDSDK_CORE_PROJECT"):
        monkeypatch.setenv(name, "somebody-else")
    recording, _ = run()
    assert one(recording, GOOGLE).inputs == {
        "project": "my-project",
        "region": "europe-west4",
        "zone": "europe-west4-a",
        "defaultLabels": "{}",
        "addPulumiAttributionLabel": "false",
    }


def test_every_argument_exists_in_the_installed_sdk_with_its_type(whole: Recording, plain: Recording) -> None:
    for recording in (whole, plain, run(by_address)[0]):
        items = [r for r in recording.registrations if sdk.of_sdk(r, "gcp")]
        assert items and not [fault for item in items for fault in sdk.faults(item)]


def test_what_is_ignored_exists_in_the_installed_sdk(whole: Recording) -> None:
    """A path in Python's spelling would ignore nothing."""
    ignoring = [item for item in googles(whole) if item.ignored]
    assert {item.type for item in ignoring} == {POOL}
    for item in ignoring:
        for path in item.ignored:
            assert sdk.has_path(sdk.arguments_of(item.type), path), path


def test_only_labels_that_gke_adds_to_tpu_nodes_are_ignored(whole: Recording) -> None:
    for pool in whole.of_type(POOL):
        ignored = () if pool.name == SYSTEM else ("nodeConfig.labels", "nodeConfig.resourceLabels")
        assert pool.ignored == ignored, pool.name


def test_every_entry_is_its_pools_by_name_and_capacity(whole: Recording) -> None:
    assert {pool.name for pool in whole.of_type(POOL)} == {
        SYSTEM,
        "cluster-v6e-on-demand",
        "cluster-wide-on-demand-1",
        "cluster-wide-on-demand-2",
        "cluster-spot-spot",
        "cluster-flex-flex-start",
        "cluster-held-reservation",
    }


def test_slow_resources_have_the_time_that_google_takes(whole: Recording) -> None:
    times = {
        CLUSTER: {"create": "45m", "update": "90m", "delete": "45m"},
        POOL: {"create": "45m", "update": "60m", "delete": "45m"},
        NETWORK: {"delete": "20m"},
        SUBNET: {"delete": "20m"},
        FIREWALL: {"delete": "20m"},
    }
    for item in googles(whole):
        assert item.timeouts == times.get(item.type, {}), item.name


def test_the_lock_against_deletion_is_google_s_and_pulumi_s_at_once(
    whole: Recording, plain: Recording
) -> None:
    for recording, locked in ((whole, True), (plain, False)):
        cluster = one(recording, CLUSTER)
        assert (cluster.inputs["deletionProtection"], cluster.protect) == (locked, locked)
        protected = {r.name for r in recording.registrations if r.protect}
        # A pool that goes under its models takes all their replicas at once; one without models may go.
        assert protected == ({cluster.name, "cluster-v6e-on-demand"} if locked else set())


def test_pools_whose_models_have_moved_to_another_are_not_locked_and_all_slices_of_that_one_are() -> None:
    def move(raw: dict[str, Any]) -> None:
        raw["cluster"]["deletionProtection"] = True
        raw["cluster"]["accelerators"]["wide"] = MULTI_HOST
        raw["models"]["qwen2-5-3b"].update(accelerator="wide", replicas=2)
        raw["power"] = "asleep"

    recording, _ = run(move)
    assert {pool.name: pool.protect for pool in recording.of_type(POOL) if pool.name != SYSTEM} == {
        "cluster-v6e-on-demand": False,
        "cluster-wide-on-demand-1": True,
        "cluster-wide-on-demand-2": True,
    }


def test_a_kept_pool_stands_beside_the_models_new_one_and_is_not_locked() -> None:
    def move(raw: dict[str, Any]) -> None:
        raw["cluster"]["deletionProtection"] = True
        raw["cluster"]["accelerators"]["v6e"] |= {"capacity": "spot", "keep": ["on-demand"], "minNodes": 1}

    recording, _ = run(move)
    pools = {pool.name: pool for pool in recording.of_type(POOL) if pool.name != SYSTEM}
    assert {name: pool.protect for name, pool in pools.items()} == {
        "cluster-v6e-spot": True,
        "cluster-v6e-on-demand": False,
    }
    floors = {name: pool.inputs["autoscaling"]["minNodeCount"] for name, pool in pools.items()}
    assert floors == {"cluster-v6e-spot": 1, "cluster-v6e-on-demand": 0}
    labels_of = {name: pool.inputs["nodeConfig"]["labels"]["llmp.dev/pool"] for name, pool in pools.items()}
    assert labels_of == {"cluster-v6e-spot": "v6e-spot", "cluster-v6e-on-demand": "v6e-on-demand"}


def test_every_resource_comes_after_the_api_that_makes_it(whole: Recording) -> None:
    apis = {r.inputs["service"].split(".")[0]: r.urn for r in whole.of_type(SERVICE)}
    needs = {"gcp:compute": "compute", "gcp:serviceaccount": "iam", "gcp:container": "container"}
    for item in googles(whole):
        family = item.type.split("/")[0]
        if item.type == MEMBER:
            assert apis["cloudresourcemanager"] in whole.before(item)
        elif item.type != SERVICE:
            assert apis[needs[family]] in whole.before(item), item.name


def test_apis_stay_on_at_destroy_and_some_are_on_where_they_are_needed_only(
    whole: Recording, plain: Recording
) -> None:
    names = [
        {r.inputs["service"] for r in recording.of_type(SERVICE) if r.inputs["disableOnDestroy"] is False}
        for recording in (whole, plain)
    ]
    assert len(names[0]) == len(whole.of_type(SERVICE))
    gateway, volumes = (
        {"networkservices.googleapis.com", "certificatemanager.googleapis.com"},
        {"file.googleapis.com"},
    )
    assert names[0] - names[1] == gateway | volumes


def test_nodes_act_as_an_account_with_three_roles_that_are_added_and_take_nobodys(whole: Recording) -> None:
    account = one(whole, "gcp:serviceaccount/account:Account")
    members = whole.of_type(MEMBER)
    assert {member.inputs["role"] for member in members} == {
        "roles/artifactregistry.reader",
        "roles/container.defaultNodeServiceAccount",
        "roles/serviceusage.serviceUsageConsumer",
    }
    for member in members:
        assert account.urn in whole.before(member)
    for pool in whole.of_type(POOL):
        assert {member.urn for member in members} < whole.before(pool), pool.name


def test_the_cluster_goes_before_its_network_and_pools_before_their_way_out(whole: Recording) -> None:
    """Destruction is the reverse of dependencies: whatever comes later here is deleted first."""
    later_than = [
        (one(whole, CLUSTER), one(whole, NETWORK)),
        (one(whole, CLUSTER), one(whole, SUBNET, "cluster-subnet")),
        *((pool, one(whole, NAT)) for pool in whole.of_type(POOL)),
        *((pool, one(whole, CLUSTER)) for pool in whole.of_type(POOL)),
        *((subnet, one(whole, NETWORK)) for subnet in whole.of_type(SUBNET)),
        (one(whole, FIREWALL), one(whole, NETWORK)),
    ]
    for later, earlier in later_than:
        assert earlier.urn in whole.before(later), (later.name, earlier.name)


def test_kubernetes_objects_go_while_their_controllers_run_and_outlive_no_network(whole: Recording) -> None:
    """What objects leave behind are load balancers: they go with the controllers of the system pool, or never."""
    before = whole.before(one(whole, KUBERNETES))
    wanted = [
        one(whole, POOL, SYSTEM),
        one(whole, NAT),
        one(whole, FIREWALL),
        *whole.of_type(SUBNET),
        *whole.of_type(MEMBER),
    ]
    assert {item.urn for item in wanted} < before


def test_the_kubernetes_provider_waits_for_no_tpu(whole: Recording) -> None:
    tpus = {pool.urn for pool in whole.of_type(POOL) if pool.name != SYSTEM}
    assert tpus and not tpus & whole.before(one(whole, KUBERNETES))


def test_models_wait_for_every_pool() -> None:
    recording, handle = run()
    assert len(handle.ready) == len(recording.of_type(POOL)) == 2
    assert handle.cloud == "gcp" and "my-project" in handle.description
    assert handle.accelerators["v6e"].node_selector["llmp.dev/pool"] == "v6e-on-demand"


def test_the_objects_of_a_cluster_are_bound_to_it_and_not_to_its_address(whole: Recording) -> None:
    assert one(whole, KUBERNETES).inputs["clusterIdentifier"] == f"{one(whole, CLUSTER).name}-id"


def test_proxies_have_a_subnet_with_google_s_gateway_only() -> None:
    def with_shared(raw: dict[str, Any]) -> None:
        on_google(raw)
        raw["cluster"]["network"] = {"sharedProxyOnlySubnet": "proxies", "proxyOnly": "192.168.0.0/23"}

    def unused(raw: dict[str, Any]) -> None:
        raw["cluster"]["network"] = {"proxyOnly": "192.168.200.0/23"}

    found = {}
    for change in (on_google, with_shared, unused):
        subnets = {r.name: r.inputs for r in run(change)[0].of_type(SUBNET)}
        found[change.__name__] = subnets.pop("cluster-proxies", None)
        assert set(subnets) == {"cluster-subnet"}
    assert found.pop("on_google") == {
        "project": "my-project",
        "region": "europe-west4",
        "network": "cluster-network-id",
        "ipCidrRange": "192.168.100.0/23",
        "purpose": "REGIONAL_MANAGED_PROXY",
        "role": "ACTIVE",
    }
    assert found == {"with_shared": None, "unused": None}


def test_pods_and_services_have_ranges_of_the_subnet_that_the_cluster_names(plain: Recording) -> None:
    ranges = one(plain, SUBNET).inputs["secondaryIpRanges"]
    assert {r["rangeName"]: r["ipCidrRange"] for r in ranges} == {
        "pods": "10.4.0.0/14",
        "services": "10.8.0.0/20",
    }
    policy = one(plain, CLUSTER).inputs["ipAllocationPolicy"]
    assert policy == {"clusterSecondaryRangeName": "pods", "servicesSecondaryRangeName": "services"}


def test_the_api_server_reaches_webhooks_on_nodes_and_nobody_else_does(plain: Recording) -> None:
    rule = one(plain, FIREWALL).inputs
    assert rule["allows"] == [{"protocol": "tcp", "ports": ["9443", "10250", "15017"]}]
    assert rule["sourceRanges"] == [one(plain, SUBNET).inputs["ipCidrRange"]]
    assert rule["targetServiceAccounts"] == [one(plain, POOL, SYSTEM).inputs["nodeConfig"]["serviceAccount"]]


def test_without_operators_of_ours_no_port_is_opened() -> None:
    def provided(raw: dict[str, Any]) -> None:
        keys = ("certManager", "istio", "kserve", "leaderWorkerSet")
        raw["platform"] = dict.fromkeys(keys, "provided")

    assert not run(provided)[0].of_type(FIREWALL)


def test_the_kubeconfig_is_secret_wherever_it_goes(whole: Recording) -> None:
    provider = one(whole, KUBERNETES)
    assert provider.secrets == ("kubeconfig",)
    assert "masterAuth" in one(whole, CLUSTER).secret_outputs
    text = json.dumps([dict(item.inputs) for item in whole.registrations])
    assert "gke-gcloud-auth-plugin" not in text and DNS_ENDPOINT not in text


@pytest.mark.parametrize(
    ("change", "cluster"),
    [
        (lambda raw: None, {"server": f"https://{DNS_ENDPOINT}"}),
        (by_address, {"server": f"https://{ADDRESS}", "certificate-authority-data": AUTHORITY}),
    ],
    ids=["by name", "by address"],
)
def test_the_kubeconfig_leads_to_the_endpoint_that_is_open(change: Any, cluster: dict[str, str]) -> None:
    content = json.loads(run(change)[0].outputs["kubeconfig"])
    assert content["clusters"][0]["cluster"] == cluster


def test_asleep_a_stack_differs_in_the_floors_of_its_pools_only() -> None:
    def floor(raw: dict[str, Any]) -> None:
        raw["cluster"]["accelerators"]["v6e"]["minNodes"] = 1

    def asleep(raw: dict[str, Any]) -> None:
        floor(raw)
        raw["power"] = "asleep"

    awake_run, asleep_run = ({r.urn: r for r in run(change)[0].registrations} for change in (floor, asleep))
    assert awake_run.keys() == asleep_run.keys()
    changed = [urn for urn, item in awake_run.items() if item.inputs != asleep_run[urn].inputs]
    (urn,) = changed
    before, after = dict(awake_run[urn].inputs), dict(asleep_run[urn].inputs)
    assert before.pop("autoscaling") != after.pop("autoscaling")
    assert before == after
