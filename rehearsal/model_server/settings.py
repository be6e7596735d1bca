"""The part of `vllm serve`'s command line that stacks use; anything else is refused, as vLLM does."""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import dataclass
from pathlib import Path

# Flags that change nothing in a simulation, with whether they take a value.
ACCEPTED = {
    "--pipeline-parallel-size": True,
    "--data-parallel-size": True,
    "--gpu-memory-utilization": True,
    "--dtype": True,
    "--quantization": True,
    "--tokenizer-mode": True,
    "--config-format": True,
    "--kv-cache-dtype": True,
    "--max-num-batched-tokens": True,
    "--disable-access-log-for-endpoints": True,
    "--kv-transfer-config": True,
    "--download-dir": True,
    "--seed": True,
    "--trust-remote-code": False,
    "--enforce-eager": False,
    "--enable-ssl-refresh": False,
    "--disable-uvicorn-access-log": False,
    "--enable-log-requests": False,
    "--enable-chunked-prefill": False,
}


@dataclass(frozen=True)
class Settings:
    """How the simulated server behaves; times in seconds, sizes in tokens and blocks."""

    address: str
    port: int
    names: tuple[str, ...]
    max_model_len: int
    max_num_seqs: int
    block_size: int
    blocks: int
    prefix_caching: bool
    force_usage: bool
    max_output: int | None
    certificate: str | None
    key: str | None
    shutdown_seconds: float
    load_seconds: float
    prefill_seconds: float
    decode_seconds: float
    faults: bool
    tensor_parallel: int = 1
    model: Path = Path()
    load_format: str = "auto"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="vllm", allow_abbrev=False)
    parser.add_argument(
        "--version", action="version", version=os.environ.get("REHEARSAL_VLLM_VERSION", "0.22.0")
    )
    serve = parser.add_subparsers(dest="command", required=True).add_parser("serve", allow_abbrev=False)
    serve.add_argument("model")
    serve.add_argument("--served-model-name", nargs="+")
    serve.add_argument("--host")
    serve.add_argument("--port", type=int, default=8000)
    serve.add_argument("--max-model-len", type=int, default=4096)
    serve.add_argument("--max-num-seqs", type=int, default=256)
    serve.add_argument("--block-size", type=int, default=16)
    serve.add_argument("--num-gpu-blocks-override", type=int)
    serve.add_argument("--enable-prefix-caching", action=argparse.BooleanOptionalAction, default=True)
    serve.add_argument("--override-generation-config", type=json.loads, default={})
    serve.add_argument("--enable-force-include-usage", action="store_true")
    # How long requests may go on after SIGTERM; 0, the default, ends them at once (vLLM 0.18).
    serve.add_argument("--shutdown-timeout", type=float, default=0.0)
    serve.add_argument("--tensor-parallel-size", type=int, default=1)
    serve.add_argument("--load-format", default="auto")
    serve.add_argument("--ssl-certfile")
    serve.add_argument("--ssl-keyfile")
    for flag, takes_value in ACCEPTED.items():
        serve.add_argument(flag, action="store" if takes_value else "store_true")
    return parser


def parse(argv: list[str]) -> Settings:
    """Read the command line; timings come from `REHEARSAL_*_SECONDS` in the environment, and `REHEARSAL_FAULTS`.

    Prefill and decode are per token. The defaults make a rehearsal quick; they
    say nothing about an accelerator.
    """
    options = _parser().parse_args(argv)
    blocks = options.num_gpu_blocks_override or max(options.max_model_len * 16 // options.block_size, 64)

    def seconds(name: str, default: float) -> float:
        return float(os.environ.get(f"REHEARSAL_{name}_SECONDS", default))

    return Settings(
        address=os.environ.get("REHEARSAL_ADDRESS") or options.host or "127.0.0.1",
        port=options.port,
        names=tuple(options.served_model_name or [options.model]),
        max_model_len=options.max_model_len,
        max_num_seqs=options.max_num_seqs,
        block_size=options.block_size,
        blocks=blocks,
        prefix_caching=options.enable_prefix_caching,
        max_output=options.override_generation_config.get("max_new_tokens"),
        force_usage=options.enable_force_include_usage,
        certificate=options.ssl_certfile,
        key=options.ssl_keyfile,
        shutdown_seconds=options.shutdown_timeout,
        load_seconds=seconds("LOAD", 0.5),
        prefill_seconds=seconds("PREFILL", 0.00002),
        decode_seconds=seconds("DECODE", 0.0005),
        faults=os.environ.get("REHEARSAL_FAULTS") == "1",
        tensor_parallel=options.tensor_parallel_size,
        model=Path(options.model),
        load_format=options.load_format,
    )
