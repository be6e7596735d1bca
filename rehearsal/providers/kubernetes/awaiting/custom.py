"""`pulumi.com/waitFor`: conditions and JSONPaths that the program waits for instead of the built-in readiness."""

from __future__ import annotations

import json
import re
from typing import Any

from ops.kube import Manifest
from rehearsal.providers.kubernetes.awaiting.jsonpath import BadPath, JsonPath
from rehearsal.providers.kubernetes.awaiting.progress import Check, Look, Progress, pluck


class BadExpression(Exception):
    """The annotation cannot be understood."""


def parse(annotation: str) -> Check:
    """The check behind `condition=Type[=Status]`, `jsonpath={…}[=value]` or a JSON list of these, all of which must hold."""
    try:
        values = json.loads(annotation)
    except ValueError:
        values = None
    expressions = (
        values if isinstance(values, list) and all(isinstance(v, str) for v in values) else [annotation]
    )
    if not expressions:
        raise BadExpression("at least one condition must be specified")
    checks = [_expression(text) for text in expressions]
    return lambda look: _all([check(look) for check in checks])


def _all(progress: list[Progress]) -> Progress:
    waiting = [p for p in progress if not p.ready]
    status = "; ".join(p.status for p in waiting or progress if p.status)
    return Progress(not waiting, status, tuple(reason for p in waiting for reason in p.reasons))


def _expression(text: str) -> Check:
    if text.startswith("condition="):
        kind, _, status = text.removeprefix("condition=").partition("=")
        return lambda look: _condition(look, kind, status or "True")
    if text.startswith("jsonpath="):
        return _jsonpath(text.removeprefix("jsonpath="))
    raise BadExpression(f'expected a "jsonpath=" or "condition=" prefix, got {text!r}')


def _condition(look: Look, kind: str, wanted: str) -> Progress:
    conditions = look.of("status", "conditions")
    if conditions is None:
        return _waiting("Has no .status.conditions", look)
    found: Manifest = next((c for c in conditions if c.get("type", "").lower() == kind.lower()), {})
    if not found:
        return _waiting(f"has no condition {kind}", look)
    observed = found.get("observedGeneration", look.of("status", "observedGeneration"))
    if observed is not None and observed < look.of("metadata", "generation", default=0):
        return _waiting(
            f"{kind} was observed for generation {observed}, not for {look.of('metadata', 'generation')}",
            look,
        )
    if found.get("status", "").lower() == wanted.lower():
        return Progress(True, f"{kind}={wanted}")
    why = ": ".join(part for part in (found.get("reason"), found.get("message")) if part)
    return _waiting(
        f"condition {kind}={found.get('status')} (want {wanted}){f': {why}' if why else ''}", look
    )


def _jsonpath(text: str) -> Check:
    path, value = _split(text)
    match = re.search(r"\{\s*(.*?)\s*\}", path)
    if path.startswith("'") and path.endswith("'"):
        raise BadExpression(f"{path} should omit shell quotes")
    if not match:
        raise BadExpression(f"{path} should be wrapped in brackets {{ ... }}")
    try:
        compiled = JsonPath(match[1] if match[1].startswith("$") else f"${match[1]}")
    except BadPath as error:
        raise BadExpression(f"parsing {path!r}: {error}") from None
    return lambda look: _matches(look, path, value, compiled)


def _split(text: str) -> tuple[str, str]:
    parts = text.replace("==", "\0").split("=")
    path, value = (part.replace("\0", "==") for part in (parts[0], "=".join(parts[1:])))
    if len(parts) > 2:
        raise BadExpression(f"format should be {{.path}}=value or {{.path}}, got {text!r}")
    if len(parts) == 2 and not value:
        raise BadExpression(f"{path}= requires a value")
    return path, value


def _matches(look: Look, path: str, value: str, compiled: JsonPath) -> Progress:
    observed = look.of("status", "observedGeneration")
    if observed is not None and observed < look.of("metadata", "generation", default=0):
        return _waiting(f"Waiting for {path}", look)
    found = compiled.select(look.live)
    if not found:
        return _waiting(f"{path} selected nothing", look)
    if value and isinstance(found[0], dict | list):
        return Progress(
            False, f"{path} has a non-primitive value", (f"{path} has a non-primitive value",), failed=True
        )
    if not value or _printed(found[0]) == value:
        return Progress(True, f"Found {path}{'=' if value else ''}{value}")
    return _waiting(f"Waiting for {path}={value} (found {_printed(found[0])!r})", look)


def _printed(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else "<nil>" if value is None else str(value)


def _waiting(status: str, look: Look) -> Progress:
    kind, where = (
        pluck(look.live, "kind", default=""),
        "/".join(part for part in (look.namespace, look.name) if part),
    )
    return Progress(False, status, (f"{kind} {where}: {status}",))
