"""Faults that a test or a user injects: images that fail, services that refuse.

The file `cluster/faults.yaml` of the rehearsal is read at every look, so a fault
can be set and lifted while everything runs:

    images:
    - match: "*/vllm-openai:v9*"   # shell pattern on the image reference
      at: pull                     # pull | init | crash | unready
      message: manifest unknown
    services:
    - match: kserve/llmisvc-webhook-server-service
      refuseSeconds: 20            # counted from the moment its pod is Ready
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import yaml


@dataclass(frozen=True)
class Faults:
    """The faults in force now; an absent file means none."""

    file: Path

    def image(self, image: str, at: str) -> str | None:
        """The message of a fault on `image` at stage `at`, if there is one."""
        for fault in self._entries("images"):
            if fault["at"] == at and fnmatch(image, fault["match"]):
                return str(fault.get("message", "fault injected by the rehearsal"))
        return None

    def refuse_seconds(self, service: str) -> float:
        """For how long `namespace/name` refuses connections after its pod became Ready."""
        for fault in self._entries("services"):
            if fnmatch(service, fault["match"]):
                return float(fault["refuseSeconds"])
        return 0.0

    def _entries(self, section: str) -> list[dict[str, Any]]:
        try:
            return (yaml.safe_load(self.file.read_text()) or {}).get(section) or []
        except FileNotFoundError:
            return []
