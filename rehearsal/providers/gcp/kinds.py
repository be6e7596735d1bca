"""The table of Google's resource types: what a row can say beside the rest, and all rows."""

from __future__ import annotations

from dataclasses import dataclass

from rehearsal.providers.cloud import kinds


@dataclass(frozen=True, kw_only=True)
class Kind(kinds.Kind):
    """One resource type; `api` is the service that must be enabled, "" where none need be."""

    api: str


def table() -> dict[str, Kind]:
    """All types by token."""
    from rehearsal.providers.gcp import certificates, containers, identity, network, storage

    rows = (*network.KINDS, *identity.KINDS, *containers.KINDS, *storage.KINDS, *certificates.KINDS)
    return {row.token: row for row in rows}
