"""The data plane alone: real Envoys, ratelimit and its store, simulated model servers; no cluster.

Started in a second from the objects of a stack, for tests and benchmarks of what a request meets. Two
things that a whole rehearsal has are missing: the endpoint picker, which needs an API server (a model's requests go to
its Service instead), and everything that would keep these programs running.
"""

from __future__ import annotations

import ctypes
import json
import os
import secrets
import shlex
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from components.core import labels, naming
from components.serving.manifests import token_limits
from components.serving.manifests.gateway import MODEL_PORT
from rehearsal import toolchain
from rehearsal.cluster import certificates, ports
from rehearsal.gateway import files, translate
from rehearsal.gateway.objects import Manifest, key
from rehearsal.gateway.proxy import arguments
from rehearsal.paths import CHECKOUT, Paths
from rehearsal.processes import Processes
from rehearsal.stand_ins.mirror import Shelf
from rehearsal.toolchain import packages

FLUSH_MILLISECONDS = 100
START_SECONDS = 20.0
POLL_SECONDS = 0.02
HTTP = translate.moved(80)


# An Envoy takes one instance of inotify for each file that it watches, and ends where there is none.
WATCHES_PER_ENVOY = 10


class NotStarted(Exception):
    """A program did not answer in time; the message holds the end of its log."""


class DataPlane:
    """What one Gateway's requests meet, in a directory of its own; a context manager.

    `objects` are those of a stack; `gateways` is the number of Envoys, each with `workers` threads.
    `engine` are further environment variables of the model servers, `engine_args` further flags.
    """

    def __init__(
        self,
        root: Path,
        objects: Iterable[Manifest],
        gateways: int = 1,
        workers: int = 2,
        engine: Mapping[str, str] | None = None,
        engine_args: Sequence[str] = (),
    ):
        self.paths = Paths(root)
        self.shelf = Shelf(objects)
        self.workers, self.count = workers, gateways
        self._engine, self._engine_args = dict(engine or {}), tuple(engine_args)
        self._password = secrets.token_hex(16)
        self._written: dict[str, dict[str, Any]] = {}
        self._pods: dict[str, list[str]] = {}
        self.processes: Processes

    # -- life ----------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self.paths.create()
        self.processes = Processes(self.paths)
        self._block, self._holder = ports.take_pod_block(self.paths.cluster / "pod-block")
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End everything."""
        self.processes.stop_all()
        self._holder.close()

    def _start(self) -> None:
        require_watches(WATCHES_PER_ENVOY * self.count)
        self._gateway = self.shelf.of("Gateway")[0]
        self.proxies = [f"127.{self._block}.1.{i + 1}" for i in range(self.count)]
        for item in self.shelf.of("LLMInferenceService"):
            self._start_model(item)
        if self.limited:
            self.start_store()
            self.start_limits()
        for index, address in enumerate(self.proxies):
            self.start_proxy(index, address)
        for address in self.proxies:
            self._await(self._answers(f"http://{address}:{translate.HEALTH_PORT}/healthz/ready"), "envoy-0")

    # -- its parts -----------------------------------------------------------------------------------------------

    @property
    def limited(self) -> bool:
        """Whether the stack counts anything."""
        namespace = self._gateway["metadata"]["namespace"]
        return self.shelf.get("ConfigMap", token_limits.CONFIG, namespace) is not None

    @property
    def urls(self) -> list[str]:
        """The address of each Envoy."""
        return [f"http://{address}:{HTTP}" for address in self.proxies]

    @property
    def url(self) -> str:
        """The address of the first Envoy."""
        return self.urls[0]

    @property
    def store(self) -> tuple[str, int, str]:
        """The store's host, port and password."""
        return self._address("store"), token_limits.STORE_PORT, self._password

    @property
    def limits_page(self) -> str:
        """The address of the counting service's metrics."""
        return f"http://{self._address('limits')}:{token_limits.METRICS_PORT}/metrics"

    def pid(self, name: str) -> int:
        """The process id of a part: store, limits, envoy-<n>, <model>-<replica>."""
        return self.processes.pid(name)

    def start_store(self) -> None:
        """Start the store; empty, if it ran before."""
        file = self.paths.work / "valkey.conf"
        file.write_text(token_limits.store_settings(self._password))
        command = [packages.locate(packages.PACKAGED["redis-server"]), file, "--bind", self._address("store")]
        # Its title would be written over the environment by which our processes are known.
        command += ["--set-proc-title", "no"]
        self.processes.start("store", command)
        self._await(self._listens(self._address("store"), token_limits.STORE_PORT), "store")

    def start_limits(self) -> None:
        """Start the counting service with the stack's budgets."""
        namespace = self._gateway["metadata"]["namespace"]
        self.write_budgets()
        deployment = self.shelf.get("Deployment", token_limits.NAME, namespace)
        assert deployment is not None
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        address = self._address("limits")
        env = {e["name"]: e["value"] for e in container["env"] if "value" in e}
        env |= {
            "REDIS_URL": f"{self._address('store')}:{token_limits.STORE_PORT}",
            "REDIS_AUTH": self._password,
            "RUNTIME_ROOT": str(self.paths.work),
            # Metrics appear after a second instead of five.
            "GOSTATS_FLUSH_INTERVAL_SECONDS": "1",
            **dict.fromkeys(("HOST", "GRPC_HOST", "DEBUG_HOST"), address),
            "PROMETHEUS_ADDR": f"{address}:{token_limits.METRICS_PORT}",
        }
        self.processes.start("limits", [toolchain.ensure(only=("ratelimit",)).binary("ratelimit")], env)
        self._await(self._answers(f"http://{address}:{token_limits.HTTP_PORT}/healthcheck"), "limits")

    def write_budgets(self) -> None:
        """Bring the stack's budgets to the counting service, as a mounted ConfigMap would."""
        namespace = self._gateway["metadata"]["namespace"]
        config = self.shelf.get("ConfigMap", token_limits.CONFIG, namespace)
        assert config is not None
        directory = self.paths.work / token_limits.NAME / "config"
        directory.mkdir(parents=True, exist_ok=True)
        new = directory / ".new"
        new.write_text(config["data"]["config.yaml"])
        new.rename(directory / "config.yaml")

    def start_proxy(self, index: int, address: str) -> None:
        """Start one Envoy."""
        self.program()
        envoy = packages.locate(packages.PACKAGED["envoy"])
        file = self._directory(address) / translate.BOOTSTRAP
        self.processes.start(f"envoy-{index}", [envoy, *arguments(file, self.workers, FLUSH_MILLISECONDS)])

    def _start_model(self, item: Manifest) -> None:
        namespace, name = key(item)
        (engine,) = item["spec"]["template"]["containers"]
        args = [word for argument in engine["args"] for word in shlex.split(argument)]
        served = item["spec"]["model"]["name"]
        names = ["--served-model-name", served, f"publishers/{namespace}/models/{served}"]
        certificate = self._certificate(name)
        for replica in range(max(item["spec"]["replicas"], 1)):
            address = self._pod(name)
            env = {"REHEARSAL_ADDRESS": address, "PYTHONPATH": str(CHECKOUT), "REHEARSAL_LOAD_SECONDS": "0"}
            command = [sys.executable, "-m", "rehearsal.model_server", "serve", item["spec"]["model"]["uri"]]
            self.processes.start(
                f"{name}-{replica}",
                [*command, *names, *args, *self._engine_args, *certificate],
                env | self._engine,
            )
        self.shelf.put(workload_service(name, namespace))
        for address in self._pods[name]:
            self._await(self._listens(address, MODEL_PORT), f"{name}-0")

    def _certificate(self, model: str) -> list[str]:
        """Flags for a certificate as KServe makes one: nobody can verify it."""
        pair = certificates.issue(certificates.authority("kserve"), model)
        contents = {"--ssl-certfile": pair.certificate, "--ssl-keyfile": pair.key}
        flags = []
        for flag, content in contents.items():
            file = self.paths.work / f"{model}{flag}.pem"
            file.touch(mode=0o600)
            file.write_bytes(content)
            flags.append(f"{flag}={file}")
        return flags

    # -- configuration -------------------------------------------------------------------------------------------

    def apply(self, items: Iterable[Manifest]) -> None:
        """Change objects, as an `up` would, and tell everybody."""
        for item in items:
            self.shelf.put(item)
        if self.limited:
            self.write_budgets()
        self.program()

    def program(self) -> None:
        """Write each Envoy's configuration where it differs."""
        for index, address in enumerate(self.proxies):
            directory = self._directory(address)
            pod = {"kind": "Pod", "metadata": {**self._gateway["metadata"], "name": f"gateway-{index}"}}
            pod["metadata"]["labels"] = {labels.GATEWAY_NAME: self._gateway["metadata"]["name"]}
            proxy = translate.Proxy(self._gateway, pod, address, directory)
            config = translate.translate(self.shelf, proxy, self.endpoints, lambda *_: None)
            files.write(directory, config.files, self._written.get(address, {}))
            self._written[address] = config.files

    def endpoints(
        self, _namespace: str, selector: Mapping[str, str], port: int | str
    ) -> list[tuple[str, int]]:
        name = selector.get(labels.APP_NAME, "")
        addresses = {
            token_limits.NAME: [self._address("limits")],
            token_limits.STORE: [self._address("store")],
        }
        return [(address, int(port)) for address in addresses.get(name, self._pods.get(name, []))]

    def _directory(self, address: str) -> Path:
        return self.paths.root / "gateway" / address

    def _pod(self, name: str) -> str:
        taken = sum(map(len, self._pods.values()))
        address = f"127.{self._block}.2.{taken + 1}"
        self._pods.setdefault(name, []).append(address)
        return address

    def pods(self, model: str) -> list[str]:
        """The addresses of a model's replicas."""
        return list(self._pods[model])

    def replace_pods(self, model: str, addresses: Sequence[str]) -> None:
        """Say where a model's replicas are; nothing is started or ended."""
        self._pods[model] = list(addresses)
        self.program()

    def _address(self, role: str) -> str:
        return f"127.{self._block}.0.{('store', 'limits').index(role) + 1}"

    # -- waiting -------------------------------------------------------------------------------------------------

    def _await(self, ready: Callable[[], bool], name: str) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not ready():
            self.processes.check(name)
            if time.monotonic() > deadline:
                raise NotStarted(f"{name} does not answer. The end of its log:\n{self.processes.tail(name)}")
            time.sleep(POLL_SECONDS)

    @staticmethod
    def _listens(address: str, port: int) -> Callable[[], bool]:
        return lambda: not ports.is_free(port, address)

    @staticmethod
    def _answers(url: str) -> Callable[[], bool]:
        def check() -> bool:
            try:
                with urllib.request.urlopen(url, timeout=1) as answer:
                    return bool(answer.status == 200)
            except (urllib.error.URLError, OSError):
                return False

        return check

    def stats(self, index: int = 0, pattern: str = "") -> dict[str, float]:
        """The counters and gauges of one Envoy, or those whose name has a match of the pattern."""
        address = f"http://{self.proxies[index]}:{translate.ADMIN_PORT}/stats"
        query = urllib.parse.urlencode({"format": "json", "filter": pattern})
        with urllib.request.urlopen(f"{address}?{query}", timeout=10) as answer:
            found = json.load(answer)["stats"]
        return {s["name"]: s["value"] for s in found if "value" in s}

    def log(self, index: int = 0) -> list[dict[str, Any]]:
        """The access log of one Envoy; its own messages are left out."""
        lines = (self.paths.logs / f"envoy-{index}.log").read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]


def _watch() -> int:
    """A new instance of inotify, or a negative number."""
    return int(ctypes.CDLL(None).inotify_init1(os.O_CLOEXEC))


def require_watches(count: int, watch: Callable[[], int] = _watch) -> None:
    """Raise NotStarted unless so many files can be watched; all programs of a user share a limit."""
    taken = [watch() for _ in range(count)]
    for descriptor in taken:
        if descriptor >= 0:
            os.close(descriptor)
    if min(taken) < 0:
        raise NotStarted(
            f"{count} more files cannot be watched: this user's limit is reached. End other rehearsals, "
            "or raise it: sysctl fs.inotify.max_user_instances=1024"
        )


def without_picker(objects: Iterable[Manifest]) -> list[Manifest]:
    """The objects with every route to an InferencePool leading to the model's Service instead."""

    def direct(backend: Mapping[str, Any], model: str) -> dict[str, Any]:
        if backend["kind"] != "InferencePool":
            return dict(backend)
        return {"group": "", "kind": "Service", "name": naming.workload_service(model), "port": MODEL_PORT}

    return [_with_backends(item, direct) if item["kind"] == "HTTPRoute" else item for item in objects]


def _with_backends(route: Manifest, direct: Callable[[Mapping[str, Any], str], dict[str, Any]]) -> Manifest:
    model = (route["metadata"].get("labels") or {}).get(labels.MODEL, "")
    rules = [
        {**rule, "backendRefs": [direct(b, model) for b in rule["backendRefs"]]}
        if "backendRefs" in rule
        else rule
        for rule in route["spec"]["rules"]
    ]
    return {**route, "spec": {**route["spec"], "rules": rules}}


def workload_service(model: str, namespace: str) -> Manifest:
    """The Service that KServe makes, as far as a gateway reads it."""
    port = {"name": "https", "port": MODEL_PORT, "targetPort": MODEL_PORT, "appProtocol": "https"}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": naming.workload_service(model), "namespace": namespace},
        "spec": {"selector": labels.model_workload(model), "ports": [port]},
    }
