"""Where one rehearsal keeps its files: one directory, nothing outside it."""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
# Whole stacks, and those that show one thing; a user copies one of them to the project's directory.
STACK_DIRECTORIES = (CHECKOUT, CHECKOUT / "docs" / "examples")


def stack_file(stack: str) -> Path:
    """The committed file of a stack or of an example. Raises FileNotFoundError, naming all that there are."""
    name = f"Pulumi.{stack}.yaml"
    for directory in STACK_DIRECTORIES:
        if (directory / name).is_file():
            return directory / name
    known = sorted(f.name.split(".")[1] for d in STACK_DIRECTORIES for f in d.glob("Pulumi.*.yaml"))
    raise FileNotFoundError(f"there is no {name}. Stacks here: {', '.join(known)}")


@dataclass(frozen=True)
class Paths:
    """The directories of one rehearsal, all below `root`."""

    root: Path

    @classmethod
    def of_checkout(cls) -> Paths:
        """The rehearsal of this checkout: `.rehearsal` in it, or `REHEARSAL_DIR`."""
        return cls(Path(os.environ.get("REHEARSAL_DIR") or CHECKOUT / ".rehearsal").resolve())

    @property
    def bin(self) -> Path:
        return self.root / "bin"

    @property
    def home(self) -> Path:
        return self.root / "home"

    @property
    def pulumi_home(self) -> Path:
        return self.root / "pulumi"

    @property
    def state(self) -> Path:
        return self.root / "state"

    @property
    def work(self) -> Path:
        return self.root / "work"

    @property
    def cluster(self) -> Path:
        return self.root / "cluster"

    @property
    def pods(self) -> Path:
        return self.root / "pods"

    @property
    def run(self) -> Path:
        return self.root / "run"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def kubeconfig(self) -> Path:
        return self.cluster / "kubeconfig"

    @property
    def faults(self) -> Path:
        """The faults that tests inject; see rehearsal/node/faults.py."""
        return self.cluster / "faults.yaml"

    @property
    def service_socket(self) -> Path:
        """Socket of the service proxy; in the temporary directory since socket paths end at 107 bytes."""
        key = hashlib.sha256(str(self.root).encode()).hexdigest()[:12]
        return Path(tempfile.gettempdir()) / f"llm-platform-{os.getuid()}-{key}" / "services.sock"

    def create(self) -> None:
        """Make every directory, readable by the owner only."""
        for directory in (
            self.root, self.bin, self.home, self.pulumi_home, self.state, self.work,
            self.cluster, self.pods, self.run, self.logs, self.service_socket.parent,
        ):  # fmt: skip
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
