"""Where the gateway answers: what its status says, or what the user says in curl's own words."""

from __future__ import annotations

import base64
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.serving.manifests import certificate
from ops.errors import OpsError
from ops.kube import ApiError, Kube
from ops.state import State
from ops.verify import address
from ops.verify.client import PORTS, Client, Door
from stacks.config import Gateway

OPTIONS = "LLMP_VERIFY_OPTIONS"
"""Further --resolve, --connect-to and --ca options, for those who know where the gateway answers; JSON, a list."""
_STACK = "pulumi:pulumi:Stack"


@dataclass(frozen=True)
class Detour:
    """Connections to `host` and `port` (empty and 0: any) go to another address; a port of 0 stays as it is."""

    host: str
    port: int
    address: str
    to_port: int = 0

    def takes(self, host: str, port: int) -> bool:
        """Whether it is for that host and port."""
        return self.host in ("", "*", host) and self.port in (0, port)


def add_arguments(parser: ArgumentParser) -> None:
    """The flags that say where the gateway is, spelled and written as curl's."""
    parser.add_argument(
        "--resolve",
        action="append",
        type=_resolve,
        default=[],
        metavar="HOST:PORT:ADDRESS",
        help="connect to this address instead (default: the Gateway's own, from its status; repeatable)",
    )
    parser.add_argument(
        "--connect-to",
        action="append",
        type=_connect_to,
        default=[],
        metavar="HOST:PORT:HOST:PORT",
        help="connect to this address and port instead, of a forwarded port for example (repeatable)",
    )
    parser.add_argument(
        "--ca",
        type=Path,
        metavar="FILE",
        help="trust this authority (default: own-ca's, else this machine's)",
    )


def _resolve(text: str) -> Detour:
    parts = text.split(":", 2)
    if len(parts) != 3 or not parts[1].isdigit() or not parts[2]:
        raise ArgumentTypeError(f"{text!r} is not HOST:PORT:ADDRESS")
    return Detour(parts[0], int(parts[1]), parts[2].strip("[]"))


def _connect_to(text: str) -> Detour:
    parts = text.split(":")
    if len(parts) != 4 or not all(p.isdigit() or not p for p in (parts[1], parts[3])):
        raise ArgumentTypeError(f"{text!r} is not HOST:PORT:HOST:PORT")
    return Detour(parts[0], int(parts[1] or 0), parts[2], int(parts[3] or 0))


def find(
    gateway: Gateway, kube: Kube | None, state: State, arguments: Namespace, connections: int
) -> dict[str, Any]:
    """The clients of a bench: `client`, `plain`, `undoored` and `elsewhere`."""
    own = _address(gateway, kube, state)
    detours = (*arguments.connect_to, *arguments.resolve)
    scheme = "https" if gateway.encrypted else "http"
    found = _door(scheme, gateway, own, detours, _trust(gateway, kube, arguments.ca))
    if found is None:
        return {"undoored": "the Gateway has no address, and none was named"}
    plain = _door("http", gateway, own, detours, {}) if gateway.encrypted else None
    return {
        "client": Client(found, max(connections, 1)),
        "plain": Client(plain) if plain else None,
        "elsewhere": any(d.takes(found.host, PORTS[scheme]) for d in detours),
    }


def _door(
    scheme: str, gateway: Gateway, own: str | None, detours: Iterable[Detour], trust: dict[str, str]
) -> Door | None:
    host = gateway.host or own
    port = PORTS[scheme]
    detour = next((d for d in detours if d.takes(host or "", port)), None)
    where = detour.address if detour else own
    if where is None:
        return None
    number = (detour.to_port if detour else 0) or port
    return Door(scheme=scheme, host=host or where, address=where, port=number, **trust)


def _address(gateway: Gateway, kube: Kube | None, state: State) -> str | None:
    """The Gateway's address by its status, or as the stack's last `up` saw it."""
    if kube is not None:
        found = address.addresses(kube.get(*address.GATEWAY, gateway.name, gateway.namespace))
        if found:
            return found[0]
    outputs = next((r.outputs for r in state.resources if r.type == _STACK), {})
    value = outputs.get("gateway_address")
    return value if isinstance(value, str) and value else None


def _trust(gateway: Gateway, kube: Kube | None, ca: Path | None) -> dict[str, str]:
    """The authority to trust: the one that is named, or the stack's own; none for this machine's."""
    if ca is not None:
        if not ca.is_file():
            raise OpsError(f"{ca} does not exist: --ca names a file with certificates in PEM")
        return {"ca_file": str(ca)}
    if kube is None or gateway.tls is None or gateway.tls.issuer != certificate.OWN_CA:
        return {}
    try:
        secret = kube.get("v1", "Secret", certificate.NAME, gateway.namespace) or {}
    except ApiError:
        return {}
    data = (secret.get("data") or {}).get("ca.crt")
    return {"ca_data": base64.b64decode(data).decode()} if data else {}
