"""LiteLLM's proxy, as the nearest Pulumi project deploys it, for comparison.

Installed from PyPI into an environment of its own in the toolchain's cache, at one version. Its virtual keys live in
PostgreSQL behind Prisma, whose engine is a program that must be downloaded from elsewhere than a package index; in its
place stands LiteLLM's own hook for other keys (`custom_auth`), which looks a key up in a table in memory, so
this is kinder to it than its database. The limit of tokens per minute is LiteLLM's own and counts in Redis, as several
proxies need it. Logging of requests, telemetry and spend tracking are off.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import yaml

from benchmarks import backend
from rehearsal.cluster import ports
from rehearsal.paths import Paths
from rehearsal.processes import Processes
from rehearsal.toolchain import packages
from rehearsal.toolchain.store import Store, say

VERSION = "1.106.2"
ENTRY = f"benchmarks/litellm-{VERSION}-python{sys.version_info.major}.{sys.version_info.minor}"
PORT, REDIS_PORT = 4000, 6379
START_SECONDS = 120.0
HOOK = """
import json, os
from litellm.proxy._types import UserAPIKeyAuth

with open(os.environ["BENCHMARK_KEYS"]) as file:
    TENANTS = json.load(file)


async def user_api_key_auth(request, api_key):
    tenant = TENANTS[api_key.removeprefix("Bearer ")]
    return UserAPIKeyAuth(api_key=api_key, user_id=tenant, team_id=tenant, tpm_limit={limit})
"""


def environment() -> Path:
    """The directory of the virtual environment; installs it at first, which takes a minute and 800 MB."""
    store = Store()
    if not store.has(ENTRY):
        with store.lock() as lock:
            if not store.has(ENTRY):
                say(f"installing LiteLLM {VERSION} for comparison (about a minute)")
                lock.add(ENTRY, _install)
    return store.path(ENTRY)


def _install(directory: Path) -> None:
    """A virtual environment that works wherever it is moved: its programs are started through its Python."""
    subprocess.run([sys.executable, "-m", "venv", str(directory)], check=True)
    pip = [
        str(directory / "bin" / "python"),
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
    ]
    subprocess.run([*pip, f"litellm[proxy]=={VERSION}"], check=True)


class Peer:
    """The proxy with one worker and its Redis, in front of one model server; a context manager.

    `tenants` has the tenant of each key, `model` the address of a model server without TLS. `limited` says whether
    tokens per minute are counted.
    """

    def __init__(self, root: Path, tenants: Mapping[str, str], model: str, limited: bool = True):
        self.paths = Paths(root)
        self._tenants, self._model, self._limited = dict(tenants), model, limited
        self._installed = environment()

    def __enter__(self) -> Self:
        self.paths.create()
        self.processes = Processes(self.paths)
        block, self._holder = ports.take_pod_block(self.paths.cluster / "pod-block")
        self.host, self._redis = f"127.{block}.1.1", f"127.{block}.0.1"
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.processes.stop_all()
        self._holder.close()

    @property
    def pids(self) -> list[int]:
        """Every process of it."""
        return [self.processes.pid(name) for name in self.processes.names()]

    def _start(self) -> None:
        work = self.paths.work
        redis = packages.locate(packages.PACKAGED["redis-server"])
        quiet = ["--save", "", "--appendonly", "no", "--set-proc-title", "no"]
        self.processes.start("redis", [redis, "--bind", self._redis, "--port", str(REDIS_PORT), *quiet])
        (work / "keys.json").write_text(json.dumps(self._tenants))
        (work / "hook.py").write_text(HOOK.format(limit=backend.UNLIMITED if self._limited else None))
        (work / "config.yaml").write_text(yaml.safe_dump(self._config()))
        python = self._installed / "bin" / "python"
        run = "from litellm.proxy.proxy_cli import run_server; run_server()"
        arguments = [
            "--config",
            work / "config.yaml",
            "--host",
            self.host,
            "--port",
            PORT,
            "--num_workers",
            1,
        ]
        self.processes.start(
            "litellm",
            [python, "-c", run, *map(str, arguments)],
            {
                "BENCHMARK_KEYS": str(work / "keys.json"),
                # Neither reads its price list from GitHub nor reports home.
                "LITELLM_LOCAL_MODEL_COST_MAP": "True",
                "LITELLM_TELEMETRY": "False",
                "LITELLM_LOG": "ERROR",
                "LITELLM_MODE": "PRODUCTION",
                "PYTHONDONTWRITEBYTECODE": "1",
            },
        )
        self._await()

    def _config(self) -> dict[str, Any]:
        served = {
            "model": f"hosted_vllm/{backend.MODEL}",
            "api_base": f"http://{self._model}:{backend.PLAIN_PORT}/v1",
            "api_key": "none",
        }
        cache = {
            "type": "redis",
            "host": self._redis,
            "port": REDIS_PORT,
            # For counters only: no answer is kept.
            "supported_call_types": [],
        }
        return {
            "model_list": [{"model_name": backend.MODEL, "litellm_params": served}],
            "general_settings": {
                "master_key": "sk-benchmark",
                "custom_auth": "hook.user_api_key_auth",
                "disable_spend_logs": True,
            },
            "litellm_settings": {
                "telemetry": False,
                "drop_params": True,
                **({"cache": True, "cache_params": cache} if self._limited else {}),
            },
        }

    def _await(self) -> None:
        url = f"http://{self.host}:{PORT}/health/liveliness"
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                with urllib.request.urlopen(url, timeout=5):
                    return
            except (urllib.error.URLError, OSError):
                self.processes.check("litellm")
            if time.monotonic() > deadline:
                raise TimeoutError(f"LiteLLM does not answer:\n{self.processes.tail('litellm')}")
            time.sleep(0.2)
