"""Stands in for `gke-gcloud-auth-plugin`: a kubeconfig of GKE gets the embedded API server's client certificate.

    python -m rehearsal.cloud.auth_plugin

prints an ExecCredential. It refuses outside a rehearsal, and for any API server but the rehearsal's own, where the
caller names one (`provideClusterInfo`).
"""

from __future__ import annotations

import base64
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rehearsal.providers.guard import OutsideRehearsal, require_own_cluster, require_rehearsal
from rehearsal.providers.kubernetes import kubeconfig

API = "client.authentication.k8s.io/v1beta1"


def credential(environ: Mapping[str, str]) -> dict[str, Any]:
    """The ExecCredential; OutsideRehearsal where none may be given."""
    root = require_rehearsal(environ)
    own = kubeconfig.select(*kubeconfig.load(str(_kubeconfig(root))))
    info = json.loads(environ.get("KUBERNETES_EXEC_INFO") or "{}")
    cluster = (info.get("spec") or {}).get("cluster") or {}
    if cluster.get("server"):
        # Google's kubeconfig names no authority, since a public one signs for its endpoint.
        stated = base64.b64decode(cluster.get("certificate-authority-data") or "") or own.authority
        require_own_cluster((own.server, own.authority), cluster["server"], stated)
    user = own.document["users"][0]["user"]
    status = {
        "clientCertificateData": base64.b64decode(user["client-certificate-data"]).decode(),
        "clientKeyData": base64.b64decode(user["client-key-data"]).decode(),
    }
    return {"apiVersion": info.get("apiVersion", API), "kind": "ExecCredential", "status": status}


def _kubeconfig(root: Path) -> Path:
    path = root / "cluster" / "kubeconfig"
    if not path.is_file():
        raise OutsideRehearsal(f"the rehearsal in {root} has no control plane running")
    return path


def main() -> int:
    """Print the credential; 1 and a sentence on stderr where it is refused."""
    try:
        print(json.dumps(credential(os.environ)))
    except OutsideRehearsal as refusal:
        print(f"this simulated gke-gcloud-auth-plugin refuses: {refusal}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
