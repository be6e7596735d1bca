"""Nothing real is ever touched: a plugin that finds itself outside a rehearsal does not start.

The plugins are found by name on PATH, so a user with a shell left over from a
rehearsal could run the official CLI with them by mistake. Every condition here
is one that such a mistake breaks.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

MARK = "LLMP_REHEARSAL"
LOOPBACK = ("127.0.0.1", "localhost", "::1")


class OutsideRehearsal(Exception):
    """A simulated plugin was started, or pointed, at something that is not its rehearsal."""


def require_rehearsal(environ: Mapping[str, str]) -> Path:
    """Return the rehearsal's own directory; OutsideRehearsal unless home and Pulumi state lie in it."""
    mark = environ.get(MARK, "")
    if not mark:
        raise OutsideRehearsal(
            f"{MARK} is not set, so this is not a rehearsal; remove the rehearsal's bin/ from PATH"
        )
    root = Path(mark)
    if not root.is_absolute() or not root.is_dir():
        raise OutsideRehearsal(f"{MARK}={mark} is not the absolute path of a rehearsal directory")
    backend = urlsplit(environ.get("PULUMI_BACKEND_URL", ""))
    state = Path(unquote(backend.path)) if backend.scheme == "file" else None
    for name, path in (("PULUMI_BACKEND_URL", state), ("HOME", Path(environ.get("HOME", "")))):
        if path is None or not path.is_absolute() or not path.resolve().is_relative_to(root.resolve()):
            raise OutsideRehearsal(
                f"{name}={environ.get(name, '')!r} does not lie in {MARK}={mark}, as a rehearsal's would"
            )
    return root


def require_own_cluster(own: tuple[str, bytes], server: str, authority: bytes) -> None:
    """OutsideRehearsal unless (URL, CA certificate) are the rehearsal's `own`, on this machine's loopback."""
    if urlsplit(server).hostname not in LOOPBACK:
        raise OutsideRehearsal(
            f"the API server {server} is not on this machine; a rehearsal only uses its own"
        )
    if (server, authority) != own:
        raise OutsideRehearsal(
            f"the API server {server} is not this rehearsal's ({own[0] or 'none is running'})"
        )


def start_or_exit(environ: Mapping[str, str]) -> Path:
    """As :func:`require_rehearsal`, for a plugin's main: a refusal goes to stderr and ends the process."""
    try:
        return require_rehearsal(environ)
    except OutsideRehearsal as refusal:
        sys.exit(f"this simulated Pulumi plugin refuses to start: {refusal}")
