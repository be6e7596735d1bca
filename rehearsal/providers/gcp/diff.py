"""How Google's provider writes values: which lists are sets, and what names the same thing."""

from __future__ import annotations

from rehearsal.providers.cloud.diff import Dialect
from rehearsal.providers.gcp.call import path as without_api

# Sets: their order means nothing. Names of fields, wherever they are.
_SETS = frozenset(
    (
        "oauthScopes", "enableComponents", "nodeLocations", "tags", "sourceRanges", "destinationRanges",
        "sourceTags", "targetTags", "sourceServiceAccounts", "targetServiceAccounts", "natIps", "domains",
        "dnsAuthorizations", "cidrBlocks", "allows", "denies", "certificates",
    )
)  # fmt: skip
# Fields of these names may hold an id, a self link or a name of the same thing.
_LINKS = frozenset(("network", "subnetwork", "cluster", "router", "map"))


def _same(field: str, old: str, new: str) -> bool:
    if field not in _LINKS:
        return False
    short, long = sorted((without_api(old), without_api(new)), key=len)
    return short == long or ("/" not in short and long.endswith(f"/{short}"))


DIALECT = Dialect(_SETS, _same)
