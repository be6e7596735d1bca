"""What containers of ours have in common. Pure."""

from __future__ import annotations

from typing import Any


def confined() -> dict[str, Any]:
    """The security context of a container that writes to its volumes alone and gains no right; each its own copy."""
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
