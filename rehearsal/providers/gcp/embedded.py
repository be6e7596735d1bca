"""The embedded API server as a cluster of Google's, and what that brings of its own."""

from __future__ import annotations

import json
from dataclasses import dataclass

from ops.kube import Manifest
from rehearsal.providers.cloud import embedded
from rehearsal.providers.server import Refusal


@dataclass(frozen=True)
class Embedded(embedded.Embedded):
    """The rehearsal's API server, and the definitions that the rehearsal has of Google."""

    def definitions(self, minor: str) -> dict[str, list[Manifest]]:
        """What Google's Gateway API brings with a GKE minor, by source (rehearsal/artifacts.py)."""
        files = sorted((self.file.parent.parent / "google" / minor).glob("*.json"))
        if not files:
            raise Refusal(f"this rehearsal has no definitions of the Gateway API for GKE {minor}")
        return {file.stem: json.loads(file.read_text()) for file in files}
