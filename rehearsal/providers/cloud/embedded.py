"""The embedded API server, which is what every simulated cluster really is."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from ops.kube import Kube
from rehearsal.providers.kubernetes import kubeconfig
from rehearsal.providers.server import Refusal


@dataclass(frozen=True)
class Embedded:
    """The rehearsal's API server, as its own kubeconfig tells."""

    file: Path

    @classmethod
    def of(cls, rehearsal: Path) -> Self:
        """That of the rehearsal in this directory."""
        return cls(rehearsal / "cluster" / "kubeconfig")

    @cached_property
    def _target(self) -> kubeconfig.Target:
        if not self.file.is_file():
            raise Refusal("the rehearsal's control plane is not running, so no cluster can be simulated")
        return kubeconfig.select(*kubeconfig.load(str(self.file)))

    @property
    def address(self) -> str:
        """Host and port; `https://` before it makes the server's URL."""
        return urlsplit(self._target.server).netloc

    @property
    def authority(self) -> str:
        """The CA certificate, base64 of PEM as clouds give it."""
        return base64.b64encode(self._target.authority).decode()

    @cached_property
    def kube(self) -> Kube:
        """A client that makes and removes nodes."""
        self._target  # noqa: B018 - refuses in words where there is no cluster
        return Kube(self.file)
