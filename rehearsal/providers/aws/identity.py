"""IAM roles and what they may do, keys, and log groups."""

from __future__ import annotations

import json
import re
from typing import Any

from rehearsal.cloud.aws_roles import ROLE
from rehearsal.providers.aws.call import ApiError, Call
from rehearsal.providers.aws.kinds import arn, tagged
from rehearsal.providers.cloud.kinds import Kind
from rehearsal.providers.cloud.values import always, at, fields, time
from rehearsal.providers.server import Refusal
from rehearsal.providers.values import UNKNOWN

KEY, LOGS = "kms/key", "cloudwatch/logGroup"
MANAGED = "arn:aws:iam::aws:policy/"
_RETENTIONS = (
    0, 1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653,
)  # fmt: skip
_WINDOW = (7, 30)
_NAME = re.compile(r"[\w+=,.@-]+")


def role_of(call: Call, reference: Any) -> str:
    """The name of a role that an ARN names; as EKS says it where there is none."""
    found = call.find(ROLE, reference)
    if found is None:
        raise ApiError(
            "InvalidParameterException",
            f"The role with name {str(reference).rsplit('/', 1)[-1]} could not be assumed because it does not exist "
            "or the trusted entity is not correct",
        )
    return found[0]


def _documents(call: Call) -> None:
    for field in ("assumeRolePolicy", "policy"):
        text = call.inputs.get(field)
        if text in (None, UNKNOWN):
            continue
        try:
            json.loads(text)
        except (TypeError, ValueError):
            raise Refusal(f'"{field}" contains an invalid JSON policy: {text!r}') from None


def _name_is_valid(call: Call) -> None:
    name = call.inputs.get("name")
    if isinstance(name, str) and not _NAME.fullmatch(name):
        raise Refusal(f'invalid value for name (must match [\\w+=,.@-]): "{name}"')


def _policy_exists(call: Call) -> None:
    policy = call.inputs["policyArn"]
    if policy.startswith(MANAGED) and not policy.rsplit("/", 1)[-1].startswith(("Amazon", "AWS", "Cloud")):
        raise ApiError("NoSuchEntity", f"Policy {policy} does not exist or is not attachable.")


def _window(call: Call) -> None:
    days = call.inputs.get("deletionWindowInDays")
    if isinstance(days, int | float) and not _WINDOW[0] <= days <= _WINDOW[1]:
        raise Refusal(f"expected deletion_window_in_days to be in the range (7 - 30), got {days:g}")


def _retention(call: Call) -> None:
    days = call.inputs.get("retentionInDays")
    if isinstance(days, int | float) and days not in _RETENTIONS:
        raise Refusal(f"expected retention_in_days to be one of {list(_RETENTIONS)}, got {days:g}")


def _key_pends(call: Call) -> None:
    """A deleted key is there for some days more, of no use to anybody; it costs nothing any more."""
    call.state.pending[call.identity] = call.now


def require_key(call: Call, reference: str) -> None:
    """Refuse a key that is not there, or no more."""
    if call.find(KEY, reference) is not None:
        return
    identity = reference.rsplit("/", 1)[-1]
    if identity in call.state.pending:
        raise ApiError("KMSInvalidStateException", f"{reference} is pending deletion.")
    raise ApiError(
        "InvalidParameterException", f"The keyArn in encryptionConfig provider is invalid: {reference}"
    )


def _key_id(call: Call) -> str:
    digits = call.fresh("key").partition("-")[2] + "0" * 32
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[4:8], digits[:12]))


def _logs_stay(call: Call) -> None:
    if (call.record or {}).get("inputs", {}).get("deletionProtectionEnabled"):
        raise ApiError("ValidationException", "The log group has deletion protection enabled")


KINDS = (
    Kind(
        token="aws:iam/role:Role",
        title="Role",
        identity=at("{name}"),
        max_name=64,
        lower=False,
        defaults={"maxSessionDuration": 3600, "path": "/", "forceDetachPolicies": False},
        outputs={
            "tagsAll": lambda call: call.tags,
            "arn": at("arn:aws:iam::{account}:role/{name}"),
            "createDate": time,
            "uniqueId": lambda call: f"AROA{call.token(17).upper()}",
            "namePrefix": always(""),
            "inlinePolicies": always([]),
            "managedPolicyArns": always([]),
        },
        force_new=fields("name", "namePrefix", "path"),
        anew=fields("tagsAll"),
        plan=(_documents, _name_is_valid),
    ),
    Kind(
        token="aws:iam/rolePolicyAttachment:RolePolicyAttachment",
        title="Role Policy Attachment",
        identity=lambda call: f"{call.inputs['role']}/{call.inputs['policyArn']}",
        named="",
        autonamed=False,
        force_new=fields("policyArn", "role"),
        references={"role": ROLE},
        checks=(_policy_exists,),
        adopts=True,
    ),
    Kind(
        token="aws:iam/rolePolicy:RolePolicy",
        title="Role Policy",
        identity=at("{role}:{name}"),
        max_name=128,
        lower=False,
        outputs={"namePrefix": always("")},
        force_new=fields("name", "namePrefix", "role"),
        references={"role": ROLE},
        plan=(_documents,),
    ),
    Kind(
        token="aws:kms/key:Key",
        title="Key",
        identity=_key_id,
        named="",
        autonamed=False,
        defaults={
            "customerMasterKeySpec": "SYMMETRIC_DEFAULT",
            "keyUsage": "ENCRYPT_DECRYPT",
            "isEnabled": True,
            "enableKeyRotation": False,
            "bypassPolicyLockoutSafetyCheck": False,
        },
        outputs={
            **tagged(),
            "arn": arn("kms", "key/{identity}"),
            "keyId": at("{identity}"),
            "description": always(""),
            "multiRegion": always(False),
            "rotationPeriodInDays": always(365),
            "policy": lambda call: json.dumps(
                {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "kms:*", "Resource": "*"}]}
            ),
        },
        force_new=fields("customKeyStoreId", "customerMasterKeySpec", "keyUsage", "multiRegion", "region", "xksKeyId"),
        anew=fields("tagsAll"),
        plan=(_window,),
        removed=_key_pends,
    ),
    Kind(
        token="aws:cloudwatch/logGroup:LogGroup",
        title="Log Group",
        identity=at("{name}"),
        max_name=512,
        lower=False,
        defaults={"skipDestroy": False},
        outputs={
            **tagged(),
            "arn": arn("logs", "log-group:{name}"),
            "namePrefix": always(""),
            "logGroupClass": always("STANDARD"),
            "deletionProtectionEnabled": always(False),
        },
        force_new=fields("logGroupClass", "name", "namePrefix", "region"),
        anew=fields("tagsAll"),
        plan=(_retention,),
        removal=(_logs_stay,),
    ),
)  # fmt: skip
