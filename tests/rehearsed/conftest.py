"""Whole stacks on embedded clusters: the real engine, control plane and controllers."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pytest
import urllib3
import yaml

from ops.kube import Kube, Manifest
from rehearsal.address import Address
from rehearsal.cloud.settings import Settings
from rehearsal.paths import CHECKOUT, Paths, stack_file
from rehearsal.progress import Progress
from rehearsal.rehearsal import Rehearsal

MODELS = "llm-platform:models"
UP_SECONDS = 600


@dataclass(frozen=True)
class Outcome:
    """One engine operation: its exit status, what it printed, and the steps it took by URN."""

    status: int
    output: str
    steps: dict[str, dict[str, Any]]

    def changed(self) -> dict[str, str]:
        """Resource names and operations of all steps that change something."""
        same = {"same", "refresh", "read"}
        return {urn.rsplit("::", 1)[1]: s["op"] for urn, s in self.steps.items() if s["op"] not in same}


class Stack:
    """A stack in a rehearsal of its own."""

    def __init__(self, directory: Path, name: str = "dev"):
        self.name = name
        self.rehearsal = Rehearsal(Paths(directory), Progress(directory.parent / "durations.json"))
        self.committed = yaml.safe_load(stack_file(name).read_text())["config"]
        self._overrides: dict[str, Any] = {}

    @property
    def paths(self) -> Paths:
        return self.rehearsal.paths

    @property
    def kube(self) -> Kube:
        return self.rehearsal.kube()

    def configure(self, key: str, change: Callable[[Any], Any]) -> None:
        """Change one config value from what is in force; laid over the committed stack file."""
        self._overrides[key] = change(json.loads(json.dumps(self.in_force(key))))
        self.paths.work.mkdir(parents=True, exist_ok=True)
        (self.paths.work / "overrides.yaml").write_text(yaml.safe_dump(self._overrides))

    def in_force(self, key: str) -> Any:
        """One config value as it is now; None where the stack leaves it out."""
        return self._overrides.get(key, self.committed.get(key))

    def add_nodes(self) -> None:
        """Give every accelerator pool one node more than the committed stack has."""

        def grow(cluster: dict[str, Any]) -> dict[str, Any]:
            pools = {k: {**p, "maxNodes": p["maxNodes"] + 1} for k, p in cluster["accelerators"].items()}
            return {**cluster, "accelerators": pools}

        self.configure("llm-platform:cluster", grow)

    def inject(self, faults: dict[str, Any]) -> None:
        """Put faults into force (rehearsal/node/faults.py)."""
        self.paths.cluster.mkdir(parents=True, exist_ok=True)
        self.paths.faults.write_text(yaml.safe_dump(faults))

    def reset(self) -> None:
        """Back to the committed stack file."""
        self._overrides = {}
        (self.paths.work / "overrides.yaml").unlink(missing_ok=True)

    def run(self, operation: str, *arguments: str) -> Outcome:
        """Run one engine operation to its end."""
        return self.finish(self.begin(operation, *arguments))

    def begin(self, operation: str, *arguments: str) -> subprocess.Popen[str]:
        """Start one engine operation with the configuration in force, on a running cluster."""
        self.rehearsal.start(self.name)
        return self.launch(operation, *arguments)

    def launch(self, operation: str, *arguments: str) -> subprocess.Popen[str]:
        """Start one engine operation on whatever runs or does not run."""
        self._events = self.paths.root / f"events-{time.monotonic_ns()}.jsonl"
        command = [
            sys.executable,
            "-m",
            "rehearsal.engine",
            operation,
            self.name,
            "--events",
            self._events,
            *arguments,
        ]
        self._output = self._events.with_suffix(".log")
        with self._output.open("w") as out:
            return subprocess.Popen(
                [str(c) for c in command],
                env=self.rehearsal.environment(),
                cwd=CHECKOUT,
                stdout=out,
                stderr=subprocess.STDOUT,
                text=True,
            )

    def finish(self, process: subprocess.Popen[str]) -> Outcome:
        """Wait for an operation and read what it did."""
        status = process.wait(timeout=UP_SECONDS)
        lines = self._events.read_text().splitlines() if self._events.exists() else []
        steps = {s["urn"]: s for s in map(json.loads, lines)}
        return Outcome(status, self._output.read_text(), steps)

    def kill_engine(self, process: subprocess.Popen[str]) -> None:
        """End the engine, its plugins and the program at once, as a machine that goes away."""
        for pid in processes_with(f"LLMP_REHEARSAL={self.paths.root}"):
            kill(pid)
        process.wait(timeout=30)

    def ops(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `python -m ops` against this stack."""
        command = [sys.executable, "-m", "ops", *arguments]
        return subprocess.run(
            command,
            env=self.rehearsal.environment(),
            cwd=self.paths.work,
            capture_output=True,
            text=True,
            check=False,
        )

    def exported(self) -> list[dict[str, Any]]:
        """The resources in the stack's state."""
        file = self.paths.state / ".pulumi" / "stacks" / "llm-platform" / f"{self.name}.json"
        state = json.loads(file.read_text())["checkpoint"]["latest"] or {}
        return state.get("resources") or []

    def model(self, name: str) -> Manifest:
        """The LLMInferenceService of a model."""
        found = self.kube.get("serving.kserve.io/v1alpha2", "LLMInferenceService", name, "llm-models")
        assert found is not None, f"there is no LLMInferenceService {name}"
        return found

    def client(self) -> Client:
        """A client of the gateway's address as it is now."""
        return Client(self.rehearsal.address())

    def pods(self, namespace: str, labels: Mapping[str, str], count: int = 1) -> list[Manifest]:
        """The Ready pods with these labels, once there are exactly so many and none that ends."""
        selector = ",".join(f"{name}={value}" for name, value in labels.items())

        def settled() -> list[Manifest]:
            found = self.kube.list("v1", "Pod", namespace, selector)
            ready = [p for p in found if conditions(p).get("Ready") == "True" and not ends(p)]
            return ready if len(ready) == len(found) == count else []

        return eventually(settled, f"{count} Ready pods with {selector}", 60)

    def programs(self, pod: Manifest) -> list[int]:
        """The processes of a pod."""
        here = processes_with(f"LLMP_REHEARSAL_PROCESS={self.paths.root}")
        return [p for p in processes_with(f"REHEARSAL_ADDRESS={pod['status']['podIP']}") if p in here]


@dataclass(frozen=True)
class Answer:
    """What a client got: status, headers in lower case, and the body."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> tuple[int, str | None]:
        """Status, and the code of an error in OpenAI's shape; None where there is no error."""
        return self.status, self.json["error"]["code"] if self.status >= 400 else None

    @property
    def cost(self) -> int:
        """The tokens that the answer says it took."""
        return int(self.json["usage"]["total_tokens"])


class Client:
    """Asks a gateway as OpenAI's clients do."""

    def __init__(self, address: Address):
        self._host = f"{address.host}:{address.port}"
        if address.scheme == "https":
            named = {"server_hostname": address.host, "assert_hostname": address.host}
            pool = urllib3.HTTPSConnectionPool(
                address.ip, address.port, maxsize=8, ca_certs=str(address.ca), **named
            )
        else:
            pool = urllib3.HTTPConnectionPool(address.ip, address.port, maxsize=8)
        self._pool = pool

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.close()

    def request(self, method: str, path: str, key: str | None = None, body: Any = None) -> Answer:
        """One request; nothing is repeated and no redirect followed."""
        with self.open(method, path, key, body) as response:
            headers = {name.lower(): value for name, value in response.headers.items()}
            return Answer(response.status, headers, response.read())

    @contextlib.contextmanager
    def open(
        self, method: str, path: str, key: str | None = None, body: Any = None
    ) -> Iterator[urllib3.BaseHTTPResponse]:
        """The answer to a request while it comes."""
        headers = {"host": self._host, "content-type": "application/json"}
        headers |= {"authorization": f"Bearer {key}"} if key else {}
        content = None if body is None else json.dumps(body)
        options = {"retries": False, "redirect": False, "timeout": 30, "preload_content": False}
        response = self._pool.request(method, path, headers=headers, body=content, **options)
        try:
            yield response
        finally:
            response.release_conn()

    def ask(self, key: str | None, model: str, content: str = "Hello", tokens: int = 20) -> Answer:
        """One chat completion over the base URL."""
        return self.request("POST", "/v1/chat/completions", key, chat(model, content, tokens))

    def lines(self, key: str, model: str, tokens: int) -> Iterator[bytes]:
        """The events of a streamed chat completion."""
        body = {**chat(model, "Hello", tokens), "stream": True}
        with self.open("POST", "/v1/chat/completions", key, body) as response:
            assert response.status == 200, response.read()
            rest = b""
            for part in response.stream(4096):
                *whole, rest = (rest + part).split(b"\n\n")
                yield from whole


def chat(model: str, content: str, tokens: int) -> dict[str, Any]:
    """The body of a chat completion of exactly so many tokens, with an option of vLLM."""
    said = [{"role": "user", "content": content}]
    return {"model": model, "messages": said, "max_tokens": tokens, "ignore_eos": True}


class Load:
    """Asks again and again, as several clients at once, while it is open as a context."""

    def __init__(self, ask: Callable[[], Answer], clients: int = 2):
        self._ask, self._stop = ask, threading.Event()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(clients)]
        self.seen: list[tuple[int, str | None]] = []

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self.seen.append(self._ask().error)
            except urllib3.exceptions.HTTPError as broken:
                self.seen.append((0, type(broken).__name__))

    @property
    def kinds(self) -> set[tuple[int, str | None]]:
        """Every kind of answer that came."""
        return set(self.seen)

    def next(self, count: int = 10) -> list[tuple[int, str | None]]:
        """The answers to come, which were all asked for after this."""
        # One request of every client may have been on its way already.
        begin = len(self.seen) + len(self._threads)
        eventually(lambda: len(self.seen) >= begin + count, "the load goes on", 60)
        return self.seen[begin : begin + count]


class Watched:
    """The output of `ops watch` beside whatever happens in the block."""

    def __init__(self, stack: Stack):
        self._stack, self._file = stack, stack.paths.root / "watch.log"

    def lines(self, word: str) -> list[str]:
        """Those with a word so far; all of them after the block."""
        return [line for line in self._file.read_text().splitlines() if word in line]

    @contextlib.contextmanager
    def running(self) -> Iterator[Self]:
        command = [sys.executable, "-m", "ops", "watch", "--stack", self._stack.name, "--every", "1"]
        place = {"env": self._stack.rehearsal.environment(), "cwd": self._stack.paths.work}
        with self._file.open("w") as out:
            process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, **place)
        try:
            yield self
        finally:
            process.terminate()
            assert process.wait(timeout=60) == 0, self._file.read_text()


def settings(stack: Stack, **content: object) -> None:
    """Put settings of the simulated cloud into force, with an autoscaler that acts within seconds."""
    file = Settings.of(stack.paths.root).file
    file.parent.mkdir(parents=True, exist_ok=True)
    pace = {"idleSeconds": 5, "backoffSeconds": 3}
    file.write_text(yaml.safe_dump({"autoscaler": pace, **content}))


def succeed(outcome: Outcome) -> Outcome:
    """The operation, which must have ended well."""
    assert outcome.status == 0, outcome.output
    return outcome


def unchanged(stack: Stack) -> None:
    """A preview must find nothing to do."""
    succeed(stack.run("preview", "--expect-no-changes"))


def ends(manifest: Manifest) -> bool:
    """Whether an object is being deleted."""
    return "deletionTimestamp" in manifest["metadata"]


def processes_with(mark: str) -> list[int]:
    """The processes whose environment has `mark`, a variable with its value."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                environment = (entry / "environ").read_bytes().split(b"\0")
            except OSError:
                continue
            if mark.encode() in environment:
                found.append(int(entry.name))
    return found


def program_of(pid: int) -> str:
    """The name of the program that a process runs; empty when it ended meanwhile."""
    try:
        return Path(Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode()).name
    except OSError:
        return ""


def kill(pid: int) -> None:
    """End a process at once; one that ended by itself meanwhile is fine."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def conditions(manifest: Manifest) -> dict[str, str]:
    """A status's conditions by type."""
    return {c["type"]: c["status"] for c in (manifest.get("status") or {}).get("conditions", [])}


def eventually(check: Callable[[], Any], what: str, seconds: float = 30) -> Any:
    """Ask until the answer is true; fails naming `what`."""
    deadline = time.monotonic() + seconds
    while True:
        if answer := check():
            return answer
        assert time.monotonic() < deadline, f"{what}: not within {seconds:.0f} s"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The dev stack in a rehearsal of its own, ended after the module."""
    result = Stack(tmp_path_factory.mktemp("rehearsed") / "rehearsal")
    yield result
    result.rehearsal.down(force=True)
