"""Starts the programs of containers, in directories that stand for their file systems."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ops.kube import Kube, Manifest
from rehearsal.cluster import certificates, ports
from rehearsal.node import images, volumes
from rehearsal.node.faults import Faults

TOKEN_SECONDS = 86400
END_SECONDS = 5


@dataclass(frozen=True)
class Host:
    """What every pod shares: the API, the faults, directories and the environment of programs."""

    kube: Kube
    faults: Faults
    directory: Path
    logs: Path
    authority: bytes
    binary: Callable[[str], Path]
    environment: Callable[[dict[str, str]], dict[str, str]]


@dataclass(frozen=True)
class Home:
    """Where a pod's programs run: its address, and its directory on this machine."""

    host: Host
    pod: Manifest
    address: str

    @property
    def directory(self) -> Path:
        return self.host.directory / self.pod["metadata"]["uid"]

    def mount(self, container: Manifest) -> dict[str, list[Path]]:
        """Write the container's volumes; called again, it brings what changed since."""
        return volumes.mount(self.host.kube, self.pod, container, self._root(container))

    def launch(
        self, container: Manifest, program: images.Program, taken: dict[int, int]
    ) -> subprocess.Popen[bytes]:
        """Start a container's program. Local ports that it listens on instead of its own go into `taken`."""
        root, meta = self._root(container), self.pod["metadata"]
        (root / "tmp").mkdir(parents=True, exist_ok=True)
        mounted = self.mount(container)

        def local_port(port: int) -> int:
            taken[port] = ports.free_ports(1)[0]
            return taken[port]

        place = images.Placement(self.address, local_port)
        for path in (p for paths in mounted.values() for p in paths if p.name in program.files):
            path.write_text(program.files[path.name](path.read_text(), place))
        command = [relocated(c, mounted, root) for c in self._command(container, program)]
        log = self.host.logs / f"{meta['namespace']}_{meta['name']}_{container['name']}.log"
        with log.open("ab") as output:
            return subprocess.Popen(
                [*command, *program.flags(place)],
                env=self.host.environment(self._environment(container, root)),
                cwd=root,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def _root(self, container: Manifest) -> Path:
        return self.directory / container["name"]

    def _environment(self, container: Manifest, root: Path) -> dict[str, str]:
        return volumes.environment(self.host.kube, self.pod, container, self.address) | {
            "HOME": str(root),
            "TMPDIR": str(root / "tmp"),
            "KUBECONFIG": str(self._service_account(root)),
            "REHEARSAL_ADDRESS": self.address,
        }

    def _command(self, container: Manifest, program: images.Program) -> list[str]:
        """What the container runs: its own command through the shell, or the image's entry point."""
        if program.shell and container.get("command"):
            return [*container["command"], *container.get("args", [])]
        return [str(self.host.binary(program.binary)), *program.arguments, *container.get("args", [])]

    def _service_account(self, root: Path) -> Path:
        """A kubeconfig with the pod's own service account, so that its real permissions apply."""
        kube, namespace = self.host.kube, self.pod["metadata"]["namespace"]
        account = self.pod["spec"].get("serviceAccountName", "default")
        request = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"expirationSeconds": TOKEN_SECONDS},
        }
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token"
        token = kube.request("POST", path, None, request)["status"]["token"]
        file = root / "kubeconfig"
        certificates.write_kubeconfig(file, kube.server, self.host.authority, {"token": token}, ("pod",))
        return file


def relocated(argument: str, mounted: dict[str, list[Path]], root: Path) -> str:
    """An argument with the paths of mounts pointing at where the mounts really are."""
    for path in sorted(mounted, key=len, reverse=True):
        if mounted[path]:
            argument = re.sub(rf"(?<=[ =]){re.escape(path)}(?=[/ \n]|$)", f"{root}{path}", argument)
    return argument


def end(process: subprocess.Popen[bytes] | None) -> None:
    """Ask a program to end, and make it end."""
    if process is None or process.poll() is not None:
        return
    os.kill(process.pid, signal.SIGTERM)
    try:
        process.wait(timeout=END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
