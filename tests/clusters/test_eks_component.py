"""The whole EKS cluster as it is registered: parents, providers, order, locks, secrets and the SDK's own types."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.clusters.eks import ADMIN, VIEWER, everything, run
from tests.support import sdk
from tests.support.recorder import AUTHORITY, CLUSTER_NAME, Recording, Registration

CLUSTER, GROUP, ADDON = "aws:eks/cluster:Cluster", "aws:eks/nodeGroup:NodeGroup", "aws:eks/addon:Addon"
VPC, ROLE = "aws:ec2/vpc:Vpc", "aws:iam/role:Role"
SUBNET, NAT, ROUTE = "aws:ec2/subnet:Subnet", "aws:ec2/natGateway:NatGateway", "aws:ec2/route:Route"
TEMPLATE = "aws:ec2/launchTemplate:LaunchTemplate"
AMAZON, KUBERNETES = "pulumi:providers:aws", "pulumi:providers:kubernetes"
SYSTEM = "cluster-system"
GPU_GROUPS = {
    "cluster-l4-on-demand",
    "cluster-l4x4-on-demand",
    "cluster-cheap-spot",
    "cluster-held-reservation",
}


@pytest.fixture(scope="module")
def whole() -> Recording:
    return run(everything)[0]


@pytest.fixture(scope="module")
def plain() -> Recording:
    return run()[0]


def one(recording: Recording, token: str, name: str | None = None) -> Registration:
    """The one resource of a type, by name where there are several."""
    (found,) = (r for r in recording.of_type(token) if name in (None, r.name))
    return found


def amazons(recording: Recording) -> list[Registration]:
    return [r for r in recording.registrations if r.type.startswith("aws:")]


def test_every_resource_is_a_child_on_the_explicit_provider(whole: Recording) -> None:
    (component,) = whole.of_type("llmp:index:EksGpuCluster")
    provider = one(whole, AMAZON)
    assert len(amazons(whole)) > 80
    for item in amazons(whole):
        assert item.parent == component.urn, item.name
        assert item.provider.startswith(f"{provider.urn}::"), item.name
        # A resource with a region of its own is replaced when the provider's changes.
        assert "region" not in item.inputs, item.name
    assert component.urn in whole.completed


@pytest.mark.parametrize("stack", ["whole", "plain"])
def test_every_argument_exists_in_the_sdk_with_its_type(stack: str, request: pytest.FixtureRequest) -> None:
    recording = request.getfixturevalue(stack)
    checked = [r for r in recording.registrations if sdk.of_sdk(r, "aws")]
    assert [fault for item in checked for fault in sdk.faults(item)] == []


def test_credentials_of_another_account_stop_the_run(whole: Recording, plain: Recording) -> None:
    assert json.loads(one(whole, AMAZON).inputs["allowedAccountIds"]) == ["123456789012"]
    assert "allowedAccountIds" not in one(plain, AMAZON).inputs


def test_the_lock_against_deletion_is_amazon_s_and_pulumi_s_at_once(
    whole: Recording, plain: Recording
) -> None:
    for recording, locked in ((whole, True), (plain, False)):
        cluster = one(recording, CLUSTER)
        assert (cluster.inputs["deletionProtection"], cluster.protect) == (locked, locked)
        protected = {r.name for r in recording.registrations if r.protect}
        # A node group that goes under its models takes all their replicas at once; one without models may go.
        used = {"cluster-l4-on-demand", "cluster-l4x4-on-demand"}
        assert protected == ({cluster.name, *used} if locked else set())


@pytest.mark.parametrize("change", [{"power": "asleep"}, {"replicas": 0}])
def test_a_group_stays_locked_while_its_models_are_away(change: dict[str, Any]) -> None:
    def away(raw: dict[str, Any]) -> None:
        raw["cluster"]["deletionProtection"] = True
        target = raw if "power" in change else raw["models"]["mistral-24b"]
        target.update(change)

    recording, _ = run(away)
    assert one(recording, GROUP, "cluster-l4x4-on-demand").protect


def test_a_group_whose_models_have_moved_to_another_pool_is_not_locked() -> None:
    def move(raw: dict[str, Any]) -> None:
        raw["cluster"]["deletionProtection"] = True
        raw["cluster"]["accelerators"]["wider"] = {"instanceType": "g6.24xlarge", "maxNodes": 1}
        raw["models"]["mistral-24b"]["accelerator"] = "wider"

    recording, _ = run(move)
    groups = {r.name: r.protect for r in recording.of_type(GROUP) if r.name != SYSTEM}
    assert groups == {
        "cluster-l4-on-demand": True,
        "cluster-l4x4-on-demand": False,
        "cluster-wider-on-demand": True,
    }


def test_a_kept_group_stands_beside_the_models_new_one_and_is_not_locked() -> None:
    def move(raw: dict[str, Any]) -> None:
        raw["cluster"]["deletionProtection"] = True
        raw["cluster"]["accelerators"]["l4"] |= {"capacity": "spot", "keep": ["on-demand"]}

    recording, handle = run(move)
    groups = {r.name: r for r in recording.of_type(GROUP) if r.name.startswith("cluster-l4-")}
    assert {name: group.protect for name, group in groups.items()} == {
        "cluster-l4-spot": True,
        "cluster-l4-on-demand": False,
    }
    marks = {name: group.inputs["labels"]["llmp.dev/pool"] for name, group in groups.items()}
    assert marks == {"cluster-l4-spot": "l4-spot", "cluster-l4-on-demand": "l4-on-demand"}
    assert handle.accelerators["l4"].node_selector["llmp.dev/pool"] == "l4-spot"
    assert {group.inputs["capacityType"] for group in groups.values()} == {"SPOT", "ON_DEMAND"}


def test_what_is_ignored_exists_in_the_installed_sdk_and_is_the_autoscalers_size_alone(
    whole: Recording,
) -> None:
    """A path in Python's spelling would ignore nothing; ignored where a floor is, it would stop the sleep."""
    ignoring = {item.name: item.ignored for item in amazons(whole) if item.ignored}
    path = "scalingConfig.desiredSize"
    assert ignoring == dict.fromkeys(GPU_GROUPS - {"cluster-l4x4-on-demand"}, (path,))

    def sleep(raw: dict[str, Any]) -> None:
        everything(raw)
        raw["power"] = "asleep"

    asleep = {item.name: item.ignored for item in amazons(run(sleep)[0]) if item.ignored}
    assert asleep == dict.fromkeys(GPU_GROUPS, (path,))
    assert sdk.has_path(sdk.arguments_of(GROUP), path)


def test_ckv_aws_38_39_the_api_server_is_closed_or_open_to_named_networks(whole: Recording) -> None:
    private = run(lambda raw: raw["cluster"].update(endpoint={}))[0]
    closed = one(private, CLUSTER).inputs["vpcConfig"]
    assert closed["endpointPrivateAccess"] and not closed["endpointPublicAccess"]
    named = one(whole, CLUSTER).inputs["vpcConfig"]
    # Without the private way in, nodes would come from addresses that are not allowed.
    assert named["endpointPrivateAccess"] and named["publicAccessCidrs"] == ["198.51.100.0/24"]


def test_ckv_aws_37_58_all_logs_and_encrypted_secrets(plain: Recording) -> None:
    inputs = one(plain, CLUSTER).inputs
    assert set(inputs["enabledClusterLogTypes"]) == {
        "api", "audit", "authenticator", "controllerManager", "scheduler",
    }  # fmt: skip
    assert inputs["encryptionConfig"]["resources"] == ["secrets"]
    assert one(plain, "aws:kms/key:Key").inputs["enableKeyRotation"] is True


def test_access_is_by_entries_and_extended_support_is_not_paid_for(plain: Recording) -> None:
    inputs = one(plain, CLUSTER).inputs
    assert inputs["accessConfig"]["authenticationMode"] == "API"
    assert inputs["upgradePolicy"] == {"supportType": "STANDARD"}
    assert inputs["bootstrapSelfManagedAddons"] is False


def test_the_log_group_is_ours_before_eks_makes_one_that_stays(plain: Recording) -> None:
    logs = one(plain, "aws:cloudwatch/logGroup:LogGroup")
    assert logs.inputs["name"] == f"/aws/eks/{CLUSTER_NAME}/cluster"
    assert logs.inputs["retentionInDays"] > 0
    assert logs.urn in plain.before(one(plain, CLUSTER))


def test_roles_keep_their_policies_until_the_cluster_is_gone(plain: Recording) -> None:
    before = plain.before(one(plain, CLUSTER))
    attached = plain.of_type("aws:iam/rolePolicyAttachment:RolePolicyAttachment")
    (policy,) = (a for a in attached if a.inputs["policyArn"].endswith("/AmazonEKSClusterPolicy"))
    assert policy.urn in before


def test_the_network_exists_before_nodes_and_names_on_nodes(plain: Recording) -> None:
    """Add-ons in the order that works: without a network nodes never get Ready, and coredns needs one that is."""
    for group in plain.of_type(GROUP):
        before = plain.before(group)
        for name in ("vpc-cni", "kube-proxy", "eks-pod-identity-agent"):
            assert one(plain, ADDON, f"cluster-{name}").urn in before, (group.name, name)
    system = one(plain, GROUP, "cluster-system")
    for name in ("coredns", "aws-ebs-csi-driver", "metrics-server"):
        assert system.urn in plain.before(one(plain, ADDON, f"cluster-{name}"))


def test_network_policies_are_enforced(plain: Recording) -> None:
    settings = json.loads(one(plain, ADDON, "cluster-vpc-cni").inputs["configurationValues"])
    assert settings == {"enableNetworkPolicy": "true"}


def test_claims_that_name_no_class_get_one(plain: Recording) -> None:
    """EKS's own class belongs to a driver that is gone, and is no default."""
    settings = json.loads(one(plain, ADDON, "cluster-aws-ebs-csi-driver").inputs["configurationValues"])
    assert settings == {"defaultStorageClass": {"enabled": True}}


def test_nodes_have_a_way_out_before_they_start(plain: Recording) -> None:
    ways = {r.urn for r in plain.of_type(ROUTE)}
    for group in plain.of_type(GROUP):
        assert ways <= plain.before(group)


def test_the_kubernetes_provider_waits_for_what_the_api_needs_and_for_no_gpu(plain: Recording) -> None:
    before = plain.before(one(plain, KUBERNETES))
    names = {r.name for r in plain.registrations if r.urn in before}
    assert {"cluster-system", "cluster-coredns", "cluster-vpc-cni"} <= names
    assert not names & GPU_GROUPS


def test_a_machine_s_settings_are_named_by_number_and_change_in_place(plain: Recording) -> None:
    """`$Latest` differs from what AWS answers, in every preview; a group of its own would not see a new version."""
    for group in plain.of_type(GROUP):
        assert group.inputs["launchTemplate"]["version"] == "1", group.name
    assert all(r.inputs["updateDefaultVersion"] for r in plain.of_type(TEMPLATE))


def test_slow_resources_have_the_time_that_amazon_takes(whole: Recording) -> None:
    slow = {"create": "45m", "update": "90m", "delete": "45m"}
    lingering = {"delete": "20m"}
    times = {
        CLUSTER: slow,
        GROUP: slow,
        ADDON: {"create": "20m", "update": "20m"},
        SUBNET: lingering,
        VPC: lingering,
        "aws:ec2/internetGateway:InternetGateway": lingering,
        "aws:ec2/securityGroup:SecurityGroup": lingering,
    }
    for item in amazons(whole):
        assert item.timeouts == times.get(item.type, {}), item.name


def test_models_wait_for_their_groups_and_the_tags_that_scale_them() -> None:
    _, handle = run()
    ready = {r.pulumi_resource_name for r in handle.ready}
    assert "cluster-l4-on-demand" in ready
    assert any(r.startswith("cluster-l4-on-demand-label/") for r in ready)


def test_the_cluster_alone_decides_whether_the_provider_is_replaced(plain: Recording) -> None:
    assert one(plain, KUBERNETES).inputs["clusterIdentifier"].endswith(f"cluster/{CLUSTER_NAME}")


def test_the_kubeconfig_is_secret_and_holds_no_token(plain: Recording) -> None:
    assert one(plain, KUBERNETES).inputs["kubeconfig"] == sdk.HIDDEN
    content = json.loads(plain.outputs["kubeconfig"])
    user = content["users"][0]["user"]
    assert set(user) == {"exec"} and user["exec"]["command"] == "aws"
    assert content["clusters"][0]["cluster"]["certificate-authority-data"] == AUTHORITY


def test_the_kubeconfig_acts_as_whoever_the_provider_is(whole: Recording) -> None:
    """Another role in one of them would be locked out of what the other has made."""
    provider = one(whole, AMAZON).inputs
    assert not provider.keys() & {"profile", "assumeRoles", "assumeRoleWithWebIdentity", "accessKey", "token"}
    plugin = json.loads(whole.outputs["kubeconfig"])["users"][0]["user"]["exec"]
    assert "env" not in plugin and not {"--role-arn", "--profile"} & set(plugin["args"])
    access = one(whole, CLUSTER).inputs["accessConfig"]
    assert access["bootstrapClusterCreatorAdminPermissions"] is True


def test_others_are_let_in_before_anything_is_installed(whole: Recording) -> None:
    before = whole.before(one(whole, KUBERNETES))
    entries = [r for r in amazons(whole) if r.type.startswith("aws:eks/access")]
    assert len(entries) == 4 and {r.urn for r in entries} <= before


def test_others_get_in_as_they_are_named(whole: Recording) -> None:
    policies = {
        r.inputs["principalArn"]: r.inputs["policyArn"].rsplit("/", 1)[-1]
        for r in whole.of_type("aws:eks/accessPolicyAssociation:AccessPolicyAssociation")
    }
    assert policies == {ADMIN: "AmazonEKSClusterAdminPolicy", VIEWER: "AmazonEKSViewPolicy"}


def test_controllers_of_load_balancers_find_subnets_by_their_tags(plain: Recording) -> None:
    tags = {r.name: r.inputs["tags"] for r in plain.of_type(SUBNET)}
    for name, mine in tags.items():
        wanted = "elb" if "-public-" in name else "internal-elb"
        assert mine[f"kubernetes.io/role/{wanted}"] == "1", name
    assert not any(r.inputs["mapPublicIpOnLaunch"] for r in plain.of_type(SUBNET))


def test_names_resolve_in_the_network_as_private_endpoints_need_it(plain: Recording) -> None:
    vpc = one(plain, VPC).inputs
    assert vpc["enableDnsHostnames"] is True and vpc["enableDnsSupport"] is True
    assert {r.inputs["domain"] for r in plain.of_type("aws:ec2/eip:Eip")} == {"vpc"}


def test_eks_is_given_two_zones_and_each_gpu_group_one(whole: Recording) -> None:
    zones = {r.name.split("-", 2)[2] for r in whole.of_type(SUBNET)}
    assert len(zones) == 3
    assert len(one(whole, CLUSTER).inputs["vpcConfig"]["subnetIds"]) == 6
    for group in whole.of_type(GROUP):
        assert len(group.inputs["subnetIds"]) == (3 if group.name == SYSTEM else 1), group.name


@pytest.mark.parametrize(("stack", "gateways"), [("plain", 1), ("whole", 3)])
def test_nat_is_one_or_one_per_zone(stack: str, gateways: int, request: pytest.FixtureRequest) -> None:
    recording = request.getfixturevalue(stack)
    assert len(recording.of_type(NAT)) == gateways


def test_weights_and_images_do_not_pass_the_nat_that_bills_by_the_gigabyte(plain: Recording) -> None:
    kinds = {
        r.inputs["serviceName"].split(".", 3)[3]: r.inputs["vpcEndpointType"]
        for r in plain.of_type("aws:ec2/vpcEndpoint:VpcEndpoint")
    }
    assert kinds == {"s3": "Gateway", "ecr.api": "Interface", "ecr.dkr": "Interface"}


@pytest.mark.parametrize("group", sorted(GPU_GROUPS | {"cluster-system"}))
def test_ckv_aws_79_341_no_pod_reaches_the_machine_s_credentials(whole: Recording, group: str) -> None:
    options = one(whole, TEMPLATE, group).inputs["metadataOptions"]
    assert (options["httpTokens"], options["httpPutResponseHopLimit"]) == ("required", 1)


def test_only_the_readers_of_the_bucket_get_its_role(plain: Recording) -> None:
    readers = [
        (r.inputs["namespace"], r.inputs["serviceAccount"])
        for r in plain.of_type("aws:eks/podIdentityAssociation:PodIdentityAssociation")
        if r.inputs["serviceAccount"] != "cluster-autoscaler"
    ]
    assert readers == [("llm-models", "mistral-24b-quantized")]
    policy = json.loads(one(plain, "aws:iam/rolePolicy:RolePolicy", "cluster-models-bucket").inputs["policy"])
    resources: list[Any] = [statement["Resource"] for statement in policy["Statement"]]
    assert resources == ["arn:aws:s3:::llm-models", "arn:aws:s3:::llm-models/*"]


def test_pods_take_roles_with_the_tags_of_their_session(plain: Recording) -> None:
    """Pod Identity without TagSession is refused when the first pod asks, not before."""
    associated = {
        role["roleArn"]
        for addon in plain.of_type(ADDON)
        for role in addon.inputs.get("podIdentityAssociations", ())
    }
    assert associated
    for name in ("vpc-cni", "aws-ebs-csi-driver", "cluster-autoscaler", "models"):
        policy = json.loads(one(plain, ROLE, f"cluster-{name}").inputs["assumeRolePolicy"])
        (statement,) = policy["Statement"]
        assert statement["Principal"] == {"Service": "pods.eks.amazonaws.com"}, name
        assert set(statement["Action"]) == {"sts:AssumeRole", "sts:TagSession"}, name


def test_nodes_can_join_and_pull_and_nothing_more(plain: Recording) -> None:
    attached = plain.of_type("aws:iam/rolePolicyAttachment:RolePolicyAttachment")
    mine = {a.inputs["policyArn"].rsplit("/", 1)[-1] for a in attached if a.name.startswith("cluster-nodes-")}
    assert mine == {"AmazonEKSWorkerNodePolicy", "AmazonEC2ContainerRegistryPullOnly"}


def test_the_autoscaler_may_ask_for_what_an_empty_group_is_and_why_a_machine_did_not_come(
    plain: Recording,
) -> None:
    name = "cluster-cluster-autoscaler-groups"
    policy = json.loads(one(plain, "aws:iam/rolePolicy:RolePolicy", name).inputs["policy"])
    looks = {action for s in policy["Statement"] if "Condition" not in s for action in s["Action"]}
    assert {"eks:DescribeNodegroup", "autoscaling:DescribeScalingActivities"} <= looks


def test_the_autoscaler_changes_groups_of_its_own_cluster_only(plain: Recording) -> None:
    name = "cluster-cluster-autoscaler-groups"
    policy = json.loads(one(plain, "aws:iam/rolePolicy:RolePolicy", name).inputs["policy"])
    changes = next(s for s in policy["Statement"] if "autoscaling:SetDesiredCapacity" in s["Action"])
    tag = f"aws:ResourceTag/k8s.io/cluster-autoscaler/{CLUSTER_NAME}"
    assert changes["Condition"] == {"StringEquals": {tag: "owned"}}
