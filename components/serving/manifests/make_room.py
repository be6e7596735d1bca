"""Makes room for rollouts in full pools. Runs in a pod of its own, on the standard library alone.

KServe 0.20 gives every model's Deployment Kubernetes' default strategy and writes it again when anybody
changes it (docs/adr/0010). Below four replicas that means: one new pod first, no old one missing. Where the pool has
no room for it the new pod would wait for ever, so this program takes one old replica away instead, as
`maxSurge: 0, maxUnavailable: 1` would. It changes nothing but the size of ReplicaSets that are on their way out.

Where one node at a time mounts the model's volume (`--one-node`) a new pod may find a node and still wait for ever: the
volume is attached elsewhere as long as the old pod lives, in its own pool or in the one that the model leaves.
"""

from __future__ import annotations

import json
import os
import ssl
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

IDENTITY = Path(os.environ.get("IDENTITY", "/var/run/secrets/kubernetes.io/serviceaccount"))
REVISION = "deployment.kubernetes.io/revision"
ONE_NODE = "--one-node"
WAIT_SECONDS = 2
ANSWER_SECONDS = 10

Object = dict[str, Any]


def decide(
    deployment: Object, replica_sets: list[Object], pods: list[Object], one_node: bool = False
) -> tuple[Object, int] | None:
    """The ReplicaSet to shrink, and its new size; None while there is nothing to do or something is under way.

    No replica goes while another one starts or ends, and none that serves unless all others do: so of the
    replicas that were asked for at most one is missing. A new pod that fails therefore ends the rollout there.
    `one_node` counts a new pod that has a node and is not ready as one that waits, wherever its node is. One that
    has none yet waits for the old pod's only where that is a node for it: the volume alone would not help.
    """
    meta, spec = deployment["metadata"], deployment["spec"]
    own = [rs for rs in replica_sets if _owner(rs) == meta["uid"]]
    new = next((rs for rs in own if _revision(rs) == _revision(deployment)), None)
    if new is None or deployment["status"].get("observedGeneration", 0) < meta["generation"]:
        return None
    of = {rs["metadata"]["uid"]: [p for p in pods if _owner(p) == rs["metadata"]["uid"]] for rs in own}
    everyone = [pod for some in of.values() for pod in some]
    fresh = of[new["metadata"]["uid"]]
    held = [pod for pod in fresh if one_node and _placed(pod) and not _ready(pod)]
    homeless = [pod for pod in fresh if _homeless(pod)]
    started = [pod for pod in fresh if pod not in held and pod not in homeless]
    old = [
        rs for rs in own if rs is not new and rs["spec"]["replicas"] and (held or _place(rs) == _place(new))
    ]
    if not (held or homeless) or any("deletionTimestamp" in pod["metadata"] for pod in everyone):
        return None
    if not all(_ready(pod) for pod in started):
        return None
    useless = [rs for rs in old if not all(_ready(pod) for pod in of[rs["metadata"]["uid"]])]
    if not useless and sum(_ready(pod) for pod in everyone) < spec.get("replicas", 1):
        return None
    return next(((rs, rs["spec"]["replicas"] - 1) for rs in (*useless, *old)), None)


def _owner(item: Object) -> str:
    return next((o["uid"] for o in item["metadata"].get("ownerReferences", []) if o.get("controller")), "")


def _revision(item: Object) -> str | None:
    return (item["metadata"].get("annotations") or {}).get(REVISION)


def _place(replica_set: Object) -> Any:
    """Where its pods may run: elsewhere, nothing is gained for the new ones."""
    return replica_set["spec"]["template"]["spec"].get("nodeSelector")


def _conditions(pod: Object) -> dict[str, Object]:
    return {c["type"]: c for c in pod.get("status", {}).get("conditions") or ()}


def _ready(pod: Object) -> bool:
    return _conditions(pod).get("Ready", {}).get("status") == "True"


def _homeless(pod: Object) -> bool:
    return _conditions(pod).get("PodScheduled", {}).get("reason") == "Unschedulable"


def _placed(pod: Object) -> bool:
    return _conditions(pod).get("PodScheduled", {}).get("status") == "True"


def ask(path: str, change: Object | None = None) -> Object:
    """Read from the API server, or change by a merge patch. Raises OSError."""
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
    host = f"[{host}]" if ":" in host else host
    # The kubelet renews the token, so it is read each time.
    headers = {
        "Authorization": f"Bearer {(IDENTITY / 'token').read_text().strip()}",
        "Content-Type": "application/merge-patch+json",
    }
    data = None if change is None else json.dumps(change).encode()
    request = urllib.request.Request(
        f"https://{host}:{port}{path}", data, headers, method="PATCH" if data else "GET"
    )
    trust = ssl.create_default_context(cafile=str(IDENTITY / "ca.crt"))
    with urllib.request.urlopen(request, timeout=ANSWER_SECONDS, context=trust) as answer:
        return json.load(answer)


def look(namespace: str, name: str, one_node: bool) -> None:
    """Look at one Deployment, and make room for it where that is due."""
    apps = f"/apis/apps/v1/namespaces/{namespace}"
    try:
        deployment = ask(f"{apps}/deployments/{name}")
    except urllib.error.HTTPError as refused:
        if refused.code == 404:  # Not there yet, or any more.
            return
        raise
    if not deployment["status"].get("unavailableReplicas"):
        return
    wanted = deployment["spec"]["selector"]["matchLabels"]
    chosen = urlencode({"labelSelector": ",".join(f"{key}={value}" for key, value in wanted.items())})
    replica_sets = ask(f"{apps}/replicasets?{chosen}")["items"]
    pods = ask(f"/api/v1/namespaces/{namespace}/pods?{chosen}")["items"]
    if move := decide(deployment, replica_sets, pods, one_node):
        replica_set, size = move
        meta = replica_set["metadata"]
        # With its version, so that nothing happens if somebody else was faster.
        change = {"metadata": {"resourceVersion": meta["resourceVersion"]}, "spec": {"replicas": size}}
        ask(f"{apps}/replicasets/{meta['name']}/scale", change)
        lacking = "no node, or not its volume," if one_node else "no node"
        print(f"{name}: {lacking} is free for the next replica, so {meta['name']} keeps {size}", flush=True)


def main() -> None:
    """Look after the Deployment that the command line names, its namespace first."""
    namespace, name, *flags = sys.argv[1:]
    while True:
        try:
            look(namespace, name, ONE_NODE in flags)
        except (OSError, ValueError) as failure:
            print(f"{name}: {failure}", flush=True)
        time.sleep(WAIT_SECONDS)


if __name__ == "__main__":
    main()
