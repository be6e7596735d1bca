"""The `python3` of a pod: this machine's own, with nothing but the standard library.

Programs in pods find the API server and their account at a fixed path, which only containers have: here the
variable IDENTITY says where the same two files are.
"""

from __future__ import annotations

import base64
import os
import sys
from pathlib import Path
from urllib.parse import urlsplit

import yaml


def main() -> None:
    """Write what a kubelet would mount, and become the interpreter."""
    kubeconfig = Path(os.environ["KUBECONFIG"])
    config = yaml.safe_load(kubeconfig.read_text())
    cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
    identity = kubeconfig.with_name("identity")
    identity.mkdir(mode=0o700, exist_ok=True)
    (identity / "ca.crt").write_bytes(base64.b64decode(cluster["certificate-authority-data"]))
    (identity / "token").touch(mode=0o600)
    (identity / "token").write_text(user["token"])
    server = urlsplit(cluster["server"])
    own = {
        "IDENTITY": str(identity),
        "KUBERNETES_SERVICE_HOST": str(server.hostname),
        "KUBERNETES_SERVICE_PORT": str(server.port),
    }
    os.execve(sys.executable, [sys.executable, "-I", "-S", *sys.argv[1:]], {**os.environ, **own})


if __name__ == "__main__":
    main()
