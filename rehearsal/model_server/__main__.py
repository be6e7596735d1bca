"""Stands for the `vllm` command in a serving pod."""

from __future__ import annotations

import asyncio
import os
import signal
import ssl
import sys

from aiohttp import web

from rehearsal.model_server.api import Api
from rehearsal.model_server.engine import Engine
from rehearsal.model_server.group import Group
from rehearsal.model_server.settings import Settings, parse
from rehearsal.model_server.startup import Ended, StartUp, look, place


async def serve(settings: Settings) -> int:
    """Load for as long as configured, then serve until SIGTERM; returns the exit status."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    group = Group.of(os.environ, settings.tensor_parallel)
    if group is not None:
        await group.form()
    try:
        await StartUp(settings, stop, look(os.environ), *place(os.environ)).run()
    except Ended:
        return 0
    context = None
    if settings.certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(settings.certificate, settings.key)
    # Asked to end, it listens no more and finishes what runs, for as long as it was told to; 0 would mean for ever.
    patience = max(settings.shutdown_seconds, 0.001)
    runner = web.AppRunner(Api(Engine(settings)).application(), access_log=None, shutdown_timeout=patience)
    await runner.setup()
    await web.TCPSite(runner, settings.address, settings.port, ssl_context=context).start()
    print(f"Starting vLLM API server on {settings.address}:{settings.port}", flush=True)
    if group is not None and await _first(group.broken, stop) is group.broken:
        print("EngineDeadError: a host of the group is gone", file=sys.stderr, flush=True)
        return 1
    await stop.wait()
    await runner.cleanup()
    return 0


async def _first(*events: asyncio.Event) -> asyncio.Event:
    """Whichever event is set first."""
    waits = {asyncio.create_task(event.wait()): event for event in events}
    done, rest = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for task in rest:
        task.cancel()
    return waits[done.pop()]


if __name__ == "__main__":
    sys.exit(asyncio.run(serve(parse(sys.argv[1:]))))
