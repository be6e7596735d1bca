"""What `vllm serve` does before it answers: loads weights, sizes its cache, compiles; in the words of its log.

How long each takes, and whether it ends, is read from the rehearsal's faults (rehearsal/node/faults.py) at every look.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from rehearsal.model_server.settings import Settings
from rehearsal.node.faults import Faults, Stage
from rehearsal.storage_initializer import weights

TICK_SECONDS = 0.1
TPU = "google.com/tpu"
# A file beside programs that are all there.
COMPILED = "compiled"
# What it says when it begins to compile, and when that is done, by the accelerator's resource.
_COMPILING: Mapping[str, tuple[str, str]] = {
    TPU: (
        "Compiling the model with different input shapes.",
        "Compiled the model with different input shapes in {:.2f} [secs].",
    ),
    "": ("Capturing CUDA graphs (decode, FULL)", "Graph capturing finished in {:.0f} secs, took 0.21 GiB"),
}

Look = Callable[[str], Stage]
"""How a stage, by name, goes as things are now."""


class Ended(Exception):
    """It was asked to end before it served."""


def look(environment: Mapping[str, str]) -> Look:
    """What the node tells this server; without a node all goes well and at once."""
    file, pod = environment.get("REHEARSAL_STAGES"), environment.get("REHEARSAL_POD", "")
    return (lambda name: Faults(Path(file)).stage(pod, name)) if file else lambda _: Stage()


def place(environment: Mapping[str, str]) -> tuple[str, Path | None]:
    """What this server runs on, and where it keeps what it compiles for it, if anywhere."""
    kept = environment.get("VLLM_XLA_CACHE_PATH")
    return environment.get("REHEARSAL_ACCELERATOR", ""), Path(kept) if kept else None


@dataclass(frozen=True)
class StartUp:
    """The way of one server to its first answer; `stop` is set when it is asked to end.

    `programs` is where it keeps what it compiles (VLLM_XLA_CACHE_PATH), for the next start.
    """

    settings: Settings
    stop: asyncio.Event
    look: Look
    accelerator: str = ""
    programs: Path | None = None

    async def run(self) -> None:
        """Return when it may listen. Raises Ended; where a stage fails, the process ends as vLLM's would."""
        shards, tokens = (
            "Loading safetensors checkpoint shards:",
            self.settings.blocks * self.settings.block_size,
        )
        self._look_for_weights()
        _say(f"{shards}   0% Completed")
        took = await self._through("load", self.settings.load_seconds)
        _say(f"{shards} 100% Completed ({self.settings.names[0]})")
        _say(f"Loading weights took {took:.2f} seconds")
        _say(f"GPU KV cache size: {tokens:,} tokens")
        begin, done = _COMPILING.get(self.accelerator, _COMPILING[""])
        _say(begin)
        _say(done.format(await self._compile()))

    def _look_for_weights(self) -> None:
        """On a claim, which is a link here, there must be some; what was downloaded into the pod is not there to see."""
        place = self.settings.model
        if place.is_symlink() and not weights.are_in(place, self.settings.load_format):
            _say(f"RuntimeError: Cannot find any model weights with `{place}`")
            sys.exit(1)

    async def _compile(self) -> float:
        kept = self.programs / COMPILED if self.programs else None
        if kept and kept.exists():
            return 0.0
        took = await self._through("compile", 0.0)
        if kept:
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_text(self.settings.names[0])
        return took

    async def _through(self, name: str, otherwise: float) -> float:
        """Spend a stage's time; returns how long it was."""
        began = time.monotonic()
        while not (stage := self.look(name)).over(elapsed := time.monotonic() - began, otherwise):
            await self._pause()
        if stage.failure is not None:
            _fail(stage)
        return elapsed

    async def _pause(self) -> None:
        try:
            await asyncio.wait_for(self.stop.wait(), TICK_SECONDS)
        except TimeoutError:
            return
        raise Ended


def _fail(stage: Stage) -> None:
    if stage.out_of_memory:
        # As the kernel does to a container that exceeds its limit.
        os.kill(os.getpid(), signal.SIGKILL)
    _say(f"RuntimeError: Engine core initialization failed. {stage.failure}")
    sys.exit(1)


def _say(line: str) -> None:
    print(line, flush=True)
