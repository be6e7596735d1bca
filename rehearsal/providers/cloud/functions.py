"""Functions of a cloud's provider, which read something and make nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rehearsal.cloud.settings import Settings
from rehearsal.providers.values import Properties

READ = "read"


@dataclass(frozen=True)
class Question:
    """The arguments of a function, the provider's own configuration, and the settings in force."""

    arguments: Mapping[str, Any]
    defaults: Any
    settings: Settings


@dataclass(frozen=True)
class Function:
    """`kind` is what it reads, as settings name it; `subject` the name in its arguments; Refusal where `answer` cannot."""

    kind: str
    subject: Callable[[Question], str]
    answer: Callable[[Question], Properties]
    failed: Callable[[Question, str], str]
