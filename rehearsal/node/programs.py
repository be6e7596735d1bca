"""Starts the programs of containers, in directories that stand for their file systems."""

from __future__ import annotations

import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from ops.kube import Kube, Manifest
from rehearsal.cluster import certificates, ports
from rehearsal.node import images, volumes
from rehearsal.node.faults import Faults
from rehearsal.node.names import Names

TOKEN_SECONDS = 86400
END_SECONDS = 5.0
# A preStop hook sleeps while others learn that the pod ends, which takes milliseconds here: KServe's 15 s are one.
LAST_WISH_CLOCK = 15.0

Mounted = dict[str, list[Path]]
"""The files of each mount path of a container."""


@dataclass(frozen=True)
class Host:
    """What every pod shares: the API, the faults, directories, the environment of programs, Services' names."""

    kube: Kube
    faults: Faults
    directory: Path
    logs: Path
    authority: bytes
    binary: Callable[[str], Path]
    environment: Callable[[dict[str, str]], dict[str, str]]
    names: Names = field(default_factory=Names)

    @property
    def rehearsal(self) -> Path:
        """The directory of the rehearsal."""
        return self.directory.parent

    @property
    def volumes(self) -> Path:
        """Where the volumes of claims are, by name."""
        return self.rehearsal / "volumes"

    def log(self, pod: Manifest, container: str) -> Path:
        """The file that a container's output goes to, of all its lives."""
        meta = pod["metadata"]
        return self.logs / f"{meta['namespace']}_{meta['name']}_{container}.log"


@dataclass(frozen=True)
class Home:
    """Where a pod's programs run: its address, and its directory on this machine."""

    host: Host
    pod: Manifest
    address: str

    @property
    def directory(self) -> Path:
        return self.host.directory / self.pod["metadata"]["uid"]

    def mount(self, container: Manifest, program: images.Program, taken: dict[int, int]) -> Mounted:
        """Write the container's volumes; called again, it brings what changed since."""
        place = self._place(container, taken)

        def rewrite(name: str, data: bytes) -> bytes:
            change = program.files.get(name)
            return change(data.decode(), place).encode() if change else data

        return volumes.mount(self.host.kube, self.pod, container, place.root, rewrite, self.host.volumes)

    def disk(self, container: Manifest, path: str) -> Path | None:
        """Where a claim that a container mounts at `path` is on this machine, if it does. Raises NotMountable."""
        return volumes.disk_at(self.host.kube, self.pod, container, path, self.host.volumes)

    def launch(
        self, container: Manifest, program: images.Program, taken: dict[int, int]
    ) -> subprocess.Popen[bytes]:
        """Start a container's program. Local ports that it listens on instead of its own go into `taken`.

        Raises NotMountable while a volume's source does not exist, Unresolved while a
        Service that it names has no Ready pod.
        """
        taken.clear()
        place = self._place(container, taken)
        (place.root / "tmp").mkdir(parents=True, exist_ok=True)
        mounted = self.mount(container, program, taken)
        own = volumes.environment(self.host.kube, self.pod, container, self.address)
        own = {name: self._local(value, mounted, place.root) for name, value in own.items()}
        argv = [
            self._local(volumes.expand(word, own), mounted, place.root)
            for word in command(container, program, self.host.binary)
        ]
        with self.host.log(self.pod, container["name"]).open("ab") as output:
            return subprocess.Popen(
                [*argv, *program.flags(place)],
                env=self.host.environment(self._environment(own, program, place)),
                cwd=place.root,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def _place(self, container: Manifest, taken: dict[int, int]) -> images.Placement:
        def local_port(port: int) -> int:
            if port not in taken:
                taken[port] = ports.free_ports(1)[0]
            return taken[port]

        return images.Placement(self.address, local_port, self.directory / container["name"])

    def _local(self, text: str, mounted: Mounted, root: Path) -> str:
        """Text of the container with mounts and Services where they are on this machine."""
        return self.host.names.resolve(relocated(text, mounted, root), self.pod, self.address)

    def _environment(
        self, own: dict[str, str], program: images.Program, place: images.Placement
    ) -> dict[str, str]:
        return (
            own
            | dict(program.env(place, own))
            | {
                "HOME": str(place.root),
                "TMPDIR": str(place.root / "tmp"),
                "KUBECONFIG": str(self._service_account(place.root)),
                "REHEARSAL_ADDRESS": self.address,
                **self._stages(),
            }
        )

    def _stages(self) -> dict[str, str]:
        """Where a model server reads how long it takes to start, what it runs on, and who it is."""
        if not images.has_stages(self.pod):
            return {}
        meta, chips = self.pod["metadata"], images.accelerator(self.pod)
        name = f"{meta['namespace']}/{meta['name']}"
        return {
            "REHEARSAL_POD": name,
            "REHEARSAL_ACCOUNT": account_of(self.pod),
            "REHEARSAL_STAGES": str(self.host.faults.file),
            "REHEARSAL_ACCELERATOR": chips,
        }

    def _service_account(self, root: Path) -> Path:
        """A kubeconfig with the pod's own service account, so that its real permissions apply."""
        kube, namespace = self.host.kube, self.pod["metadata"]["namespace"]
        account = account_of(self.pod)
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


def command(container: Manifest, program: images.Program, binary: Callable[[str], Path]) -> list[str]:
    """What the container runs: its own command through the shell, or the image's entry point."""
    own, arguments = container.get("command") or [], container.get("args") or []
    if program.shell and own:
        return [*own, *arguments]
    given = [*own[1:], *arguments] if program.takes_arguments else []
    if given and Path(given[0]).name in program.called:
        given = given[1:]
    return [str(binary(program.binary)), *program.arguments, *given]


def account_of(pod: Manifest) -> str:
    """The service account that a pod acts in."""
    return str(pod["spec"].get("serviceAccountName", "default"))


def relocated(argument: str, mounted: Mounted, root: Path) -> str:
    """An argument with the paths of mounts pointing at where the mounts really are."""
    real = [re.escape(path) for path in sorted(mounted, key=len, reverse=True) if mounted[path]]
    if not real:
        return argument
    return re.sub(rf"(?<![^ =:])({'|'.join(real)})(?=[/ :\n]|$)", rf"{root}\1", argument)


def grace(pod: Manifest) -> float:
    """The seconds that a pod's programs have after they were asked to end: those of its deletion, else its own."""
    given = pod["metadata"].get("deletionGracePeriodSeconds")
    return float(pod["spec"].get("terminationGracePeriodSeconds", 30) if given is None else given)


def last_wish(container: Manifest) -> float:
    """How long a container's preStop hook sleeps, at a faster clock; other hooks need an image that is not here."""
    hook = (container.get("lifecycle") or {}).get("preStop") or {}
    words = (hook.get("exec") or {}).get("command") or []
    seconds = (hook.get("sleep") or {}).get("seconds", 0)
    if len(words) == 2 and Path(words[0]).name == "sleep":
        seconds = words[1]
    return float(seconds) / LAST_WISH_CLOCK


def end(processes: Iterable[subprocess.Popen[bytes] | None], seconds: float, hurry: threading.Event) -> None:
    """Ask programs to end, and make them end after `seconds`, or END_SECONDS after `hurry` is set."""
    living = [p for p in processes if p is not None and p.poll() is None]
    for process in living:
        process.terminate()
    deadline = time.monotonic() + seconds
    while any(p.poll() is None for p in living) and time.monotonic() < deadline:
        if hurry.is_set():
            deadline = min(deadline, time.monotonic() + END_SECONDS)
        time.sleep(0.02)
    for process in living:
        if process.poll() is None:
            process.kill()
        process.wait()
