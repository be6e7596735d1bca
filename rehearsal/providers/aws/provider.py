"""The servicer of Amazon's resources: their table, and the words of Amazon and of the provider."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rehearsal.cloud.project import BALANCER, INTERFACE
from rehearsal.providers.aws import VERSION
from rehearsal.providers.aws.call import ApiError, Call, Defaults
from rehearsal.providers.aws.diff import DIALECT
from rehearsal.providers.aws.kinds import table
from rehearsal.providers.aws.network import GROUP, SUBNET, VPC
from rehearsal.providers.aws.secrets import FUNCTIONS
from rehearsal.providers.cloud.kinds import Kind
from rehearsal.providers.cloud.provider import CloudPlugin
from rehearsal.providers.server import Refusal
from rehearsal.providers.values import Properties, has_unknown

KINDS = table()
_GERUNDS = {"create": "creating", "update": "updating", "delete": "deleting"}
_VERBS = {"creating": "create", "updating": "update"}
_SERVICES = {
    "ec2": "EC2", "vpc": "EC2", "eks": "EKS", "iam": "IAM", "kms": "KMS", "cloudwatch": "CloudWatch Logs",
    "autoscaling": "Auto Scaling", "s3": "S3",
}  # fmt: skip
# How services call what does not exist, by kind; {} is what was asked for.
_MISSING = {
    "ec2/vpc": ("InvalidVpcID.NotFound", "The vpc ID '{}' does not exist"),
    "ec2/subnet": ("InvalidSubnetID.NotFound", "The subnet ID '{}' does not exist"),
    "ec2/securityGroup": ("InvalidGroup.NotFound", "The security group '{}' does not exist"),
    "ec2/routeTable": ("InvalidRouteTableID.NotFound", "The routeTable ID '{}' does not exist"),
    "ec2/internetGateway": (
        "InvalidInternetGatewayID.NotFound",
        "The internetGateway ID '{}' does not exist",
    ),
    "ec2/natGateway": ("NatGatewayNotFound", "The Nat Gateway {} was not found"),
    "ec2/eip": ("InvalidAllocationID.NotFound", "The allocation ID '{}' does not exist"),
    "ec2/launchTemplate": (
        "InvalidParameterException",
        "Launch template details can't be retrieved for Launch template ID: {}",
    ),
    "eks/cluster": ("ResourceNotFoundException", "No cluster found for name: {}."),
    "iam/role": ("NoSuchEntity", "The role with name {} cannot be found."),
    "kms/key": ("NotFoundException", "Key '{}' does not exist"),
}


class Aws(CloudPlugin):
    """The aws plugin of one provider resource; the account is the rehearsal's."""

    release, kinds, dialect, calls = VERSION, KINDS, DIALECT, Call
    functions = FUNCTIONS
    controllers: Mapping[str, Mapping[str, str]] = {
        BALANCER: {"vpcId": VPC, "subnetIds": SUBNET, "securityGroupIds": GROUP},
        INTERFACE: {"vpcId": VPC, "subnetIds": SUBNET},
    }

    def defaults_of(self, configured: Mapping[str, Any]) -> Defaults:
        return Defaults.of(configured, self.settings.aws_account)

    def follows(self, call: Call, state: Properties) -> Iterable[str]:
        """Tags of the provider's that the resource has not got, or still has."""
        before = state.get("tagsAll")
        if before is None or has_unknown(call.tags) or before == call.tags:
            return ()
        return ("tagsAll",)

    # -- words -----------------------------------------------------------------------------------------

    def failed(self, call: Call, operation: str, refusal: str) -> str:
        where = call.name or call.stored
        return f"{_GERUNDS[operation]} {_titled(call.kind)}{f' ({where})' if where else ''}: {refusal}"

    def late(self, kind: Kind, operation: str, identity: str, timeout: float | None) -> str:
        state = f"timeout while waiting for state to become 'ACTIVE' (last state: 'CREATING', timeout: {timeout}s)"
        reason = "context canceled" if timeout is None else state
        return f"waiting for {_titled(kind)} ({identity}) {_VERBS[operation]}: {reason}"

    def missing(self, call: Call, field: str, reference: Any) -> Refusal:
        target = call.kind.references.get(field, call.kind.module)
        code, message = _MISSING.get(target, ("ResourceNotFoundException", "{} was not found"))
        return ApiError(code, message.format(str(reference).rsplit("/", 1)[-1]))

    def taken(self, call: Call) -> Refusal:
        service, what = call.kind.module.split("/")
        if service == "iam":
            return ApiError("EntityAlreadyExists", f"{what.title()} with name {call.name} already exists.")
        if service == "cloudwatch":
            return ApiError("ResourceAlreadyExistsException", "The specified log group already exists")
        if service == "s3":
            return ApiError(
                "BucketAlreadyOwnedByYou", "Your previous request to create the named bucket succeeded"
            )
        return ApiError(
            "ResourceInUseException",
            f"{call.kind.title} already exists with name: {call.name or call.identity}",
        )

    def in_use(self, call: Call, by: str) -> Refusal:
        service, _ = call.kind.module.split("/")
        if service == "iam":
            return ApiError("DeleteConflict", "Cannot delete entity, must detach all policies first.")
        if service == "eks":
            return ApiError("ResourceInUseException", "Cluster has nodegroups attached")
        if call.kind.module == GROUP:
            return ApiError("DependencyViolation", f"resource {call.identity} has a dependent object")
        what = call.kind.title.lower()
        return ApiError(
            "DependencyViolation", f"The {what} '{call.identity}' has dependencies and cannot be deleted."
        )

    def injected(self, entry: Mapping[str, Any]) -> Refusal:
        code = str(entry.get("code", "InternalFailure"))
        return ApiError(code, str(entry.get("message", "injected")))


def _titled(kind: Kind) -> str:
    return f"{_SERVICES[kind.module.split('/')[0]]} {kind.title}"
