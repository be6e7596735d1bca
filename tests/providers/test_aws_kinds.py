"""The plugin answers as the bridge to Amazon's provider does: previews, names, differences, refreshes."""

from __future__ import annotations

import pytest

from rehearsal.providers.aws.provider import KINDS
from rehearsal.providers.server import PartialFailure, Refusal
from rehearsal.providers.values import UNKNOWN
from tests.support.simulated_aws import REGION, TYPES, Amazon, cluster_inputs
from tests.support.simulated_cloud import Failed, strip


@pytest.fixture
def amazon(tmp_path):
    return Amazon(tmp_path)


def test_a_preview_knows_region_and_tags_and_nothing_that_amazon_decides(amazon):
    amazon.configure(region=REGION, defaultTags='{"tags": {"team": "ml"}}')
    foreseen = amazon.foresee("vpc", "net", {"cidrBlock": "10.0.0.0/16", "tags": {"Name": "x"}})
    assert foreseen["region"] == REGION and foreseen["tagsAll"] == {"team": "ml", "Name": "x"}
    assert foreseen["arn"] is UNKNOWN and foreseen["defaultSecurityGroupId"] is UNKNOWN
    assert foreseen.keys() <= KINDS[TYPES["vpc"]].names.outputs
    assert amazon.plugin.project.read().empty


def test_a_preview_of_a_cluster_knows_no_endpoint_and_no_authority(amazon):
    role = amazon.make_role("r", "eks.amazonaws.com")
    foreseen = amazon.foresee("cluster", "c", {**cluster_inputs(role, []), "roleArn": UNKNOWN})
    assert foreseen["endpoint"] is UNKNOWN and foreseen["certificateAuthority"] is UNKNOWN
    assert foreseen["vpcConfig"]["vpcId"] is UNKNOWN
    assert foreseen["vpcConfig"]["endpointPrivateAccess"] is True


def test_a_cluster_is_the_embedded_api_server_with_the_endpoint_as_a_url(amazon):
    outputs = amazon.make_cluster().outputs
    assert outputs["endpoint"] == "https://127.0.0.1:6443"
    assert outputs["certificateAuthority"] == {"data": "Q0E="}
    assert outputs["arn"] == "arn:aws:eks:us-east-1:000000000000:cluster/c"


def test_ids_are_never_given_twice(amazon):
    first = amazon.create("vpc", "a", cidrBlock="10.0.0.0/16")
    amazon.delete(first)
    again = amazon.create("vpc", "a", cidrBlock="10.0.0.0/16")
    assert first.identity != again.identity and again.identity.startswith("vpc-0")
    assert len(again.identity) == len("vpc-") + 17


@pytest.mark.parametrize("kind", ["role", "template", "logs"])
def test_a_made_name_keeps_the_case_of_the_logical_one(amazon, kind):
    given = {"role": {"assumeRolePolicy": "{}"}}.get(kind, {})
    name = amazon.check(kind, "My-Part", given)["name"]
    assert name.startswith("My-Part-") and len(name) == len("My-Part-") + 7


def test_a_node_groups_made_name_is_limited_by_eks_and_not_by_the_bridge(amazon):
    amazon.make_cluster()
    inputs = {k: v for k, v in amazon.node_inputs().items() if k != "nodeGroupName"}
    assert len(amazon.check("nodes", "n" * 55, inputs)["nodeGroupName"]) == 63
    with pytest.raises(Failed, match=r"node_group_name to be in the range \(0 - 63\)"):
        amazon.check("nodes", "n" * 56, inputs)


def test_a_given_name_lets_the_old_group_go_first_and_a_made_one_the_new_come(amazon):
    amazon.make_cluster()
    given = amazon.make_nodes()
    changed = amazon.diff(given, **{**amazon.node_inputs(), "capacityType": "SPOT"})
    assert changed.replaces == {"capacityType"} and changed.old_first is True
    inputs = {k: v for k, v in amazon.node_inputs("other").items() if k != "nodeGroupName"}
    made = amazon.create("nodes", "other", **inputs)
    assert amazon.diff(made, **{**inputs, "capacityType": "SPOT"}).old_first is False


@pytest.mark.parametrize(
    "field", ["amiType", "capacityType", "diskSize", "instanceTypes", "nodeRoleArn", "subnetIds"]
)
def test_a_change_of_these_settings_replaces_a_node_group(amazon, field):
    amazon.make_cluster()
    group = amazon.make_nodes()
    value = 50 if field == "diskSize" else ["x"] if field.endswith("s") else "x"
    if field in ("amiType", "capacityType"):
        value = {"amiType": "CUSTOM", "capacityType": "SPOT"}[field]
    assert amazon.diff(group, **{**amazon.node_inputs(), field: value}).replaces == {field}


@pytest.mark.parametrize(
    ("field", "value", "path"),
    [
        ("labels", {"a": "b"}, "labels.a"),
        ("scalingConfig", {"minSize": 0, "desiredSize": 1, "maxSize": 5}, "scalingConfig.maxSize"),
        ("version", "1.35", "version"),
    ],
)
def test_a_change_of_these_settings_is_in_place(amazon, field, value, path):
    amazon.make_cluster()
    found = amazon.diff(amazon.make_nodes(), **{**amazon.node_inputs(), field: value})
    assert path in found.changed and found.replaces == set()


@pytest.mark.parametrize(
    "change",
    [
        {"bootstrapSelfManagedAddons": True},
        {"accessConfig": {"authenticationMode": "API", "bootstrapClusterCreatorAdminPermissions": False}},
        {"kubernetesNetworkConfig": {"serviceIpv4Cidr": "172.30.0.0/16"}},
    ],
)
def test_these_settings_of_a_cluster_are_for_ever(amazon, change):
    cluster = amazon.make_cluster()
    assert amazon.diff(cluster, **{**strip(cluster.inputs), **change}).replaces


def test_encryption_can_be_added_and_never_taken_away(amazon):
    key = amazon.create("key", "k")
    encryption = {"provider": {"keyArn": key.outputs["arn"]}, "resources": ["secrets"]}
    cluster = amazon.make_cluster()
    with_key = {**strip(cluster.inputs), "encryptionConfig": encryption}
    assert amazon.diff(cluster, **with_key).replaces == set()
    encrypted = amazon.update(cluster, **with_key)
    assert amazon.diff(encrypted, **strip(cluster.inputs)).replaces == {"encryptionConfig"}


def test_what_amazon_filled_in_is_no_difference_nor_the_order_of_a_set(amazon):
    cluster = amazon.make_cluster()
    inputs = strip(cluster.inputs)
    turned = {**inputs["vpcConfig"], "subnetIds": inputs["vpcConfig"]["subnetIds"][::-1]}
    assert amazon.diff(cluster, **{**inputs, "vpcConfig": turned}).changed == set()
    assert amazon.diff(amazon.make_nodes(), **amazon.node_inputs()).changed == set()


def test_a_policy_is_the_same_however_it_is_written(amazon):
    role = amazon.create("role", "r", name="r", assumeRolePolicy='{"Version": "2012-10-17", "Statement": []}')
    same = {"name": "r", "assumeRolePolicy": '{"Statement":[],"Version":"2012-10-17"}'}
    assert amazon.diff(role, **same).changed == set()
    assert amazon.diff(role, **{**same, "assumeRolePolicy": "{}"}).changed == {"assumeRolePolicy"}


def test_tags_of_the_provider_that_changed_show_on_every_resource(amazon):
    vpc = amazon.create("vpc", "net", cidrBlock="10.0.0.0/16")
    amazon.configure(region=REGION, defaultTags='{"tags": {"team": "ml"}}')
    assert amazon.diff(vpc, cidrBlock="10.0.0.0/16").changed == {"tagsAll"}
    updated = amazon.update(vpc, cidrBlock="10.0.0.0/16")
    assert updated.outputs["tagsAll"] == {"team": "ml"}
    assert amazon.diff(updated, cidrBlock="10.0.0.0/16").changed == set()


def test_a_changed_launch_template_has_a_new_version_and_new_tags_make_none(amazon):
    template = amazon.create("template", "t", name="t", updateDefaultVersion=True)
    assert template.outputs["latestVersion"] == 1
    tagged = amazon.update(template, name="t", updateDefaultVersion=True, tags={"a": "b"})
    assert tagged.outputs["latestVersion"] == 1
    changed = amazon.update(tagged, name="t", updateDefaultVersion=True, userData="eA==")
    assert changed.outputs["latestVersion"] == changed.outputs["defaultVersion"] == 2


def test_an_ignored_size_is_neither_a_difference_nor_sent(amazon):
    """The path that Python programs have to give in camelCase."""
    amazon.make_cluster()
    group = amazon.make_nodes()
    wanted = {
        **amazon.node_inputs(),
        "scalingConfig": {"minSize": 0, "desiredSize": 2, "maxSize": 2},
    }
    assert amazon.diff(group, ("scalingConfig.desiredSize",), **wanted).changed == set()
    assert amazon.diff(group, ("scaling_config.desired_size",), **wanted).changed == {
        "scalingConfig.desiredSize"
    }


def test_a_refresh_of_what_is_unchanged_changes_nothing(amazon):
    cluster = amazon.make_cluster()
    for made in (cluster, amazon.make_nodes()):
        again = amazon.read(made)
        assert (again.outputs, again.inputs) == (made.outputs, made.inputs)


def test_a_refresh_finds_what_is_gone(amazon):
    vpc = amazon.create("vpc", "net", cidrBlock="10.0.0.0/16")
    amazon.delete(vpc)
    assert amazon.read(vpc) is None


def test_credentials_of_another_account_than_the_allowed_ones_stop_the_run(amazon):
    amazon.configure(region=REGION, allowedAccountIds='["123456789012"]')
    assert ":123456789012:" in amazon.create("vpc", "a", cidrBlock="10.0.0.0/16").outputs["arn"]
    amazon.set(aws={"account": "210987654321"})
    with pytest.raises(Refusal, match="AWS account ID not allowed: 210987654321"):
        amazon.configure(region=REGION, allowedAccountIds='["123456789012"]')


def test_without_a_region_the_refusal_says_what_to_set(amazon):
    amazon.configure(allowedAccountIds="[]")
    with pytest.raises(Refusal, match="Missing region configuration"):
        amazon.create("vpc", "a", cidrBlock="10.0.0.0/16")


def test_types_and_functions_that_are_not_simulated_are_refused_by_name(amazon):
    with pytest.raises(Refusal, match="aws:sqs/queue:Queue is not simulated"):
        amazon.plugin.Check(type("R", (), {"urn": "urn:pulumi:s::p::aws:sqs/queue:Queue::q"})(), None)
    with pytest.raises(Refusal, match="getAvailabilityZones"):
        amazon.plugin.Invoke(type("R", (), {"tok": "aws:index/getAvailabilityZones"})(), None)


def test_an_operation_that_takes_longer_than_it_may_leaves_the_resource_for_the_next_run(amazon):
    amazon.set(operations={"eks/cluster": 30})
    role = amazon.make_role("control-plane", "eks.amazonaws.com", "AmazonEKSClusterPolicy")
    _, subnets = amazon.make_network()
    with pytest.raises(PartialFailure, match=r"waiting for EKS Cluster \(c\) create: timeout while waiting"):
        amazon.create("cluster", "c", timeout=0.01, **cluster_inputs(role, subnets))
    assert amazon.plugin.project.read().of("eks/cluster").keys() == {"c"}


def test_the_simulated_account_keeps_no_more_than_a_bucket_needs(amazon):
    bucket = amazon.create("bucket", "My-Weights")
    assert bucket.identity.startswith("my-weights-")
    assert bucket.outputs["arn"] == f"arn:aws:s3:::{bucket.identity}"
