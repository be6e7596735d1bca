"""The plugin answers as the bridge to Google's provider does: previews, names, differences, refreshes."""

from __future__ import annotations

import pytest

from rehearsal.providers.cloud.provider import autoname
from rehearsal.providers.gcp.provider import KINDS
from rehearsal.providers.server import PartialFailure, Refusal
from rehearsal.providers.values import UNKNOWN, Secret
from tests.support.simulated_google import (
    PROJECT,
    REGION,
    TYPES,
    ZONE,
    Failed,
    Google,
    pool_inputs,
)


@pytest.fixture
def google(tmp_path):
    return Google(tmp_path)


def test_a_preview_has_the_inputs_and_unknowns_and_nothing_that_the_sdk_lacks(google):
    foreseen = google.foresee("network", "net", {"autoCreateSubnetworks": False})
    assert foreseen["autoCreateSubnetworks"] is False and foreseen["project"] == PROJECT
    assert foreseen["selfLink"] is UNKNOWN and foreseen["routingMode"] is UNKNOWN
    assert foreseen.keys() <= KINDS[TYPES["network"]].names.outputs
    assert google.plugin.project.read().empty


def test_a_preview_knows_the_given_part_of_a_block_and_not_googles(google):
    given = {"masterAuth": {"clientCertificateConfig": {"issueClientCertificate": False}}}
    foreseen = google.foresee("cluster", "c", {"network": UNKNOWN, **given})
    assert foreseen["masterAuth"]["clientCertificateConfig"] == {"issueClientCertificate": False}
    assert foreseen["masterAuth"]["clusterCaCertificate"] is UNKNOWN
    assert foreseen["endpoint"] is UNKNOWN


def test_the_outputs_of_a_creation_are_the_sdks(google):
    cluster = google.make_cluster()
    pool = google.make_pool(cluster)
    assert cluster.outputs.keys() <= KINDS[TYPES["cluster"]].names.outputs
    assert pool.outputs.keys() <= KINDS[TYPES["pool"]].names.outputs


def test_a_name_that_is_not_given_is_made_once_and_kept(google):
    first = google.check("network", "My-Net", {})
    assert first["name"].startswith("my-net-") and len(first["name"]) == len("my-net-") + 7
    assert google.check("network", "My-Net", {"description": "x"}, first)["name"] == first["name"]


def test_a_logical_name_that_leaves_no_room_for_random_digits_fails_the_preview(google):
    assert len(autoname("n" * 32, b"s", 40)) == 40
    with pytest.raises(Failed, match="plus 7 random chars is longer than maximum length 30"):
        google.check("account", "a" * 23, {})
    assert len(google.check("account", "a" * 22, {})["accountId"]) == 30


def test_with_a_made_name_the_new_one_comes_first_and_with_a_given_one_the_old_one_goes_first(google):
    made = google.create("network", "net", autoCreateSubnetworks=False)
    assert google.diff(made, autoCreateSubnetworks=True).old_first is False
    given = google.create("network", "other", name="other", autoCreateSubnetworks=False)
    changed = google.diff(given, name="other", autoCreateSubnetworks=True)
    assert changed.replaces == {"autoCreateSubnetworks"} and changed.old_first is True
    assert google.diff(given, name="third", autoCreateSubnetworks=False).old_first is False


def test_inputs_that_the_sdk_does_not_have_are_refused(google):
    with pytest.raises(Failed, match="'autoCreateSubnets' is not expected here"):
        google.check("network", "net", {"autoCreateSubnets": False})


def test_missing_inputs_are_refused_by_name(google):
    with pytest.raises(Failed, match="ipCidrRange"):
        google.check("subnetwork", "s", {"network": "n"})


def test_an_unknown_type_is_refused_by_name(google):
    with pytest.raises(Refusal, match="gcp:pubsub/topic:Topic is not simulated"):
        google.plugin.Check(type("R", (), {"urn": "urn:pulumi:s::p::gcp:pubsub/topic:Topic::t"})(), None)


def test_functions_are_refused_by_name(google):
    with pytest.raises(Refusal, match="getClientConfig"):
        google.plugin.Invoke(type("R", (), {"tok": "gcp:organizations/getClientConfig"})(), None)


@pytest.mark.parametrize(
    "field",
    [
        "spot",
        "flexStart",
        "maxRunDuration",
        "serviceAccount",
        "oauthScopes",
        "metadata",
        "shieldedInstanceConfig",
    ],
)
def test_a_change_of_these_node_settings_replaces_the_pool(google, field):
    pool = google.make_pool(google.make_cluster())
    assert google.diff(pool, **pool_inputs_of(pool, **{field: "x"})).replaces == {f"nodeConfig.{field}"}


@pytest.mark.parametrize("field", ["machineType", "diskType", "imageType", "labels", "tags"])
def test_a_change_of_these_node_settings_is_in_place(google, field):
    pool = google.make_pool(google.make_cluster())
    found = google.diff(pool, **pool_inputs_of(pool, **{field: "x"}))
    assert found.changed == {f"nodeConfig.{field}"} and found.replaces == set()


def pool_inputs_of(pool, **config):
    inputs = {name: value for name, value in pool.inputs.items() if not name.startswith("__")}
    return {**inputs, "nodeConfig": {**inputs["nodeConfig"], **config}}


def test_adding_changing_and_removing_autoscaling_is_in_place(google):
    cluster = google.make_cluster()
    pool = google.make_pool(cluster)
    without = {k: v for k, v in pool_inputs(cluster).items() if k != "autoscaling"}
    for inputs in (pool_inputs(cluster, autoscaling={"minNodeCount": 0, "maxNodeCount": 5}), without):
        found = google.diff(pool, **inputs)
        assert found.changed and not found.replaces


def test_an_initial_count_replaces_the_pool(google):
    cluster = google.make_cluster()
    pool = google.make_pool(cluster)
    assert google.diff(pool, **pool_inputs(cluster, initialNodeCount=1)).replaces == {"initialNodeCount"}


def test_what_google_filled_in_is_no_difference(google):
    cluster = google.make_cluster()
    pool = google.make_pool(cluster)
    assert google.diff(pool, **pool_inputs(cluster)).changed == set()
    given = google.create("address", "a", name="a", address="203.0.113.9", networkTier="STANDARD")
    assert google.diff(given, name="a").changed == set()


def test_sets_have_no_order(google):
    scopes = ["https://www.googleapis.com/auth/cloud-platform", "https://www.googleapis.com/auth/monitoring"]
    cluster = google.make_cluster()
    pool = google.make_pool(cluster, config={"oauthScopes": scopes})
    assert google.diff(pool, **pool_inputs(cluster, config={"oauthScopes": scopes[::-1]})).changed == set()


def test_a_network_is_the_same_by_name_id_and_self_link(google):
    network, subnet = google.make_network()
    inputs = {k: v for k, v in subnet.inputs.items() if not k.startswith("__")}
    for reference in ("net", network.identity, network.outputs["selfLink"]):
        assert google.diff(subnet, **{**inputs, "network": reference}).changed == set()
    assert google.diff(subnet, **{**inputs, "network": "another"}).replaces == {"network"}


def test_ignored_changes_are_none(google):
    cluster = google.make_cluster()
    pool = google.make_pool(cluster)
    inputs = pool_inputs(cluster, config={"labels": {"a": "b"}})
    assert google.diff(pool, ("nodeConfig.labels",), **inputs).changed == set()


def test_a_subnet_grows_in_place_and_is_replaced_to_shrink(google):
    _, subnet = google.make_network()
    inputs = {k: v for k, v in subnet.inputs.items() if not k.startswith("__")}
    assert google.diff(subnet, **{**inputs, "ipCidrRange": "10.0.0.0/19"}).replaces == set()
    assert google.diff(subnet, **{**inputs, "ipCidrRange": "10.0.0.0/21"}).replaces == {"ipCidrRange"}


def test_a_refresh_of_what_is_unchanged_changes_nothing(google):
    cluster = google.make_cluster()
    for made in (cluster, google.make_pool(cluster)):
        again = google.read(made)
        assert (again.outputs, again.inputs) == (made.outputs, made.inputs)


def test_a_refresh_finds_what_is_gone(google):
    network = google.create("network", "net")
    google.delete(network)
    assert google.read(network) is None


def test_labels_of_the_provider_are_on_everything_and_its_own_can_be_left_out(google):
    google.configure(project=PROJECT, region=REGION, defaultLabels='{"team": "ml"}')
    address = google.create("address", "a", labels={"app": "x"})
    assert address.outputs["effectiveLabels"] == {"goog-pulumi-provisioned": "true", "team": "ml", "app": "x"}
    google.configure(project=PROJECT, region=REGION, addPulumiAttributionLabel="false")
    assert google.create("address", "b").outputs["effectiveLabels"] == {}


def test_without_a_project_or_a_region_the_refusal_says_what_to_set(google):
    google.configure(zone=ZONE)
    with pytest.raises(Refusal, match="project: required field is not set"):
        google.create("network", "net")
    google.configure(project=PROJECT)
    with pytest.raises(Refusal, match="Cannot determine region"):
        google.create("address", "a")


def test_a_secret_is_sealed_in_outputs_and_not_kept_by_the_project(google):
    secret = google.create("secret", "s", secretId="token", replication={"auto": {}})
    version = google.create("version", "v", secret=secret.identity, secretData=Secret("hunter2"))
    assert version.outputs["secretData"] == Secret("hunter2")
    assert version.identity.endswith("/versions/1")
    assert "hunter2" not in (google.root / "cloud" / "project.json").read_text()
    assert google.create("version", "w", secret=secret.identity, secretData="2").outputs["version"] == "2"


def test_an_operation_that_takes_longer_than_it_may_leaves_the_resource_for_the_next_run(google):
    google.set(operations={"compute/network": 30})
    with pytest.raises(PartialFailure, match="timeout while waiting for state to become 'DONE'"):
        google.create("network", "net", timeout=0.01, name="net")
    assert google.plugin.project.read().of("compute/network").keys() == {
        f"projects/{PROJECT}/global/networks/net"
    }


def test_an_interrupted_operation_ends_at_once_and_leaves_the_resource(google):
    google.set(operations={"compute/network": 3600})
    google.plugin.Cancel(None, None)
    with pytest.raises(PartialFailure, match="context canceled") as failure:
        google.create("network", "net", name="net")
    assert failure.value.detail.id == f"projects/{PROJECT}/global/networks/net"


def test_a_cluster_is_the_embedded_api_server(google):
    outputs = google.make_cluster(
        controlPlaneEndpointsConfig={"dnsEndpointConfig": {"allowExternalTraffic": True}}
    ).outputs
    assert outputs["endpoint"] == "127.0.0.1:6443"
    dns = outputs["controlPlaneEndpointsConfig"]["dnsEndpointConfig"]
    assert dns == {"allowExternalTraffic": True, "endpoint": "127.0.0.1:6443"}
    assert outputs["masterAuth"]["clusterCaCertificate"] == "Q0E="


def test_a_changed_cluster_setting_is_in_place_and_a_changed_place_is_not(google):
    cluster = google.make_cluster()
    network = google.plugin.project.read().of("compute/network")
    assert network
    inputs = {k: v for k, v in cluster.inputs.items() if not k.startswith("__")}
    assert (
        google.diff(cluster, **{**inputs, "gatewayApiConfig": {"channel": "CHANNEL_STANDARD"}}).replaces
        == set()
    )
    assert google.diff(cluster, **{**inputs, "location": "us-east1-d"}).replaces == {"location"}
    assert google.diff(cluster, **{**inputs, "datapathProvider": "ADVANCED_DATAPATH"}).replaces
