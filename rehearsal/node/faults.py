"""What a test or a user sets for pods: images that fail, services that refuse, how long models take to start.

The file `cluster/faults.yaml` of the rehearsal is read at every look, so everything can
be set and lifted while pods run:

    images:
    - match: "*/vllm-openai:v9*"   # shell pattern on the image reference
      at: pull                     # pull | init | crash | unready
      message: manifest unknown
    services:
    - match: kserve/llmisvc-webhook-server-service
      refuseSeconds: 20            # counted from the moment its pod is Ready
    stages:                        # of pods that serve a model; of several that match, the first counts
    - match: "llm-models/qwen*"    # shell pattern on namespace/name
      download: 10                 # seconds in the init container that fetches the weights
      pull: 5                      # of the engine's image, after it
      load: 20                     # of weights; nothing listens until this and the next are over
      compile: 60
      hold: load                   # stays in this stage until the word is taken away
      fail: compile                # fails at the end of this stage, as often as it is tried
      message: RESOURCE_EXHAUSTED  # what is said then
      outOfMemory: true            # the failing container is killed for its memory, and says nothing
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Final

import yaml

STAGES: Final = ("download", "pull", "load", "compile")
_WORDS: Final = frozenset((*STAGES, "match", "hold", "fail", "message", "outOfMemory"))
_INJECTED = "fault injected by the rehearsal"


class BadFaults(Exception):
    """The file cannot mean what it says; the message names the file and the word."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """How a stage goes: its length in seconds (None: nobody has said), whether it ends, and how badly."""

    seconds: float | None = None
    held: bool = False
    failure: str | None = None
    out_of_memory: bool = False

    def over(self, elapsed: float, otherwise: float = 0.0) -> bool:
        """Whether it ends now, so many seconds after its begin; `otherwise` is its length where none is set."""
        return not self.held and elapsed >= (otherwise if self.seconds is None else self.seconds)


@dataclass(frozen=True)
class Faults:
    """The settings in force now; an absent file means that all goes well and at once."""

    file: Path

    def image(self, image: str, at: str) -> str | None:
        """The message of a fault on `image` at stage `at`, if there is one."""
        for fault in self._entries("images"):
            if fault["at"] == at and fnmatch(image, fault["match"]):
                return str(fault.get("message", _INJECTED))
        return None

    def refuse_seconds(self, service: str) -> float:
        """For how long `namespace/name` refuses connections after its pod became Ready."""
        for fault in self._entries("services"):
            if fnmatch(service, fault["match"]):
                return float(fault["refuseSeconds"])
        return 0.0

    def stage(self, pod: str, name: str) -> Stage:
        """How the stage `name` of the pod `namespace/name` goes. Raises BadFaults."""
        for entry in self._entries("stages"):
            self._check(entry)
            if fnmatch(pod, entry["match"]):
                return _stage(entry, name)
        return Stage()

    def _check(self, entry: Mapping[str, Any]) -> None:
        unknown = entry.keys() - _WORDS
        named = {entry.get("hold"), entry.get("fail")} - {None, *STAGES}
        if unknown or named or "match" not in entry:
            what = ", ".join(sorted(map(str, unknown | named))) or "no match"
            raise BadFaults(f"{self.file}: a stage has {what}; there are: {', '.join(sorted(_WORDS))}")

    def _entries(self, section: str) -> list[dict[str, Any]]:
        try:
            return (yaml.safe_load(self.file.read_text()) or {}).get(section) or []
        except FileNotFoundError:
            return []


def _stage(entry: Mapping[str, Any], name: str) -> Stage:
    failing = entry.get("fail") == name
    return Stage(
        seconds=float(entry[name]) if name in entry else None,
        held=entry.get("hold") == name,
        failure=str(entry.get("message", _INJECTED)) if failing else None,
        out_of_memory=failing and bool(entry.get("outOfMemory")),
    )
