"""The table of Amazon's resource types."""

from __future__ import annotations

from rehearsal.providers.cloud.kinds import Kind, Value
from rehearsal.providers.cloud.values import at


def table() -> dict[str, Kind]:
    """All types by token."""
    from rehearsal.providers.aws import eks, identity, machines, network, node_groups, storage

    rows = (
        *network.KINDS, *identity.KINDS, *eks.KINDS, *machines.KINDS, *node_groups.KINDS, *storage.KINDS,
    )  # fmt: skip
    return {row.token: row for row in rows}


def arn(service: str, rest: str) -> Value:
    """The ARN of what a template such as `vpc/{identity}` names."""
    return at(f"arn:aws:{service}:{{region}}:{{account}}:{rest}")


def made_up(prefix: str) -> Value:
    """An id of EC2's: a prefix and 17 digits."""
    return lambda call: call.fresh(prefix)


def regional() -> dict[str, Value]:
    """The output that everything in a region has."""
    return {"region": lambda call: call.region}


def tagged() -> dict[str, Value]:
    """The outputs of what is in a region and has tags."""
    return {**regional(), "tagsAll": lambda call: call.tags}
