"""What models know of the gateway and of their namespace."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pulumi


@dataclass(frozen=True, kw_only=True)
class GatewayHandle:
    """A programmed gateway.

    `section` is the listener for models, `peers` where its traffic comes from (for network
    policies), `address` unknown until it is programmed. `istio` says whether Istio's own objects steer it.
    """

    name: str
    namespace: str
    section: str
    host: str | None
    peers: tuple[dict[str, Any], ...]
    istio: bool
    resource: pulumi.Resource
    address: pulumi.Output[str]
    url: pulumi.Output[str]


@dataclass(frozen=True, kw_only=True)
class NamespaceHandle:
    """A namespace for models: `secrets` hold download credentials, `pull_secrets` registry logins."""

    name: str
    resource: pulumi.Resource
    secrets: tuple[str, ...]
    pull_secrets: tuple[str, ...]
    ready: tuple[pulumi.Resource, ...]
