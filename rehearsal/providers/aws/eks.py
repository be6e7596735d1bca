"""EKS clusters, who may use them, their add-ons, and identities of pods.

Fields whose change replaces, and texts of refusals: the AWS provider, internal/service/eks/*.go, and issues that quote
EKS. A cluster is the rehearsal's embedded API server.
"""

from __future__ import annotations

import json
import re
from ipaddress import IPv4Network

from rehearsal.cloud import aws_roles, node_groups, storage_classes
from rehearsal.cloud.groups import ensure_nodes
from rehearsal.cloud.node_groups import CLUSTER
from rehearsal.cloud.project import INTERFACE
from rehearsal.providers.aws import identity, network
from rehearsal.providers.aws.call import ApiError, Call
from rehearsal.providers.aws.kinds import arn, tagged
from rehearsal.providers.cloud.kinds import Kind
from rehearsal.providers.cloud.values import always, at, fields, time
from rehearsal.providers.server import Refusal
from rehearsal.providers.values import Properties

ENTRY, SERVICE = "eks/accessEntry", "eks.amazonaws.com"
CLUSTER_POLICY = "AmazonEKSClusterPolicy"
_NAME = re.compile(r"[0-9A-Za-z][A-Za-z0-9_-]{0,99}")
_ACCESS_POLICY = re.compile(r"arn:aws[a-z-]*:eks::aws:cluster-access-policy/Amazon(EKS|AIOps)[A-Za-z]+")
# The default version of each add-on; those that run as pods on nodes are not done before there are some.
_ADDONS = {
    "vpc-cni": "v1.20.4-eksbuild.1",
    "kube-proxy": "v1.34.0-eksbuild.4",
    "eks-pod-identity-agent": "v1.3.9-eksbuild.3",
    "coredns": "v1.12.4-eksbuild.1",
    "aws-ebs-csi-driver": "v1.51.1-eksbuild.1",
    "metrics-server": "v0.8.0-eksbuild.2",
}
_ON_NODES = ("coredns", "aws-ebs-csi-driver", "metrics-server")


def _invalid(message: str) -> ApiError:
    return ApiError("InvalidParameterException", message)


# -- clusters --------------------------------------------------------------------------------------


def version(call: Call) -> str:
    """The Kubernetes minor that is asked for, or EKS's default."""
    offered = call.settings.eks_versions
    return str(call.inputs.get("version") or offered[len(offered) // 2])


def _name_is_valid(call: Call) -> None:
    name = call.inputs.get("name")
    if isinstance(name, str) and not _NAME.fullmatch(name):
        raise Refusal(f'invalid value for name (must match ^[0-9A-Za-z][A-Za-z0-9_-]{{0,99}}$): "{name}"')


def _version(call: Call) -> None:
    wanted = version(call)
    if wanted not in call.settings.eks_versions:
        raise _invalid("unsupported Kubernetes version")
    before = (call.record or {}).get("outputs", {}).get("version")
    if before and not 0 <= int(wanted.split(".")[1]) - int(before.split(".")[1]) <= 1:
        raise _invalid(f"Unsupported Kubernetes minor version update from {before} to {wanted}")


def _one_cluster(call: Call) -> None:
    others = [i for i in call.state.of(CLUSTER) if i != call.identity]
    if others:
        raise Refusal(
            f"a rehearsal has one API server and so one cluster, and {others[0]} is there; delete it first"
        )


def _role(call: Call) -> None:
    role = identity.role_of(call, call.inputs["roleArn"])
    if SERVICE not in aws_roles.services_of(call.state, role):
        raise _invalid("Role could not be assumed because the trusted entity is not correct")
    if CLUSTER_POLICY not in aws_roles.policies_of(call.state, role):
        raise _invalid(
            "The provided role doesn't have the Amazon EKS Managed Policies associated with it. Please ensure the "
            f"following policy is attached: {identity.MANAGED}{CLUSTER_POLICY}"
        )


def _subnets(call: Call) -> None:
    found = [call.find(network.SUBNET, s) for s in call.inputs["vpcConfig"].get("subnetIds") or ()]
    if len({record["outputs"]["availabilityZone"] for _, record in filter(None, found)}) < 2:
        raise _invalid("Subnets specified must be in at least two different AZs")
    if len({record["inputs"]["vpcId"] for _, record in filter(None, found)}) > 1:
        raise _invalid("Subnets specified must belong to the same VPC")


def _services_range(call: Call) -> None:
    given = (call.inputs.get("kubernetesNetworkConfig") or {}).get("serviceIpv4Cidr")
    found = call.find(network.VPC, vpc_of(call))
    if given and found and IPv4Network(given).overlaps(IPv4Network(found[1]["inputs"]["cidrBlock"])):
        raise _invalid("The specified service IPv4 CIDR overlaps with the CIDR block of the VPC")


def _endpoints(call: Call) -> None:
    config = call.inputs["vpcConfig"]
    if not config.get("endpointPrivateAccess") and config.get("endpointPublicAccess") is False:
        raise _invalid("Private and public endpoint access cannot be false")


def _key(call: Call) -> None:
    reference = ((call.inputs.get("encryptionConfig") or {}).get("provider") or {}).get("keyArn")
    if reference:
        identity.require_key(call, reference)


def vpc_of(call: Call) -> str:
    """Id of the VPC that the cluster's subnets are in."""
    subnets = call.inputs["vpcConfig"].get("subnetIds") or [""]
    found = call.find(network.SUBNET, subnets[0])
    return found[1]["inputs"]["vpcId"] if found else ""


def _loses_encryption(field: str, state: Properties, wanted: Properties) -> bool:
    return field == "encryptionConfig" and bool(state.get(field)) and not wanted.get(field)


def _unprotected(call: Call) -> None:
    if (call.record or {}).get("inputs", {}).get("deletionProtection"):
        raise ApiError(
            "InvalidRequestException",
            f"Cluster {call.identity} has deletion protection enabled. Disable deletion protection to delete it.",
        )


def _logs(call: Call) -> None:
    """EKS makes the group of its logs where nobody has, keeps logs in it for ever, and never deletes it."""
    name = f"/aws/eks/{call.identity}/cluster"
    if call.inputs.get("enabledClusterLogTypes") and name not in call.state.of(identity.LOGS):
        record = {"inputs": {"name": name}, "outputs": {"name": name}, "created": call.now, "owner": "EKS"}
        call.state.of(identity.LOGS)[name] = record


def _deleted(call: Call) -> None:
    """Without its role, or that without its policy, EKS cannot take its network interfaces along."""
    role = str(call.inputs.get("roleArn", "")).rsplit("/", 1)[-1]
    if CLUSTER_POLICY not in aws_roles.policies_of(call.state, role):
        config = call.inputs["vpcConfig"]
        inputs = {
            "vpcId": vpc_of(call),
            "subnetIds": config["subnetIds"],
            "description": f"Amazon EKS {call.identity}",
        }
        left = {"inputs": inputs, "outputs": inputs, "created": call.now, "owner": "EKS"}
        call.state.of(INTERFACE)[call.fresh("eni")] = left
    storage_classes.take_away(call.embedded.kube, [storage_classes.EBS])


_CLUSTER = Kind(
    token="aws:eks/cluster:Cluster",
    title="Cluster",
    identity=at("{name}"),
    max_name=100,
    lower=False,
    defaults={"bootstrapSelfManagedAddons": True},
    outputs={
        **tagged(),
        "arn": arn("eks", "cluster/{name}"),
        "certificateAuthority": lambda call: {"data": call.embedded.authority},
        "clusterId": always(""),
        "createdAt": time,
        "endpoint": lambda call: f"https://{call.embedded.address}",
        "identities": lambda call: [
            {
                "oidcs": [
                    {"issuer": f"https://oidc.eks.{call.region}.amazonaws.com/id/{call.token(32).upper()}"}
                ]
            }
        ],
        "platformVersion": always("eks.9"),
        "status": always("ACTIVE"),
        "version": version,
        "deletionProtection": always(False),
        "controlPlaneScalingConfig": always({"tier": "standard"}),
    },
    filled={
        "accessConfig": {
            "authenticationMode": always("CONFIG_MAP"),
            "bootstrapClusterCreatorAdminPermissions": always(True),
        },
        "kubernetesNetworkConfig": {
            "ipFamily": always("ipv4"),
            "serviceIpv4Cidr": always("172.20.0.0/16"),
            "serviceIpv6Cidr": always(""),
            "elasticLoadBalancing.enabled": always(False),
        },
        "upgradePolicy": {"supportType": always("EXTENDED")},
        "vpcConfig": {
            "vpcId": vpc_of,
            "clusterSecurityGroupId": lambda call: f"sg-0{call.token(16)}",
            "endpointPrivateAccess": always(False),
            "endpointPublicAccess": always(True),
            "publicAccessCidrs": always(["0.0.0.0/0"]),
        },
    },
    force_new=fields(
        "accessConfig.bootstrapClusterCreatorAdminPermissions",
        "bootstrapSelfManagedAddons",
        "kubernetesNetworkConfig.ipFamily",
        "kubernetesNetworkConfig.serviceIpv4Cidr",
        "name",
        "outpostConfig",
        "region",
        "roleArn",
    ),
    anew=fields("tagsAll"),
    references={"vpcConfig.subnetIds": network.SUBNET, "vpcConfig.securityGroupIds": network.GROUP},
    plan=(_name_is_valid,),
    checks=(_one_cluster, _version, _role, _subnets, _services_range, _endpoints, _key),
    removal=(_unprotected,),
    made=_logs,
    changed=_logs,
    removed=_deleted,
    replaces=_loses_encryption,
)


# -- access ----------------------------------------------------------------------------------------


def _by_entries(call: Call) -> None:
    _, record = call.find(CLUSTER, call.inputs["clusterName"]) or ("", {"outputs": {}})
    mode = (record["outputs"].get("accessConfig") or {}).get("authenticationMode")
    if mode not in ("API", "API_AND_CONFIG_MAP"):
        raise ApiError(
            "InvalidRequestException",
            "The cluster's authentication mode must be set to one of [API, API_AND_CONFIG_MAP] to perform this "
            "operation.",
        )


def _entry_exists(call: Call) -> None:
    if f"{call.inputs['clusterName']}:{call.inputs['principalArn']}" not in call.state.of(ENTRY):
        raise ApiError(
            "ResourceNotFoundException",
            "The specified principalArn could not be found. You must create an access entry first.",
        )


def _access_policy(call: Call) -> None:
    policy = call.inputs["policyArn"]
    if not _ACCESS_POLICY.fullmatch(policy):
        raise _invalid(f"The policyArn parameter format is not valid: {policy}")
    scope = call.inputs["accessScope"]
    if scope.get("type") == "namespace" and not scope.get("namespaces"):
        raise _invalid("A namespace access scope needs at least one namespace")


# -- add-ons ---------------------------------------------------------------------------------------


def _known_addon(call: Call) -> None:
    name = call.inputs["addonName"]
    if name not in _ADDONS:
        _, record = call.find(CLUSTER, call.inputs["clusterName"]) or ("", {"outputs": {}})
        raise _invalid(
            f"Addon {name} specified is not supported in {record['outputs'].get('version')} kubernetes version"
        )


def _addon_version(call: Call) -> str:
    return _ADDONS[call.inputs["addonName"]]


def _addon_roles(call: Call) -> None:
    for association in call.inputs.get("podIdentityAssociations") or ():
        identity.role_of(call, association["roleArn"])


def _addon_made(call: Call) -> None:
    """With a network, nodes become Ready; with the driver of volumes, claims get some."""
    name, cluster = call.inputs["addonName"], call.inputs["clusterName"]
    if name == "vpc-cni":
        _refresh_nodes(call, cluster)
    if name == "aws-ebs-csi-driver":
        settings = json.loads(call.inputs.get("configurationValues") or "{}")
        default = bool((settings.get("defaultStorageClass") or {}).get("enabled"))
        storage_classes.bring(call.embedded.kube, storage_classes.amazon(default), "eks")


def _addon_removed(call: Call) -> None:
    if call.inputs["addonName"] == "vpc-cni":
        _refresh_nodes(call, call.inputs["clusterName"])
    if call.inputs["addonName"] == "aws-ebs-csi-driver":
        storage_classes.take_away(call.embedded.kube, [storage_classes.EBS])


def _refresh_nodes(call: Call, cluster: str) -> None:
    for group in node_groups.all_groups(call.state):
        if group.cluster == cluster and group.size:
            ensure_nodes(call.embedded.kube, group)


def _addon_waits(call: Call) -> str:
    """An add-on that runs as pods is degraded while no node takes them."""
    if call.inputs["addonName"] not in _ON_NODES or _has_room(call):
        return ""
    return (
        f"waiting for EKS Add-On ({call.identity}) create: timeout while waiting for state to become 'ACTIVE' (last "
        "state: 'DEGRADED', timeout: 20m0s): InsufficientNumberOfReplicas: The add-on is unhealthy because it doesn't "
        "have the desired number of replicas."
    )


def _has_room(call: Call) -> bool:
    groups = node_groups.all_groups(call.state)
    return any(g.size and g.networked and not g.inputs.get("taints") for g in groups)


# -- identities of pods ----------------------------------------------------------------------------


def _role_of_pods(call: Call) -> None:
    if call.find(aws_roles.ROLE, call.inputs["roleArn"]) is None:
        raise _invalid("Role provided in the request does not exist.")


def _one_identity(call: Call) -> None:
    wanted = [call.inputs[name] for name in ("clusterName", "namespace", "serviceAccount")]
    for other, record in call.state.of(aws_roles.IDENTITY).items():
        inputs = record["inputs"]
        if other != call.identity and wanted == [
            inputs[n] for n in ("clusterName", "namespace", "serviceAccount")
        ]:
            raise ApiError("ResourceInUseException", f"Association already exists: {other}")


KINDS = (
    _CLUSTER,
    Kind(
        token="aws:eks/accessEntry:AccessEntry",
        title="Access Entry",
        identity=at("{clusterName}:{principalArn}"),
        named="",
        autonamed=False,
        outputs={
            **tagged(),
            "accessEntryArn": arn("eks", "access-entry/{clusterName}"),
            "createdAt": time,
            "modifiedAt": time,
            "type": always("STANDARD"),
            "userName": lambda call: call.inputs["principalArn"],
            "kubernetesGroups": always([]),
        },
        force_new=fields("clusterName", "principalArn", "region", "type"),
        anew=fields("tagsAll"),
        references={"clusterName": CLUSTER},
        part_of="clusterName",
        checks=(_by_entries,),
    ),
    Kind(
        token="aws:eks/accessPolicyAssociation:AccessPolicyAssociation",
        title="Access Policy Association",
        identity=at("{clusterName}#{principalArn}#{policyArn}"),
        named="",
        autonamed=False,
        outputs={"region": lambda call: call.region, "associatedAt": time, "modifiedAt": time},
        force_new=fields("accessScope", "clusterName", "policyArn", "principalArn", "region"),
        references={"clusterName": CLUSTER},
        part_of="clusterName",
        checks=(_by_entries, _entry_exists, _access_policy),
        adopts=True,
    ),
    Kind(
        token="aws:eks/addon:Addon",
        title="Add-On",
        identity=at("{clusterName}:{addonName}"),
        named="",
        autonamed=False,
        outputs={
            **tagged(),
            "arn": arn("eks", "addon/{clusterName}/{addonName}"),
            "addonVersion": _addon_version,
            "configurationValues": always(""),
            "createdAt": time,
            "modifiedAt": time,
        },
        force_new=fields("addonName", "clusterName", "region"),
        anew=fields("tagsAll"),
        references={"clusterName": CLUSTER},
        part_of="clusterName",
        checks=(_known_addon, _addon_roles),
        made=_addon_made,
        changed=_addon_made,
        removed=_addon_removed,
        unfinished=_addon_waits,
    ),
    Kind(
        token="aws:eks/podIdentityAssociation:PodIdentityAssociation",
        title="Pod Identity Association",
        identity=lambda call: call.fresh("a"),
        named="",
        autonamed=False,
        outputs={
            **tagged(),
            "associationArn": arn("eks", "podidentityassociation/{clusterName}/{identity}"),
            "associationId": at("{identity}"),
            "externalId": always(""),
            "disableSessionTags": always(False),
        },
        force_new=fields("clusterName", "namespace", "region", "serviceAccount"),
        anew=fields("tagsAll"),
        references={"clusterName": CLUSTER},
        part_of="clusterName",
        checks=(_role_of_pods, _one_identity),
    ),
)
