"""One rehearsal, from nothing running to a stack that is up, and back."""

from __future__ import annotations

import contextlib
import json
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ops.keys.publish import UP_COMMAND
from ops.kube import Kube
from ops.verify.doors import OPTIONS
from rehearsal import address, artifacts, engine, keys, preflight, toolchain
from rehearsal.cloud import storage_classes
from rehearsal.cluster.control_plane import ControlPlane
from rehearsal.node import nodes
from rehearsal.node.shapes import shapes
from rehearsal.paths import CHECKOUT, Paths, stack_file
from rehearsal.processes import Processes
from rehearsal.progress import Progress
from rehearsal.toolchain.store import default_root
from stacks.config import ExistingCluster, StackConfig, load_stack_file
from stacks.translate import model_headers

AGENT_SECONDS = 30.0
# For a last look, when the `up` beside it has ended.
WATCH_SECONDS = 20.0
NOTHING = "nothing is running: start with `make up`"


class Refused(Exception):
    """The request cannot be met as things are; the message says why and what to do."""


class Rehearsal:
    """The rehearsal of this checkout."""

    def __init__(self, paths: Paths, progress: Progress):
        self.paths, self.progress = paths, progress
        self.processes = Processes(paths)

    # -- what runs ---------------------------------------------------------------------------------

    @property
    def stack(self) -> str | None:
        """The stack that this rehearsal holds, if any."""
        try:
            return (self.paths.root / "stack").read_text().strip()
        except OSError:
            return None

    def kube(self) -> Kube:
        """A client of the embedded cluster."""
        if not self.processes.running("kube-apiserver"):
            raise Refused(NOTHING)
        return Kube(self.paths.kubeconfig)

    def config(self, stack: str) -> StackConfig:
        """The configuration in force: that of the private copy of the stack file."""
        return load_stack_file(self.paths.work / f"Pulumi.{stack}.yaml")

    def address(self) -> address.Address:
        """Where the stack's gateway answers. Raises Refused or NoAddress."""
        if self.stack is None:
            raise Refused(NOTHING)
        gateway = self.config(self.stack).gateway
        return address.find(self.kube(), gateway.namespace, gateway.name, self.paths.work)

    # -- verbs -------------------------------------------------------------------------------------

    def start(self, stack: str) -> StackConfig:
        """Bring everything up but the stack itself: tools, control plane, nodes, stand-ins."""
        self._claim(stack)
        with self.progress.phase("tools"):
            tools = toolchain.ensure(self.progress.say)
            charts = artifacts.ensure(tools, self.progress.say)
        self.paths.create()
        (self.paths.root / "stack").write_text(stack)
        keys_before = keys.remembered(self.paths, stack)
        engine.copy_stack(self.paths, stack, charts)
        keys.publish(self.paths, stack, keys_before, self.quiet_ops)
        config = self.config(stack)
        if config.gateway.kind == "gke":
            self._link_google()
        with self.progress.phase("control plane"):
            self.link(tools)
            context = getattr(config.cluster, "context", "rehearsal")
            kube = ControlPlane(self.paths, self.processes, tools.binary).start((context,))
            self._start_agent(kube, config)
        return config

    def up(self, stack: str) -> int:
        """Start, put right what a killed run left, and run the stack's `up`; returns its exit status."""
        began = time.monotonic()
        self.start(stack)
        status = self.ops("recover", "--stack", stack)
        if status:
            return status
        with self.progress.phase(f"pulumi up ({stack})"), self._watched(stack):
            status = self.engine("up", stack)
        if status == 0:
            self._print_next_steps(stack, time.monotonic() - began)
        return status

    def preview(self, stack: str) -> int:
        """Run the stack's preview on a started environment."""
        self.start(stack)
        return self.engine("preview", stack)

    def preflight(self, stack: str) -> int:
        """Say what would stand in the way of the stack's first `up`; needs nothing running."""
        return preflight.run(self, stack)

    def down(self, force: bool = False) -> int:
        """Destroy the stack, end every process of this rehearsal and delete its files."""
        stack = self.stack
        if stack is not None and not force and self.paths.kubeconfig.exists():
            self.start(stack)
            self.ops("recover", "--stack", stack)
            with self.progress.phase(f"pulumi destroy ({stack})"):
                if self.engine("destroy", stack):
                    self.progress.say(
                        "The stack was not destroyed. `make down FORCE=1` ends everything anyway."
                    )
                    return 1
        with self.progress.phase("ending processes"):
            self.processes.stop_all()
        shutil.rmtree(self.paths.service_socket.parent, ignore_errors=True)
        shutil.rmtree(self.paths.root, ignore_errors=True)
        return 0

    def status(self) -> int:
        """0 when every process runs and everything of the stack is Ready; otherwise says what is not."""
        if self.stack is None:
            raise Refused(NOTHING)
        stopped = [n for n in self.processes.names() if not self.processes.running(n)]
        for name in stopped:
            self.progress.say(f"{name}: not running. The end of its log:\n{self.processes.tail(name)}")
        if stopped:
            return 1
        return self.ops("status", "--stack", self.stack)

    def url(self) -> int:
        """Print the address that answers for the stack's gateway; what curl needs beside it goes to stderr."""
        found = self.address()
        print(found.url)
        if found.curl:
            self.progress.say(f"curl needs: {found.curl}")
        return 0

    def key(self, tenant: str) -> int:
        """Print a new API key of a tenant."""
        if self.stack is None:
            raise Refused(NOTHING)
        return self.ops("keys", "issue", "--stack", self.stack, "--tenant", tenant)

    # -- parts -------------------------------------------------------------------------------------

    def engine(self, operation: str, stack: str, *arguments: str) -> int:
        """Run one engine operation in an environment of its own; returns its exit status."""
        return self._run("rehearsal.engine", operation, stack, *arguments)

    def ops(self, *arguments: str) -> int:
        """Run `python -m ops` against this rehearsal; returns its exit status."""
        if self.stack is None:
            raise Refused(NOTHING)
        return self.asked(*arguments)

    def asked(self, *arguments: str) -> int:
        """As :meth:`ops`, whether a stack is up or not."""
        doors = self.doors() if arguments[:1] == ("verify",) else {}
        return self._run("ops", *arguments, more={**doors, **preflight.google(self, arguments)})

    def doors(self) -> dict[str, str]:
        """A variable that tells `ops verify` where the gateway answers; none while it does not."""
        try:
            found = self.address()
        except (Refused, address.NoAddress):
            return {}
        gateway = self.config(self.stack or "").gateway
        return {OPTIONS: json.dumps(found.options(self.kube(), gateway.namespace, gateway.name))}

    def environment(self) -> dict[str, str]:
        """The environment of the engine and of operations: nothing of the user's."""
        # The program runs inside `rehearsal.engine`, so operations cannot run `pulumi up` themselves.
        up = [sys.executable, "-m", "rehearsal.engine", "up", *([self.stack] if self.stack else [])]
        return self.processes.environment({**engine.environment(self.paths), UP_COMMAND: shlex.join(up)})

    def quiet_ops(self, arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
        """Run `python -m ops` with its output captured."""
        return subprocess.run(
            [sys.executable, "-m", "ops", *arguments],
            env=self.environment(),
            cwd=self.paths.work,
            capture_output=True,
            text=True,
            check=False,
        )

    @contextlib.contextmanager
    def _watched(self, stack: str) -> Iterator[None]:
        """`python -m ops watch` beside an `up`: it ends with it, and its own end changes nothing."""
        command = [sys.executable, "-m", "ops", "watch", "--stack", stack]
        watch = subprocess.Popen(command, env=self.environment(), cwd=self.paths.work)
        try:
            yield
        finally:
            watch.terminate()
            try:
                watch.wait(WATCH_SECONDS)
            except subprocess.TimeoutExpired:
                watch.kill()
                watch.wait()

    def _run(self, module: str, *arguments: str, more: Mapping[str, str] | None = None) -> int:
        command = [sys.executable, "-m", module, *arguments]
        environment = {**self.environment(), **(more or {})}
        return subprocess.run(command, env=environment, cwd=self._directory(module), check=False).returncode

    def _directory(self, module: str) -> Path:
        return CHECKOUT if module == "rehearsal.engine" else self.paths.work

    def _claim(self, stack: str) -> None:
        try:
            stack_file(stack)
        except FileNotFoundError as error:
            raise Refused(str(error)) from None
        if self.stack not in (None, stack):
            raise Refused(f"this checkout rehearses the stack {self.stack!r} now: `make down` first")

    def link(self, tools: toolchain.Tools) -> None:
        """Put every program where the engine, operations and pods find it."""
        for name in tools.names():
            link = self.paths.bin / name
            if not link.is_symlink() or link.resolve() != tools.binary(name):
                link.unlink(missing_ok=True)
                link.symlink_to(tools.binary(name))
        engine.install_commands(self.paths)

    def _link_google(self) -> None:
        """Lay what Google brings into a cluster where the simulated Google finds it."""
        found, link = artifacts.ensure_google(self.progress.say), self.paths.root / "google"
        if not link.is_symlink() or link.resolve() != found:
            link.unlink(missing_ok=True)
            link.symlink_to(found)

    def _start_agent(self, kube: Kube, config: StackConfig) -> None:
        wanted = shapes(config)
        for shape in wanted:
            nodes.ensure(kube, shape)
        if isinstance(config.cluster, ExistingCluster):
            storage_classes.bring(kube, storage_classes.local(), nodes.MANAGER)
        env = {"REHEARSAL_DIR": str(self.paths.root), "PYTHONPATH": str(CHECKOUT)}
        self.processes.start("agent", [sys.executable, "-m", "rehearsal.agent"], env)

        def ready() -> bool:
            self.processes.check("agent")
            return self.paths.service_socket.exists()

        kube.wait(ready, AGENT_SECONDS, "the rehearsal's agent")

    def _print_next_steps(self, stack: str, seconds: float) -> None:
        self.progress.say(
            f"\n{stack} is up after {seconds:.0f} s. What to try next:\n"
            "  make status                          what is Ready, and what is not\n"
            "  .rehearsal/bin/kubectl --kubeconfig $(make -s kubeconfig) get llminferenceservices -A\n"
            "  make preview                         shows no changes\n"
            "  make down                            destroys the stack and ends every process"
        )
        try:
            self.progress.say(_request(self.config(stack), self.address()))
        except (Refused, address.NoAddress) as error:
            self.progress.say(f"There is no address to ask: {error}")


def _request(config: StackConfig, gateway: address.Address) -> str:
    """The gateway's address, and the commands by which somebody gets an answer from it."""
    lines = [f"\nIt answers at {gateway.url}"]
    if config.access and config.access.tenants:
        lines.append(f"  KEY=$(make -s key TENANT={min(config.access.tenants)})")
    if config.models:
        name = min(config.models)
        said = [{"role": "user", "content": "Hello"}]
        body = {"model": config.models[name].served_name or name, "messages": said, "max_tokens": 20}
        lines += [
            f"  curl {gateway.url}/v1/chat/completions {gateway.curl}".rstrip() + " \\",
            *(['    -H "Authorization: Bearer $KEY" \\'] if config.access else []),
            *([f"    -H '{chosen}' \\"] if (chosen := model_headers(config).get(name)) else []),
            "    -H 'Content-Type: application/json' \\",
            f"    -d '{json.dumps(body)}'",
        ]
    return "\n".join(lines)


def from_environment() -> Rehearsal:
    """The rehearsal of this checkout, remembering durations beside the tools."""
    return Rehearsal(Paths.of_checkout(), Progress(default_root() / "durations.json"))
