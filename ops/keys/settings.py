"""What the stack's configuration says about keys and the gateway, read through the Pulumi CLI.

Only the two sections are read: a key can be revoked although something else in
the configuration is being changed and not right yet.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from components.serving.manifests.access import audience
from ops.errors import OpsError
from ops.pulumi import Pulumi
from stacks.config import Gateway
from stacks.config.access import Access
from stacks.config.load import inspect


@dataclass(frozen=True)
class Settings:
    """The stack's name in its project, its gateway, and its `access` section if it has one."""

    stack: str
    gateway: Gateway
    access: Access | None

    @property
    def audience(self) -> str:
        """Whom a key is for: this stack's gateway and no other."""
        return audience(self.stack, self.gateway.namespace, self.gateway.name)

    @property
    def signed(self) -> Access:
        """The `access` section; :class:`OpsError` where no keys are signed for this stack."""
        if self.access is None:
            raise OpsError(
                f"stack {self.stack} asks for no keys: add tiers and tenants under `llm-platform:access` first "
                "(docs/configuration.md)"
            )
        if self.access.keys != "signed":
            raise OpsError(
                f"stack {self.stack} uses {self.access.keys} keys (`llm-platform:access.keys`), which are not "
                "signed: these commands are for `keys: signed`"
            )
        return self.access


def read(stack: Pulumi) -> Settings:
    """The settings of a stack; :class:`OpsError` with every problem of the two sections."""
    raw = values(stack)
    try:
        access = Access.model_validate(raw["access"]) if "access" in raw else None
        gateway = Gateway.model_validate(raw.get("gateway", {}))
    except ValidationError as error:
        raise OpsError(_refusal(raw, error)) from None
    return Settings(stack.stack.rsplit("/", 1)[-1], gateway, access)


def values(stack: Pulumi) -> dict[str, Any]:
    """The stack's plain configuration by its keys without the project's prefix, as `load_config` takes it."""
    prefix = f"{stack.project}:"
    found = json.loads(stack.call("config", "--stack", stack.stack, "--json") or "{}")
    return {
        name.removeprefix(prefix): _parsed(entry["value"])
        for name, entry in found.items()
        if name.startswith(prefix) and not entry.get("secret") and "value" in entry
    }


def _parsed(value: str) -> Any:
    try:
        return json.loads(value)
    except ValueError:
        return value


def _refusal(raw: dict[str, Any], error: ValidationError) -> str:
    """The program's own words for what is wrong, which name the place and the fix."""
    _, problems = inspect(raw)
    ours = [p for p in problems if p.path.startswith(("llm-platform:access", "llm-platform:gateway"))]
    said = "\n".join(f"  - {problem}" for problem in sorted(ours)) or f"  - {error}"
    return f"the stack's configuration cannot be used; nothing was changed:\n{said}"
