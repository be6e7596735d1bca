"""Whether an API server listens. Only for a warning: who decides is the provider."""

from __future__ import annotations

import os
import socket
from urllib.parse import urlsplit

SECONDS = 3.0
PORTS = {"https": 443, "http": 80}


def reachable(server: str | None) -> bool:
    """Whether a connection to a server's URL opens; also True where a direct connection would prove nothing."""
    if server is None or os.environ.get("HTTPS_PROXY") or os.environ.get("https_proxy"):
        return True
    url = urlsplit(server)
    try:
        with socket.create_connection((url.hostname, url.port or PORTS[url.scheme]), timeout=SECONDS):
            return True
    except OSError:
        return False
