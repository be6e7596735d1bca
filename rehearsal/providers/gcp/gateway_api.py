"""What a cluster has of Google's own once its Gateway API is on: definitions, kept as Google has them.

They are there when the cluster is, so whoever installs them as well finds that they exist. The classes come later,
from the controller that answers for them (rehearsal/stand_ins/google_gateway.py).
"""

from __future__ import annotations

from typing import Final

from rehearsal.cloud import releases
from rehearsal.cloud.load_balancers import has_gateway_api
from rehearsal.providers.gcp.call import Call
from rehearsal.toolchain.sources import POOLS

MANAGER: Final = "gke-addon-manager"
MARK: Final = {"addonmanager.kubernetes.io/mode": "Reconcile"}
_API, _KIND = "apiextensions.k8s.io/v1", "CustomResourceDefinition"
_GATEWAY, _CLASS = "gateway.networking.k8s.io/v1", "GatewayClass"


def bring(call: Call, version: str) -> None:
    """Put the definitions of a full GKE version into the cluster, or bring those that are there up to it.

    Switched off again, they stay: Google only no longer looks after them.
    """
    if not has_gateway_api(call.inputs):
        return
    found = call.embedded.definitions(releases.minor_of(version))
    for source, definitions in found.items():
        if source == POOLS and not releases.has_pools(version):
            continue
        for item in definitions:
            meta = {**item["metadata"], "labels": {**(item["metadata"].get("labels") or {}), **MARK}}
            call.embedded.kube.apply({**item, "metadata": meta}, MANAGER, force=True)


def take_away(call: Call) -> None:
    """With the cluster goes what Google had put into it; here the API server lives on."""
    kube = call.embedded.kube
    for item in kube.list(_GATEWAY, _CLASS):
        kube.delete(_GATEWAY, _CLASS, item["metadata"]["name"])
    selector = ",".join(f"{name}={value}" for name, value in MARK.items())
    for item in kube.list(_API, _KIND, selector=selector):
        kube.delete(_API, _KIND, item["metadata"]["name"])
