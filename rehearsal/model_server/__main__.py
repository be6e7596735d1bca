"""Stands for the `vllm` command in a serving pod."""

from __future__ import annotations

import asyncio
import signal
import ssl
import sys

from aiohttp import web

from rehearsal.model_server.api import Api
from rehearsal.model_server.engine import Engine
from rehearsal.model_server.settings import Settings, parse


async def serve(settings: Settings) -> None:
    """Load for as long as configured, then serve until SIGTERM."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    print(f"Loading safetensors checkpoint shards: 100% ({settings.names[0]})", flush=True)
    await asyncio.sleep(settings.load_seconds)
    print(f"GPU KV cache size: {settings.blocks * settings.block_size:,} tokens", flush=True)
    context = None
    if settings.certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(settings.certificate, settings.key)
    runner = web.AppRunner(Api(Engine(settings)).application(), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, settings.address, settings.port, ssl_context=context).start()
    print(f"Starting vLLM API server on {settings.address}:{settings.port}", flush=True)
    await stop.wait()
    await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(serve(parse(sys.argv[1:])))
