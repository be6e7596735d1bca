"""What Amazon refuses, each refusal where Amazon makes it: in the check, at creation, or before deletion."""

from __future__ import annotations

import pytest

from rehearsal.providers.server import PartialFailure, Refusal
from tests.support.simulated_aws import GPU_TAINT, Amazon, cluster_inputs, system_inputs, trust
from tests.support.simulated_cloud import Failed, strip


@pytest.fixture
def amazon(tmp_path):
    return Amazon(tmp_path)


@pytest.fixture
def cluster(amazon):
    return amazon.make_cluster()


def nodes(amazon, **more):
    """The node group is refused, and nothing is left of it."""
    inputs = {**amazon.node_inputs(), **more}
    try:
        amazon.create("nodes", "l4", **inputs)
    finally:
        assert amazon.plugin.project.read().of("eks/nodeGroup") == {}
        assert amazon.kube.nodes() == []


def sizes(least, size, most):
    return {"scalingConfig": {"minSize": least, "desiredSize": size, "maxSize": most}}


# -- node groups -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scaling", "text"),
    [
        (sizes(0, 0, 0), r"expected scaling_config.0.max_size to be at least \(1\), got 0"),
        (sizes(-1, 0, 1), r"expected scaling_config.0.min_size to be at least \(0\), got -1"),
    ],
)
def test_a_ceiling_of_zero_fails_the_preview(amazon, cluster, scaling, text):
    with pytest.raises(Failed, match=text):
        nodes(amazon, **scaling)


@pytest.mark.parametrize(
    ("scaling", "text"),
    [
        (sizes(0, 3, 2), "desiredSize can't be greater than maxSize"),
        (sizes(2, 1, 3), "minSize can't be greater than desiredSize"),
    ],
)
def test_a_size_outside_of_its_bounds_is_refused_at_creation(amazon, cluster, scaling, text):
    with pytest.raises(Refusal, match=f"creating EKS Node Group.*InvalidParameterException: {text}"):
        nodes(amazon, **scaling)


def test_a_floor_above_an_ignored_size_is_refused_by_an_update(amazon, cluster):
    """Why a pool with a floor cannot be left to the autoscaler."""
    group = amazon.make_nodes()
    with pytest.raises(Refusal, match="Minimum capacity 2 can't be greater than desired size 1"):
        amazon.update(group, **{**amazon.node_inputs(), **sizes(2, 1, 3)})


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (
            {"instanceTypes": ["m6i.large"]},
            r"\[m6i.large\] is not a valid instance type for requested amiType AL2023_x86_64_NVIDIA",
        ),
        ({"instanceTypes": ["g99.huge"]}, r"supplied instance types do not exist: \[g99.huge\]"),
        ({"diskSize": 100}, "Disk size must be specified within the launch template"),
        ({"remoteAccess": {"ec2SshKey": "k"}}, "Remote access configuration cannot be specified"),
        ({"nodeRoleArn": "arn:aws:iam::1:role/none"}, "The role with name none could not be assumed"),
        ({"clusterName": "other"}, "ResourceNotFoundException: No cluster found for name: other"),
        (
            {"subnetIds": ["subnet-1"]},
            "InvalidSubnetID.NotFound: The subnet ID 'subnet-1' does not exist",
        ),
    ],
)
def test_a_group_that_could_not_work_is_refused(amazon, cluster, change, text):
    with pytest.raises(Refusal, match=text):
        nodes(amazon, **change)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ({"iamInstanceProfile": {"name": "p"}}, "should not specify an instance profile"),
        ({"imageId": "ami-1"}, "You cannot specify an AMI Type other than CUSTOM"),
    ],
)
def test_a_launch_template_with_what_eks_adds_itself_is_refused(amazon, cluster, content, text):
    with pytest.raises(Refusal, match=text):
        amazon.make_nodes(template=content)


def test_a_taint_in_kubernetes_spelling_fails_the_preview(amazon, cluster):
    with pytest.raises(Failed, match="expected taint.0.effect to be one of .*got NoSchedule"):
        nodes(amazon, taints=[{**GPU_TAINT, "effect": "NoSchedule"}])


def test_a_node_role_without_its_policies_or_for_another_service_is_refused(amazon, cluster):
    amazon.make_role("bare", "ec2.amazonaws.com")
    amazon.make_role("wrong", "lambda.amazonaws.com")
    role = "arn:aws:iam::000000000000:role/"
    with pytest.raises(Refusal, match="doesn't have the Amazon EKS Managed Policies associated with it"):
        nodes(amazon, nodeRoleArn=f"{role}bare")
    with pytest.raises(Refusal, match=r"principals \[ec2.amazonaws.com\] were not found"):
        nodes(amazon, nodeRoleArn=f"{role}wrong")


# -- capacity ----------------------------------------------------------------------------------------


def stuck(amazon, text, **more):
    """The group exists, failed, and has no node."""
    with pytest.raises(PartialFailure, match=text) as failure:
        amazon.make_nodes(**more)
    assert "unexpected state 'CREATE_FAILED', wanted target 'ACTIVE'" in str(failure.value)
    assert failure.value.detail.id == "c:l4"
    assert amazon.kube.nodes() == []


def test_without_stock_the_group_fails_as_its_launch_does(amazon, cluster):
    amazon.set(stockOuts=[{"machine": "g6.4xlarge", "zone": "us-east-1a", "capacity": "on-demand"}])
    stuck(
        amazon,
        "AsgInstanceLaunchFailures: Could not launch On-Demand Instances. InsufficientInstanceCapacity - We "
        r"currently do not have sufficient g6.4xlarge capacity in the Availability Zone you requested \(us-east-1a\)",
    )


def test_spot_machines_are_another_stock_and_another_quota(amazon, cluster):
    amazon.set(
        stockOuts=[{"machine": "g6.*", "capacity": "on-demand"}],
        quotas=[{"metric": "L-DB2E81BA", "region": "us-east-1", "limit": 0}],
    )
    amazon.make_nodes(capacityType="SPOT")
    assert len(amazon.kube.nodes("l4")) == 1


def test_the_quota_counts_vcpus_of_all_machines_with_gpus(amazon, cluster):
    amazon.set(quotas=[{"metric": "L-DB2E81BA", "region": "us-east-1", "limit": 16}])
    amazon.make_system()
    amazon.make_nodes("first")
    with pytest.raises(PartialFailure, match="VcpuLimitExceeded - .*your current vCPU limit of 16 allows"):
        amazon.make_nodes()
    assert len(amazon.kube.nodes("first")) == 1 and amazon.kube.nodes("l4") == []


def test_a_type_that_the_zone_does_not_have_is_not_supported_there(amazon, cluster):
    amazon.set(offers=[{"machine": "g6.*", "zone": "us-east-1a", "offered": False}])
    stuck(amazon, r"instance type \(g6.4xlarge\) is not supported in your requested Availability Zone")


def test_a_failed_group_gets_its_nodes_when_there_is_stock_again(amazon, cluster):
    amazon.set(stockOuts=[{"machine": "g6.4xlarge"}])
    with pytest.raises(PartialFailure) as failure:
        amazon.make_nodes()
    amazon.set(stockOuts=[])
    made = amazon.adopt("nodes", "l4", failure.value, amazon.node_inputs())
    amazon.update(made, **amazon.node_inputs())
    assert len(amazon.kube.nodes("l4")) == 1


def test_without_a_way_out_nodes_never_join(amazon):
    vpc = amazon.create("vpc", "net", cidrBlock="10.0.0.0/16")
    subnets = [
        amazon.create(
            "subnet",
            z,
            vpcId=vpc.identity,
            availabilityZone=f"us-east-1{z}",
            cidrBlock=f"10.0.{i * 32}.0/19",
        )
        for i, z in enumerate("ab")
    ]
    amazon.make_cluster(subnets)
    with pytest.raises(PartialFailure, match="NodeCreationFailure: Instances failed to join"):
        amazon.make_nodes()


def test_without_a_network_nodes_are_unhealthy_until_it_comes(amazon):
    amazon.make_cluster(network=False)
    with pytest.raises(PartialFailure, match="NodeCreationFailure: Unhealthy nodes"):
        amazon.make_nodes()
    (node,) = amazon.kube.nodes("l4")
    ready = node["status"]["conditions"][0]
    assert (ready["status"], ready["reason"]) == ("False", "KubeletNotReady")
    assert "cni plugin not initialized" in ready["message"]
    amazon.create("addon", "vpc-cni", clusterName="c", addonName="vpc-cni")
    assert amazon.kube.nodes("l4")[0]["status"]["conditions"][0]["status"] == "True"


# -- clusters ----------------------------------------------------------------------------------------


def test_a_cluster_in_one_zone_is_refused(amazon):
    with pytest.raises(Refusal, match="Subnets specified must be in at least two different AZs"):
        amazon.make_cluster(amazon.make_network(zones=("us-east-1a",))[1])


def test_a_version_that_eks_does_not_offer_is_refused_and_an_upgrade_takes_one_step(amazon):
    amazon.set(aws={"versions": ["1.33", "1.34", "1.35"]})
    with pytest.raises(Refusal, match="InvalidParameterException: unsupported Kubernetes version"):
        amazon.make_cluster(version="1.27")
    amazon.delete_all("iam/role", "iam/rolePolicyAttachment")
    subnets = amazon.plugin.project.read().of("ec2/subnet")
    private = [i for i, r in subnets.items() if r["inputs"]["cidrBlock"].endswith("/19")]
    cluster = amazon.make_cluster(amazon.made("subnet", private), version="1.33")
    inputs = strip(cluster.inputs)
    with pytest.raises(Refusal, match=r"Unsupported Kubernetes minor version update from 1.33 to 1.35"):
        amazon.update(cluster, **{**inputs, "version": "1.35"})
    assert amazon.update(cluster, **{**inputs, "version": "1.34"}).outputs["version"] == "1.34"


@pytest.mark.parametrize(
    ("service", "policies", "text"),
    [
        ("ec2.amazonaws.com", ("AmazonEKSClusterPolicy",), "the trusted entity is not correct"),
        ("eks.amazonaws.com", (), "following policy is attached: .*AmazonEKSClusterPolicy"),
    ],
)
def test_a_control_plane_needs_its_role_with_its_policy(amazon, service, policies, text):
    _, subnets = amazon.make_network()
    role = amazon.make_role("r", service, *policies)
    with pytest.raises(Refusal, match=text):
        amazon.create("cluster", "c", **cluster_inputs(role, subnets))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"kubernetesNetworkConfig": {"serviceIpv4Cidr": "10.0.0.0/20"}}, "overlaps with the CIDR block"),
        ({"vpcConfig": {"endpointPrivateAccess": False, "endpointPublicAccess": False}}, "cannot be false"),
    ],
)
def test_a_cluster_that_nobody_could_use_is_refused(amazon, change, text):
    with pytest.raises(Refusal, match=text):
        amazon.make_cluster(**change)


def test_a_key_that_was_deleted_is_of_no_use_though_it_can_still_be_had_back(amazon):
    key = amazon.create("key", "k", deletionWindowInDays=30)
    amazon.delete(key)
    encryption = {"provider": {"keyArn": key.outputs["arn"]}, "resources": ["secrets"]}
    with pytest.raises(Refusal, match="is pending deletion"):
        amazon.make_cluster(encryptionConfig=encryption)
    assert not amazon.plugin.project.read().of("kms/key")


def test_a_protected_cluster_is_not_deleted(amazon):
    cluster = amazon.make_cluster(deletionProtection=True)
    with pytest.raises(Refusal, match="deletion protection"):
        amazon.delete(cluster)
    amazon.delete(amazon.update(cluster, **{**strip(cluster.inputs), "deletionProtection": False}))


def test_a_cluster_with_node_groups_is_not_deleted_and_add_ons_go_with_it(amazon, cluster):
    group = amazon.make_nodes()
    with pytest.raises(Refusal, match="ResourceInUseException: Cluster has nodegroups attached"):
        amazon.delete(cluster)
    amazon.delete(group)
    amazon.delete(cluster)
    assert amazon.plugin.project.read().of("eks/addon") == {}


def test_a_role_that_lost_its_policy_leaves_network_interfaces_behind(amazon):
    _, subnets = amazon.make_network()
    cluster = amazon.make_cluster(subnets)
    amazon.delete_all("iam/rolePolicyAttachment")
    amazon.delete(cluster)
    with pytest.raises(Refusal, match="DependencyViolation: The subnet .* has dependencies"):
        amazon.delete(subnets[0])


def test_the_log_group_that_eks_makes_itself_outlives_the_cluster_and_ours_does_not(amazon):
    cluster = amazon.make_cluster(enabledClusterLogTypes=["api"])
    amazon.delete(cluster)
    assert amazon.plugin.project.read().of("cloudwatch/logGroup").keys() == {"/aws/eks/c/cluster"}
    with pytest.raises(Refusal, match="ResourceAlreadyExistsException"):
        amazon.create("logs", "l", name="/aws/eks/c/cluster")
    amazon.delete_all("cloudwatch/logGroup")
    ours = amazon.create("logs", "l", name="/aws/eks/c/cluster", retentionInDays=30)
    again = amazon.create("cluster", "c", **strip(cluster.inputs))
    amazon.delete(again)
    amazon.delete(ours)
    assert amazon.plugin.project.read().of("cloudwatch/logGroup") == {}


# -- add-ons and access ------------------------------------------------------------------------------


def test_an_add_on_comes_after_its_cluster_and_must_be_one_of_eks(amazon):
    with pytest.raises(Refusal, match="No cluster found for name: c"):
        amazon.create("addon", "a", clusterName="c", addonName="vpc-cni")
    amazon.make_cluster()
    with pytest.raises(Refusal, match="Addon nonsense specified is not supported in 1.34 kubernetes version"):
        amazon.create("addon", "a", clusterName="c", addonName="nonsense")


@pytest.mark.parametrize("name", ["coredns", "aws-ebs-csi-driver", "metrics-server"])
def test_an_add_on_that_runs_as_pods_stays_degraded_without_nodes_that_take_them(amazon, cluster, name):
    amazon.make_nodes()
    with pytest.raises(PartialFailure, match=r"last state: 'DEGRADED'.*InsufficientNumberOfReplicas"):
        amazon.create("addon", name, clusterName="c", addonName=name)
    amazon.make_system()
    amazon.delete_all("eks/addon")
    amazon.create("addon", "vpc-cni", clusterName="c", addonName="vpc-cni")
    amazon.create("addon", name, clusterName="c", addonName=name)


def test_access_policies_need_an_entry_and_entries_the_right_mode(amazon):
    cluster = amazon.make_cluster()
    arn = "arn:aws:iam::123456789012:role/pipeline"
    policy = "arn:aws:eks::aws:cluster-access-policy/AmazonEKSClusterAdminPolicy"
    grant = {
        "clusterName": "c",
        "principalArn": arn,
        "policyArn": policy,
        "accessScope": {"type": "cluster"},
    }
    with pytest.raises(Refusal, match="You must create an access entry first"):
        amazon.create("allowed", "a", **grant)
    amazon.create("entry", "e", clusterName="c", principalArn=arn)
    with pytest.raises(Refusal, match="policyArn parameter format is not valid"):
        amazon.create("allowed", "a", **{**grant, "policyArn": "arn:aws:iam::aws:policy/AdministratorAccess"})
    amazon.create("allowed", "a", **grant)
    mode = {"authenticationMode": "CONFIG_MAP", "bootstrapClusterCreatorAdminPermissions": True}
    amazon.update(cluster, **{**strip(cluster.inputs), "accessConfig": mode})
    with pytest.raises(Refusal, match="authentication mode must be set to one of"):
        amazon.create("entry", "f", clusterName="c", principalArn=f"{arn}2")


def test_one_account_of_pods_has_one_role_and_that_exists(amazon, cluster):
    given = {"clusterName": "c", "namespace": "ns", "serviceAccount": "sa"}
    with pytest.raises(Refusal, match="Role provided in the request does not exist"):
        amazon.create("identity", "i", **given, roleArn="arn:aws:iam::1:role/none")
    role = amazon.make_role("r", "pods.eks.amazonaws.com").outputs["arn"]
    amazon.create("identity", "i", **given, roleArn=role)
    with pytest.raises(Refusal, match="ResourceInUseException: Association already exists: a-0"):
        amazon.create("identity", "j", **given, roleArn=role)


# -- networks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", ["10.0.0.1/16", "10.0.0.0/8", "ten"])
def test_a_range_that_is_none_fails_the_preview(amazon, block):
    with pytest.raises(Failed, match="cidr_block"):
        amazon.check("vpc", "v", {"cidrBlock": block})


def test_subnets_lie_in_their_network_beside_each_other(amazon):
    vpc = amazon.create("vpc", "v", cidrBlock="10.0.0.0/16")
    amazon.create("subnet", "a", vpcId=vpc.identity, cidrBlock="10.0.0.0/20")
    with pytest.raises(Refusal, match="InvalidSubnet.Conflict"):
        amazon.create("subnet", "b", vpcId=vpc.identity, cidrBlock="10.0.8.0/24")
    with pytest.raises(Refusal, match="InvalidSubnet.Range"):
        amazon.create("subnet", "b", vpcId=vpc.identity, cidrBlock="10.1.0.0/24")
    with pytest.raises(Refusal, match="availability zones: us-east-1a"):
        amazon.create(
            "subnet", "b", vpcId=vpc.identity, cidrBlock="10.0.16.0/24", availabilityZone="eu-west-1a"
        )


def test_addresses_are_limited(amazon):
    amazon.set(quotas=[{"metric": "L-0263D0A3", "region": "us-east-1", "limit": 1}])
    amazon.create("address", "a")
    with pytest.raises(Refusal, match="AddressLimitExceeded: The maximum number of addresses"):
        amazon.create("address", "b")


def test_a_nat_gateway_needs_the_networks_way_out_first(amazon):
    vpc = amazon.create("vpc", "v", cidrBlock="10.0.0.0/16")
    subnet = amazon.create("subnet", "a", vpcId=vpc.identity, cidrBlock="10.0.0.0/20")
    address = amazon.create("address", "a")
    with pytest.raises(Refusal, match="unexpected state 'failed'.*has no Internet gateway attached"):
        amazon.create("nat", "n", allocationId=address.identity, subnetId=subnet.identity)


def test_names_of_an_endpoint_need_dns_in_the_network(amazon):
    vpc = amazon.create("vpc", "v", cidrBlock="10.0.0.0/16")
    given = {"vpcId": vpc.identity, "vpcEndpointType": "Interface", "privateDnsEnabled": True}
    with pytest.raises(Refusal, match="requires both enableDnsSupport and enableDnsHostnames"):
        amazon.create("endpoint", "e", **given, serviceName="com.amazonaws.us-east-1.ecr.api")
    with pytest.raises(Refusal, match="InvalidServiceName"):
        amazon.create("endpoint", "e", vpcId=vpc.identity, serviceName="com.amazonaws.eu-west-1.s3")


def test_a_network_with_things_in_it_stays(amazon):
    vpc, _ = amazon.make_network()
    with pytest.raises(Refusal, match=f"DependencyViolation: The vpc '{vpc.identity}' has dependencies"):
        amazon.delete(vpc)
    gateway = amazon.made("internet", amazon.plugin.project.read().of("ec2/internetGateway"))[0]
    with pytest.raises(Refusal, match="has some mapped public address"):
        amazon.delete(gateway)


def test_a_role_is_deleted_after_its_policies(amazon):
    role = amazon.make_role("r", "ec2.amazonaws.com", "AmazonEKSWorkerNodePolicy")
    with pytest.raises(Refusal, match="DeleteConflict: Cannot delete entity, must detach all policies first"):
        amazon.delete(role)


def test_documents_and_numbers_that_amazon_does_not_take_fail_the_preview(amazon):
    for kind, inputs, text in (
        ("role", {"assumeRolePolicy": "{"}, "invalid JSON policy"),
        ("role", {"name": "a b", "assumeRolePolicy": trust("x")}, "invalid value for name"),
        ("key", {"deletionWindowInDays": 3}, r"deletion_window_in_days to be in the range \(7 - 30\)"),
        ("logs", {"retentionInDays": 31}, "expected retention_in_days to be one of"),
        ("template", {"metadataOptions": {"httpPutResponseHopLimit": 0}}, "hop_limit to be in the range"),
    ):
        with pytest.raises(Failed, match=text):
            amazon.check(kind, "x", inputs)


@pytest.mark.parametrize("name", ["Big", "a", "with_underscore", "192.168.0.1", "xn--x", "two..dots"])
def test_bucket_names_that_s3_does_not_take_are_refused(amazon, name):
    with pytest.raises(Refusal, match="InvalidBucketName"):
        amazon.create("bucket", "b", bucket=name)


def test_an_autoscaling_group_that_does_not_exist_gets_no_tag(amazon):
    tag = {"key": "k", "value": "v", "propagateAtLaunch": False}
    with pytest.raises(Refusal, match="AutoScalingGroup name not found"):
        amazon.create("tag", "t", autoscalingGroupName="eks-none", tag=tag)


# -- refusals that are asked for ---------------------------------------------------------------------


def test_an_injected_refusal_strikes_as_often_as_it_should(amazon):
    amazon.set(
        refusals=[{"kind": "ec2/vpc", "code": "RequestLimitExceeded", "message": "slow down", "times": 1}]
    )
    with pytest.raises(Refusal, match="creating EC2 VPC: RequestLimitExceeded: slow down"):
        amazon.create("vpc", "v", cidrBlock="10.0.0.0/16")
    amazon.create("vpc", "v", cidrBlock="10.0.0.0/16")


def test_a_system_group_counts_in_the_quota_of_ordinary_machines(amazon, cluster):
    amazon.set(quotas=[{"metric": "L-1216C47A", "region": "us-east-1", "limit": 2}])
    with pytest.raises(PartialFailure, match="VcpuLimitExceeded"):
        amazon.make_nodes("system", **system_inputs(2))
