"""Stands for the `ray` command on the hosts of a group: a head that knows who has joined, and hosts that join it.

What it is asked for is what our preset asks for; other flags are refused, as Ray does. A host joins once it knows its
place in the slice (rehearsal/model_server/slices.py), and its command ends badly when the head is gone. The head
ends with the program that follows its start in the leader's container, as a container's processes do.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

from rehearsal.model_server.slices import BadSlice, place

START_SECONDS = 10.0
Node = dict[str, Any]


class Head:
    """Knows the hosts that are connected."""

    def __init__(self, own: Node):
        self.nodes: list[Node] = [own]
        self._watchers: set[asyncio.StreamWriter] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection: a look at the hosts, a watch on them, or a host that stays as long as it."""
        try:
            said = json.loads(await reader.readline() or "{}")
            if "look" in said:
                self._tell(writer)
            elif "watch" in said:
                await self._watched(reader, writer)
            elif "join" in said:
                await self._joined(said["join"], reader)
        except (ConnectionError, ValueError):
            pass
        finally:
            writer.close()

    async def _watched(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._watchers.add(writer)
        self._tell(writer)
        try:
            await reader.read()
        finally:
            self._watchers.discard(writer)

    async def _joined(self, node: Node, reader: asyncio.StreamReader) -> None:
        if any(known["place"] == node["place"] for known in self.nodes):
            return
        self.nodes.append(node)
        self._tell_all()
        try:
            await reader.read()
        finally:
            self.nodes.remove(node)
            self._tell_all()

    def _tell_all(self) -> None:
        for writer in self._watchers:
            self._tell(writer)

    def _tell(self, writer: asyncio.StreamWriter) -> None:
        writer.write((json.dumps([{"Alive": True, **node} for node in self.nodes]) + "\n").encode())


async def _head(address: str, port: int, own: Node, container: int) -> None:
    """Serve until the process `container` has ended."""
    ended = asyncio.Event()
    watched = os.pidfd_open(container)
    asyncio.get_running_loop().add_reader(watched, ended.set)
    server = await asyncio.start_server(Head(own).serve, address, port)
    print("Ray runtime started.", flush=True)
    await ended.wait()
    server.close()


async def watch(address: str, changed: Callable[[list[Node]], None]) -> None:
    """Call `changed` with the hosts, now and whenever they change; returns when the head is gone."""
    host, _, port = address.rpartition(":")
    with contextlib.suppress(OSError):
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b'{"watch": true}\n')
        while line := await reader.readline():
            changed(json.loads(line))
        writer.close()


async def _join(address: str, own: Node) -> int:
    """Be a host of the group until the head is gone."""
    host, _, port = address.rpartition(":")
    try:
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write((json.dumps({"join": own}) + "\n").encode())
        print("Ray runtime started.", flush=True)
        await reader.read()
    except OSError as error:
        print(f"cannot reach the head at {address}: {error}", file=sys.stderr)
    print("Some Ray subprocesses exited unexpectedly", file=sys.stderr, flush=True)
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ray", allow_abbrev=False)
    start = parser.add_subparsers(dest="command", required=True).add_parser("start", allow_abbrev=False)
    where = start.add_mutually_exclusive_group(required=True)
    where.add_argument("--head", action="store_true")
    where.add_argument("--address")
    start.add_argument("--port", type=int, default=6379)
    start.add_argument("--block", action="store_true")
    start.add_argument("--node-ip-address", required=True)
    start.add_argument("--resources", type=json.loads, default={})
    for flag in ("node-manager-port", "object-manager-port", "object-store-memory", "num-cpus"):
        start.add_argument(f"--{flag}", type=int)
    start.add_argument("--worker-port-list")
    start.add_argument("--include-dashboard", choices=("true", "false"))
    return parser


def _start_head(options: argparse.Namespace, own: Node) -> int:
    """Leave a head behind, and return once it serves."""
    arguments = [options.node_ip_address, str(options.port), json.dumps(own), str(os.getppid())]
    code = "import sys; from rehearsal.model_server.ray import serve; serve(*sys.argv[1:])"
    left = subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE)
    assert left.stdout is not None
    said = left.stdout.readline().decode()
    print(said.strip() or "the head did not start", flush=True)
    return 0 if said else 1


def serve(address: str, port: str, own: str, container: str) -> None:
    """The head's own process."""
    asyncio.run(_head(address, int(port), json.loads(own), int(container)))


def main(argv: Sequence[str]) -> int:
    """Run the command; returns its exit status."""
    options = _parser().parse_args(argv)
    try:
        own = {"place": place(os.environ), "Resources": options.resources}
    except BadSlice as error:
        print(error, file=sys.stderr, flush=True)
        return 1
    if options.head:
        return _start_head(options, own)
    return asyncio.run(_join(options.address, own))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
