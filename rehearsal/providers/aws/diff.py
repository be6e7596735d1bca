"""How Amazon's provider writes values: which lists are sets, and which texts mean the same."""

from __future__ import annotations

import json
from typing import Any

from rehearsal.providers.cloud.diff import Dialect

# Sets: their order means nothing. Names of fields, wherever they are.
_SETS = frozenset(
    (
        "subnetIds", "securityGroupIds", "routeTableIds", "vpcSecurityGroupIds", "enabledClusterLogTypes",
        "publicAccessCidrs", "taints", "podIdentityAssociations", "kubernetesGroups", "namespaces", "resources",
        "ingress", "egress", "allowedAccountIds",
    )
)  # fmt: skip
# Documents: only what they say counts.
_JSON = frozenset(("assumeRolePolicy", "policy", "configurationValues"))


def _same(field: str, old: str, new: str) -> bool:
    return field in _JSON and _read(old) == _read(new)


def _read(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


DIALECT = Dialect(_SETS, _same)
