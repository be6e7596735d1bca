"""Managed node groups: what Amazon and its provider refuse of them, and what they do to the cluster's nodes.

The texts are EKS's where they are known (issues of terraform-provider-aws, terraform-aws-eks and viya4-iac-aws).
"""

from __future__ import annotations

from rehearsal.cloud import aws_machines, aws_roles, groups, node_groups
from rehearsal.cloud.groups import Short
from rehearsal.cloud.node_groups import CLUSTER, GROUP, SUBNET, TEMPLATE, NodeGroup
from rehearsal.providers.aws import identity
from rehearsal.providers.aws.call import ApiError, Call
from rehearsal.providers.aws.eks import version
from rehearsal.providers.aws.kinds import arn, tagged
from rehearsal.providers.cloud.kinds import Kind
from rehearsal.providers.cloud.values import always, at, fields
from rehearsal.providers.server import Refusal
from rehearsal.providers.values import UNKNOWN, Properties, has_unknown

SERVICE = "ec2.amazonaws.com"
WORKER_POLICY = "AmazonEKSWorkerNodePolicy"
REGISTRY_POLICIES = ("AmazonEC2ContainerRegistryReadOnly", "AmazonEC2ContainerRegistryPullOnly")
MAX_NAME = 63
GPU_AMIS = ("AL2023_x86_64_NVIDIA", "BOTTLEROCKET_x86_64_NVIDIA", "AL2_x86_64_GPU")
AMIS = (*GPU_AMIS, "AL2023_x86_64_STANDARD", "BOTTLEROCKET_x86_64", "AL2_x86_64", "CUSTOM")
_EFFECTS = ("NO_SCHEDULE", "NO_EXECUTE", "PREFER_NO_SCHEDULE")
# What is launched anew when it changes.
_IMAGE = ("launchTemplate", "releaseVersion", "version")


def _invalid(message: str) -> ApiError:
    return ApiError("InvalidParameterException", message)


# -- what the provider refuses, in a preview already -------------------------------------------------


def _sizes(call: Call) -> None:
    scaling = call.inputs.get("scalingConfig") or {}
    for name, least in (("desired_size", 0), ("max_size", 1), ("min_size", 0)):
        value = scaling.get(name.partition("_")[0] + "Size")
        if isinstance(value, int | float) and value < least:
            raise Refusal(f"expected scaling_config.0.{name} to be at least ({least}), got {value:g}")


def _name_is_valid(call: Call) -> None:
    name = call.inputs.get("nodeGroupName")
    if isinstance(name, str) and len(name) > MAX_NAME:
        raise Refusal(f"expected length of node_group_name to be in the range (0 - {MAX_NAME}), got {name}")


def _words(call: Call) -> None:
    given = call.inputs
    for field, allowed in (("amiType", AMIS), ("capacityType", ("ON_DEMAND", "SPOT", "CAPACITY_BLOCK"))):
        if given.get(field) not in (None, UNKNOWN, *allowed):
            raise Refusal(f"expected {field} to be one of {list(allowed)}, got {given[field]}")
    for taint in given.get("taints") or ():
        if taint.get("effect") not in (UNKNOWN, *_EFFECTS):
            raise Refusal(f"expected taint.0.effect to be one of {list(_EFFECTS)}, got {taint.get('effect')}")


def _one_reference(call: Call) -> None:
    template = call.inputs.get("launchTemplate") or {}
    if isinstance(template, dict) and {"id", "name"} <= template.keys():
        raise Refusal('"launch_template.0.id": conflicts with launch_template.0.name')


# -- what Amazon refuses -----------------------------------------------------------------------------


def _role(call: Call) -> None:
    role = identity.role_of(call, call.inputs["nodeRoleArn"])
    if SERVICE not in aws_roles.services_of(call.state, role):
        raise _invalid(
            f"Following required service principals [{SERVICE}] were not found in the trust relationships of nodeRole "
            f"{call.inputs['nodeRoleArn']}"
        )
    have = aws_roles.policies_of(call.state, role)
    if WORKER_POLICY not in have or not have & set(REGISTRY_POLICIES):
        wanted = ", ".join(identity.MANAGED + name for name in (WORKER_POLICY, REGISTRY_POLICIES[0]))
        raise _invalid(
            "The provided role doesn't have the Amazon EKS Managed Policies associated with it. Please ensure the "
            f"following policies [{wanted}] are attached"
        )


def _order(call: Call) -> None:
    """A minimum above the present size is an error of its own where the group is there."""
    scaling = call.inputs["scalingConfig"]
    least, size, most = (scaling[name] for name in ("minSize", "desiredSize", "maxSize"))
    if least > most:
        raise _invalid("minSize can't be greater than maxSize")
    if size > most:
        raise _invalid("desiredSize can't be greater than maxSize")
    if least > size:
        there = call.record is not None
        raise _invalid(
            f"Minimum capacity {least} can't be greater than desired size {size}"
            if there
            else "minSize can't be greater than desiredSize"
        )


def _instances(call: Call) -> None:
    given = call.inputs.get("instanceTypes") or [node_groups.DEFAULT_TYPE]
    unknown = [name for name in given if aws_machines.find(name) is None]
    if unknown:
        raise _invalid(f"The following supplied instance types do not exist: [{', '.join(unknown)}]")
    ami = call.inputs.get("amiType")
    wrong = [n for n in given if ami in GPU_AMIS and not getattr(aws_machines.find(n), "gpus", 0)]
    if wrong:
        raise _invalid(f"[{', '.join(wrong)}] is not a valid instance type for requested amiType {ami}")
    if given != given[:1]:
        raise Refusal("a rehearsal's node groups have one instance type each")


def _template(call: Call) -> None:
    reference = call.inputs.get("launchTemplate")
    if not reference:
        return
    found = next(
        (
            record
            for key, record in call.state.of(TEMPLATE).items()
            if key == reference.get("id") or record["outputs"].get("name") == reference.get("name")
        ),
        None,
    )
    if found is None:
        raise _invalid(
            f"Launch template details can't be retrieved for Launch template ID: {reference.get('id')}"
        )
    content = found["versions"].get(str(reference["version"]))
    if content is None:
        raise _invalid(f"Launch template version {reference['version']} does not exist")
    if call.inputs.get("diskSize"):
        raise _invalid("Disk size must be specified within the launch template.")
    if call.inputs.get("remoteAccess"):
        raise _invalid("Remote access configuration cannot be specified with a launch template.")
    for message in _template_faults(call, content):
        raise _invalid(message)


def _template_faults(call: Call, content: Properties) -> list[str]:
    faults = []
    if content.get("iamInstanceProfile"):
        faults.append(
            "Launch template should not specify an instance profile. The noderole in your request will be used to "
            "construct an instance profile."
        )
    if content.get("imageId") and call.inputs.get("amiType") not in (None, "CUSTOM"):
        faults.append(
            "You cannot specify an AMI Type other than CUSTOM, when specifying an image id in your launch template."
        )
    if content.get("instanceType") and call.inputs.get("instanceTypes"):
        faults.append("You cannot specify instance types in both the launch template and the request.")
    return faults


def _room(call: Call) -> None:
    if call.record is None:
        try:
            node_groups.free_slot(call.state)
        except Short as short:
            raise Refusal(str(short)) from None


# -- effects -----------------------------------------------------------------------------------------


def _group(call: Call) -> NodeGroup:
    return node_groups.group_of(call.state, call.identity, call.state.of(GROUP)[call.identity])


def _begin(call: Call) -> None:
    record = call.state.of(GROUP)[call.identity]
    record |= {"slot": node_groups.free_slot(call.state), "size": 0, "round": 0}
    _launch(call, call.inputs["scalingConfig"]["desiredSize"])


def _change(call: Call) -> None:
    """New sizes are sent only where they differ from what the engine last knew; a new image renews all nodes."""
    record = call.state.of(GROUP)[call.identity]
    if any(_spoken(call.olds, call.inputs, field) for field in _IMAGE):
        record["round"] = record.get("round", 0) + 1
    sent = call.inputs["scalingConfig"] != call.olds.get("scalingConfig")
    size = call.inputs["scalingConfig"]["desiredSize"] if sent else record.get("size", 0)
    # A size that could not be reached before is tried again, as an autoscaling group does all the time.
    _launch(call, max(size, record.get("missing") or 0) if not sent else size)


def _spoken(olds: Properties, news: Properties, field: str) -> bool:
    """Whether a field differs in what the inputs say of it."""
    old, new = olds.get(field), news.get(field)
    if isinstance(old, dict) and isinstance(new, dict):
        return any(old.get(name) != value for name, value in new.items())
    return new is not None and old != new


def _launch(call: Call, size: int) -> None:
    """Bring the group to a size, or as far as it goes; what stands against more is in the record."""
    record = call.state.of(GROUP)[call.identity]
    record["issue"] = record["missing"] = None
    try:
        _group(call).require(call.state, call.settings, size)
        record["size"] = size
    except Short as short:
        record |= {"issue": str(short), "missing": size}
    groups.ensure_nodes(call.embedded.kube, _group(call))


def _trouble(call: Call) -> str:
    """What is wrong with the group's nodes."""
    record = call.state.of(GROUP)[call.identity]
    what = "create" if call.record is None else "update"
    issue = record.get("issue")
    if not issue and record["size"]:
        if not all(_reaches_out(call, subnet) for subnet in call.inputs["subnetIds"]):
            issue = "NodeCreationFailure: Instances failed to join the kubernetes cluster"
        elif not node_groups.has_network(call.state, call.inputs["clusterName"]):
            issue = "NodeCreationFailure: Unhealthy nodes in the kubernetes cluster"
    if not issue:
        return ""
    failed = "CREATE_FAILED" if what == "create" else "Failed"
    record["outputs"] = {**record["outputs"], "status": "CREATE_FAILED" if what == "create" else "DEGRADED"}
    wanted = "ACTIVE" if what == "create" else "Successful"
    return (
        f"waiting for EKS Node Group ({call.identity}) {what}: unexpected state '{failed}', wanted target '{wanted}'. "
        f"last error: {_group(call).scaling}: {issue}"
    )


def _reaches_out(call: Call, subnet: str) -> bool:
    """Whether machines in a subnet reach Amazon's own services: by NAT, or by a gateway with addresses of their own."""
    joins = call.state.of("ec2/routeTableAssociation").values()
    tables = {r["inputs"]["routeTableId"] for r in joins if r["inputs"].get("subnetId") == subnet}
    routes = [
        r["inputs"] for r in call.state.of("ec2/route").values() if r["inputs"]["routeTableId"] in tables
    ]
    public = call.state.of(SUBNET).get(subnet, {"inputs": {}})["inputs"].get("mapPublicIpOnLaunch")
    return any(r.get("natGatewayId") or (public and r.get("gatewayId")) for r in routes)


def _gone(call: Call) -> None:
    record = call.record or {}
    call.state.of(GROUP)[call.identity] = record
    groups.remove_nodes(call.embedded.kube, _group(call))
    del call.state.of(GROUP)[call.identity]


def _observed(call: Call, outputs: Properties) -> Properties:
    """What a refresh reads: the number of nodes that the autoscaler left."""
    if has_unknown(outputs):
        return outputs
    scaling = {**outputs["scalingConfig"], "desiredSize": (call.record or {}).get("size", 0)}
    return {**outputs, "scalingConfig": scaling}


def _resources(call: Call) -> list[Properties]:
    scaling = node_groups.scaling_name(call.identity)
    return [{"autoscalingGroups": [{"name": scaling}], "remoteAccessSecurityGroupId": ""}]


def _version(call: Call) -> str:
    _, record = call.find(CLUSTER, call.inputs["clusterName"]) or ("", {"outputs": {}})
    return str(record["outputs"].get("version") or version(call))


def _template_name(call: Call) -> str:
    reference = call.inputs.get("launchTemplate") or {}
    return str(call.state.of(TEMPLATE).get(reference.get("id"), {"outputs": {}})["outputs"].get("name", ""))


KINDS = (
    Kind(
        token="aws:eks/nodeGroup:NodeGroup",
        title="Node Group",
        identity=at("{clusterName}:{name}"),
        named="nodeGroupName",
        max_name=255,
        lower=False,
        defaults={},
        outputs={
            **tagged(),
            "arn": arn("eks", "nodegroup/{clusterName}/{name}"),
            "amiType": always("AL2023_x86_64_STANDARD"),
            "capacityType": always("ON_DEMAND"),
            "diskSize": always(0),
            "instanceTypes": always([node_groups.DEFAULT_TYPE]),
            "nodeGroupNamePrefix": always(""),
            "releaseVersion": lambda call: f"{_version(call)}.1-20261112",
            "resources": _resources,
            "status": always("ACTIVE"),
            "version": _version,
        },
        filled={
            "launchTemplate": {"name": _template_name},
            "updateConfig": {"updateStrategy": always("DEFAULT")},
        },
        force_new=fields(
            "amiType",
            "capacityType",
            "clusterName",
            "diskSize",
            "instanceTypes",
            "launchTemplate.id",
            "launchTemplate.name",
            "nodeGroupName",
            "nodeGroupNamePrefix",
            "nodeRoleArn",
            "region",
            "remoteAccess",
            "subnetIds",
        ),
        anew=fields("tagsAll"),
        references={"clusterName": CLUSTER, "subnetIds": SUBNET},
        plan=(_sizes, _name_is_valid, _words, _one_reference),
        checks=(_role, _order, _instances, _template, _room),
        made=_begin,
        changed=_change,
        removed=_gone,
        unfinished=_trouble,
        observed=_observed,
    ),
)
