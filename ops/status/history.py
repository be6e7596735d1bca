"""Whether the last `up` came to its end, from the state and the history that the backend keeps. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from ops.state import State

_SLACK = timedelta(seconds=1)  # The history has whole seconds.


def problems(
    state: State, history: Sequence[Mapping[str, Any]], written: str, at_work: Sequence[str] = ()
) -> list[str]:
    """Why the stack may be only partly there.

    `history` is what `pulumi stack history --json` says, newest first, and
    `written` the time at which the engine last wrote the state. An engine that
    was killed leaves no entry, but a state that is younger than the last one.
    `at_work` names who may be changing the stack right now.
    """
    if state.pending:
        names = ", ".join(str(op.resource) for op in state.pending)
        if at_work:
            return [f"an update is at {names} right now ({', '.join(at_work)}): wait for it to end"]
        return [f"an update was interrupted at {names}: run `python -m ops recover`, then `up`"]
    half_made = [str(r) for r in state.resources if r.raw.get("initErrors")]
    if half_made:
        return [f"the last update stopped at {', '.join(half_made)}: run `up`, which continues it"]
    if not history:
        return ["it was never brought up: run `up`"]
    last = history[0]
    if last.get("result") != "succeeded":
        what, end, result = last.get("kind", "update"), last.get("endTime"), last.get("result")
        return [f"the last {what}, of {end}, ended as {result}: run `up`"]
    if datetime.fromisoformat(written) > datetime.fromisoformat(last["endTime"]) + _SLACK:
        return [f"an update begun after that of {last['endTime']} never came to its end: run `up`"]
    return []
