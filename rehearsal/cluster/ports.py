"""Free ports and a free block of loopback addresses, chosen once and kept while they stay free."""

from __future__ import annotations

import json
import socket
from pathlib import Path

PORTS = ("etcd", "etcd-peer", "apiserver", "controller-manager", "scheduler")
# 127.N.0.0/16 holds the pods of one rehearsal; the block is taken by listening on its last address.
POD_BLOCKS = range(10, 250)
BLOCK_PORT = 65000


class NoFreePort(Exception):
    """The machine has no free port or loopback block left."""


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Whether a server could listen on `host:port` now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def free_ports(count: int) -> list[int]:
    """`count` different ports that were free on loopback when asked."""
    sockets = []
    try:
        for _ in range(count):
            listener = socket.socket()
            sockets.append(listener)
            listener.bind(("127.0.0.1", 0))
        return [s.getsockname()[1] for s in sockets]
    except OSError as error:
        raise NoFreePort(
            f"no free port on 127.0.0.1 ({error}). End programs that hold many connections, "
            "or widen net.ipv4.ip_local_port_range."
        ) from None
    finally:
        for s in sockets:
            s.close()


def assign(file: Path) -> dict[str, int]:
    """The control plane's ports: those of the last start when they are still free, else new ones."""
    try:
        ports = {name: int(json.loads(file.read_text())[name]) for name in PORTS}
    except (OSError, ValueError, KeyError, TypeError):
        ports = {}
    if not ports or not all(is_free(p) for p in ports.values()):
        ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
        file.write_text(json.dumps(ports))
    return ports


def take_pod_block(file: Path) -> tuple[int, socket.socket]:
    """The N of our 127.N.0.0/16 and the socket that holds it; the same N as last time when it is free."""
    try:
        last = [int(file.read_text())]
    except (OSError, ValueError):
        last = []
    for block in [*last, *POD_BLOCKS]:
        holder = socket.socket()
        try:
            holder.bind((f"127.{block}.255.254", BLOCK_PORT))
            holder.listen(1)
        except OSError:
            holder.close()
            continue
        file.write_text(str(block))
        return block, holder
    raise NoFreePort(f"all {len(POD_BLOCKS)} loopback blocks are taken: run `make down` in other checkouts")
