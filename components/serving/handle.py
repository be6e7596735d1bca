"""What models know of the gateway and of their namespace."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pulumi


@dataclass(frozen=True, kw_only=True)
class GatewayHandle:
    """A programmed gateway.

    `section` is the listener for models, `peers` where its traffic comes from and `probers` who asks for the
    health of its backends (for network policies), `address` unknown until it is programmed. `google`
    says whether it is Google's own, else Istio's objects steer it.
    """

    name: str
    namespace: str
    section: str
    host: str | None
    peers: tuple[dict[str, Any], ...]
    google: bool
    resource: pulumi.Resource
    address: pulumi.Output[str]
    url: pulumi.Output[str]
    probers: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True, kw_only=True)
class NamespaceHandle:
    """A namespace for models: `secrets` hold credentials of the hub, `pull_secrets` registry logins.

    Pods wait for what is `ready`; `shared` is what KServe merges with the services here.
    """

    name: str
    resource: pulumi.Resource
    secrets: tuple[str, ...]
    pull_secrets: tuple[str, ...]
    ready: tuple[pulumi.Resource, ...]
    shared: tuple[pulumi.Resource, ...] = ()
