"""How credentials look, so that none is accepted in plain text and none is printed."""

from __future__ import annotations

import re
from typing import Any

# Shapes of credentials. Each must be specific enough not to hit a model name or a digest.
SHAPES = {
    "a Hugging Face token": re.compile(r"\bhf_[A-Za-z0-9]{8,}"),
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY[\s\S]*"),
    "a PEM block": re.compile(r"-----BEGIN [A-Z ]+-----[\s\S]*"),
    "an AWS access key": re.compile(r"\b(AKIA|ASIA)[A-Z0-9]{16}\b"),
    "a Docker registry login": re.compile(r'"auths"\s*:[\s\S]*'),
    "a GitHub token": re.compile(r"\b(gh[pousr]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,})"),
    "a GitLab token": re.compile(r"\bglpat-[A-Za-z0-9_-]{16,}"),
    "an API key": re.compile(r"\bsk-[A-Za-z0-9_-]{20,}"),
    "a Google API key": re.compile(r"\bAIza[A-Za-z0-9_-]{35}"),
    "a signed token": re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}"),
}


def looks_secret(value: Any) -> str | None:
    """What kind of credential a value looks like, or None."""
    if not isinstance(value, str):
        return None
    return next((kind for kind, shape in SHAPES.items() if shape.search(value)), None)


def redact(text: str) -> str:
    """The text with every credential in it replaced by its kind."""
    for kind, shape in SHAPES.items():
        text = shape.sub(f"({kind}, not shown)", text)
    return text
