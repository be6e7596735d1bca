"""Launch templates, and tags of autoscaling groups."""

from __future__ import annotations

from typing import Any

from rehearsal.cloud import node_groups
from rehearsal.providers.aws.call import ApiError, Call
from rehearsal.providers.aws.kinds import arn, made_up, regional, tagged
from rehearsal.providers.cloud.kinds import Kind
from rehearsal.providers.cloud.values import always, fields
from rehearsal.providers.server import Refusal

# What belongs to the template itself and makes no new version of it.
_BESIDE = ("tags", "name", "namePrefix", "region", "defaultVersion", "updateDefaultVersion")
_HOPS = (1, 64)


def _content(inputs: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in inputs.items() if name not in _BESIDE}


def _latest(call: Call) -> int:
    """The number of the newest version; another one after a change of what machines get."""
    if call.record is None:
        return 1
    latest = max(int(number) for number in call.record["versions"])
    return latest + (_content(call.record["inputs"]) != _content(call.inputs))


def _default(call: Call) -> int:
    if call.inputs.get("updateDefaultVersion") or call.record is None:
        return _latest(call)
    return int(call.record["outputs"]["defaultVersion"])


def _keep_version(call: Call) -> None:
    record = call.state.of(node_groups.TEMPLATE)[call.identity]
    before = (call.record or {}).get("versions", {})
    record["versions"] = {**before, str(record["outputs"].get("latestVersion", 1)): record["inputs"]}


def _hops(call: Call) -> None:
    limit = (call.inputs.get("metadataOptions") or {}).get("httpPutResponseHopLimit")
    if isinstance(limit, int | float) and not _HOPS[0] <= limit <= _HOPS[1]:
        raise Refusal(
            f"expected metadata_options.0.http_put_response_hop_limit to be in the range (1 - 64), got {limit:g}"
        )


def _group_exists(call: Call) -> None:
    name = call.inputs["autoscalingGroupName"]
    if name not in {group.scaling for group in node_groups.all_groups(call.state)}:
        raise ApiError(
            "ValidationError", f"AutoScalingGroup name not found - AutoScalingGroup '{name}' not found"
        )


def _tag_identity(call: Call) -> str:
    return f"{call.inputs['autoscalingGroupName']},{call.inputs['tag']['key']}"


KINDS = (
    Kind(
        token="aws:ec2/launchTemplate:LaunchTemplate",
        title="Launch Template",
        identity=made_up("lt"),
        max_name=125,
        lower=False,
        outputs={
            **tagged(),
            "arn": arn("ec2", "launch-template/{identity}"),
            "latestVersion": _latest,
            "defaultVersion": _default,
            "namePrefix": always(""),
        },
        filled={
            "metadataOptions": {
                "httpEndpoint": always("enabled"),
                "httpTokens": always("optional"),
                "httpPutResponseHopLimit": always(1),
                "httpProtocolIpv6": always(""),
                "instanceMetadataTags": always(""),
            },
        },
        force_new=fields("name", "namePrefix", "region"),
        anew=fields("defaultVersion", "latestVersion", "tagsAll"),
        plan=(_hops,),
        made=_keep_version,
        changed=_keep_version,
    ),
    Kind(
        token="aws:autoscaling/tag:Tag",
        title="Tag",
        identity=_tag_identity,
        named="",
        autonamed=False,
        outputs=regional(),
        force_new=fields("autoscalingGroupName", "region", "tag.key"),
        checks=(_group_exists,),
        adopts=True,
    ),
)
