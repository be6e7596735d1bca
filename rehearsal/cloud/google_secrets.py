"""Versions of secrets in Secret Manager, as the settings have them.

secrets:
- {name: projects/my-project/secrets/hf, version: 2, text: hf_example, state: DISABLED}    # else version 1, ENABLED
"""

from __future__ import annotations

from dataclasses import dataclass, field

from rehearsal.cloud.settings import Settings

LATEST, ENABLED = "latest", "ENABLED"


@dataclass(frozen=True)
class Version:
    """A version by its number, with its value, and Google's word for its state."""

    number: str
    state: str
    text: str = field(repr=False)


def version(settings: Settings, name: str, asked: str) -> Version | None:
    """One by `projects/P/secrets/S` and its number, or the latest, which stands first; None where there is none."""
    found = settings.secret(name, **({} if asked == LATEST else {"version": asked}))
    if found is None:
        return None
    number = str(found.get("version", "1")) if asked == LATEST else asked
    return Version(number, str(found.get("state", ENABLED)), str(found.get("text", "")))


def not_found(name: str, asked: str) -> str:
    """Secret Manager's sentence, which for the latest does not tell a secret without versions from none."""
    if asked == LATEST:
        return f"Secret [{name}] not found or has no versions."
    return f"Secret Version [{name}/versions/{asked}] not found."
