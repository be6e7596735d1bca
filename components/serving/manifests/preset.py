"""How a model runs on several TPU hosts: the preset that KServe looks for and does not ship. Pure.

For a service with `worker` and `parallelism.pipeline` KServe 0.20 merges the LLMInferenceServiceConfig of this name, from
the service's namespace before its own (`config_merge.go`), and makes a LeaderWorkerSet of as many pods per group as
`pipeline` says (`workload_multi_node.go`). `pipeline` is KServe's word for the hosts of a replica, and nothing else here.

Between the hosts stands Ray: the TPU image knows no other way (`TPU_MULTIHOST_BACKEND` in `tpu_platform.py` of
vllm-project/tpu-inference v0.22.1, read 2026-08). The leader starts Ray's head, waits for all hosts and then starts
the one vLLM of the group, which takes every chip that Ray has (`ray_distributed_executor.py`) and splits each layer over
all of them: within a slice the chips are linked, and this is what that project's own test of several hosts runs.
Stages over hosts, its other way, would talk through ports that nobody can name before.

LeaderWorkerSet 0.8 tells the pods about each other (`pod_webhook.go`, `tpu.go`): LWS_LEADER_ADDRESS and LWS_GROUP_SIZE
for Ray, TPU_WORKER_HOSTNAMES and TPU_WORKER_ID for the TPUs' own driver.
"""

from __future__ import annotations

from typing import Any

from components.core import labels
from components.core.manifest import Manifest, manifest
from components.serving.manifests.gateway import MODEL_PORT

API = "serving.kserve.io/v1alpha2"
NAME = "kserve-config-llm-worker-pipeline-parallel"
# Of one host, set by the model: how many chips Ray may give away there.
CHIPS_VARIABLE = "CHIPS_PER_HOST"

RAY_PORT, NODE_PORT, OBJECT_PORT = 6379, 6380, 6381
# Ray's processes on a host. A handful run; more than forty ports in one rule are too many for Cilium.
PROCESS_PORTS = tuple(range(10010, 10026))
# The TPUs' driver: its own (GKE's multi-host examples), and TPU_PROCESS_PORT as LeaderWorkerSet sets it.
TPU_PORTS = (8471, 8476)
# What the hosts of a group reach at each other, and nobody else.
GROUP_PORTS = (RAY_PORT, NODE_PORT, OBJECT_PORT, *TPU_PORTS, *PROCESS_PORTS)

TLS_PATH = "/var/run/kserve/tls"
SHARED_MEMORY = "16Gi"
# Ray's share of it, in bytes: half, as the engine has some of its own there.
OBJECT_STORE = 8 * 2**30
GRACE_SECONDS = 60
# For so long the gateway may still send requests to a leader that is to end.
DRAIN_SECONDS = 15

_RAY = f"""
  --node-ip-address="$POD_IP" --node-manager-port={NODE_PORT} --object-manager-port={OBJECT_PORT}
  --worker-port-list={",".join(str(port) for port in PROCESS_PORTS)} --object-store-memory={OBJECT_STORE}
  --num-cpus=4 --resources="{{\\"TPU\\": ${CHIPS_VARIABLE}}}"
""".strip().replace("\n", " \\\n")

# Whoever starts before all hosts are there finds fewer chips than it wants, and ends. The model's own arguments are
# quoted for one more evaluation, as KServe's preset for one host makes it.
LEADER = f"""
set -eu
export RAY_ADDRESS="$POD_IP:{RAY_PORT}"
ray start --head --port={RAY_PORT} --include-dashboard=false \\
  {_RAY}
python3 -c '
import os, ray, time
ray.init(log_to_driver=False)
while sum(node["Alive"] for node in ray.nodes()) < int(os.environ["LWS_GROUP_SIZE"]):
    time.sleep(1)
'
eval "set -- $*"
exec vllm serve /mnt/models \\
  --served-model-name {{{{ .Spec.Model.Name }}}} publishers/{{{{ .ObjectMeta.Namespace }}}}/models/{{{{ .Spec.Model.Name }}}} \\
  --port={MODEL_PORT} \\
  --tensor-parallel-size={{{{ .Spec.Parallelism.Tensor }}}} \\
  --shutdown-timeout={{{{ shutdownTimeout .Spec.Template {DRAIN_SECONDS} }}}} \\
  --disable-access-log-for-endpoints=/health,/metrics,/ping \\
  {{{{ if .GlobalConfig.EnableTLS }}}}--enable-ssl-refresh --ssl-certfile={TLS_PATH}/tls.crt --ssl-keyfile={TLS_PATH}/tls.key{{{{ end }}}} \\
  "$@"
""".strip()

# A worker that ended while it waits for its leader would have the whole group made anew, and so for ever.
WORKER = f"""
set -eu
until (exec 3<>"/dev/tcp/$LWS_LEADER_ADDRESS/{RAY_PORT}") 2>/dev/null; do sleep 1; done
exec ray start --block --address="$LWS_LEADER_ADDRESS:{RAY_PORT}" \\
  {_RAY}
""".strip()

# All pods of a group are asked to end at once, and the leader still answers what it has begun.
_UNTIL_THE_LEADER_HAS_ENDED = f"""
while (exec 3<>"/dev/tcp/$LWS_LEADER_ADDRESS/{RAY_PORT}") 2>/dev/null; do sleep 1; done
""".strip()


def pipeline_parallel(namespace: str) -> Manifest:
    """The preset, for the models of a namespace."""
    return manifest(
        API,
        "LLMInferenceServiceConfig",
        NAME,
        namespace,
        labels=labels.common("models"),
        spec={"template": _pod(_leader()), "worker": _pod(_worker())},
    )


def _leader() -> dict[str, Any]:
    return {
        **_host(),
        "command": ["/bin/bash", "-c", LEADER, "--"],
        "ports": [{"containerPort": MODEL_PORT, "protocol": "TCP"}],
        "lifecycle": {"preStop": {"exec": {"command": ["/bin/sleep", str(DRAIN_SECONDS)]}}},
        # The model's own startup probe gives its load budget; the others only begin after it.
        "startupProbe": _healthy(10, 60),
        "readinessProbe": _healthy(1, 2),
        "livenessProbe": _healthy(10, 10),
    }


def _worker() -> dict[str, Any]:
    """A host that only computes: nobody asks it anything, so that it is ready as soon as it runs."""
    wish = ["/bin/bash", "-c", _UNTIL_THE_LEADER_HAS_ENDED]
    return {
        **_host(),
        "command": ["/bin/bash", "-c", WORKER],
        "lifecycle": {"preStop": {"exec": {"command": wish}}},
    }


def _host() -> dict[str, Any]:
    """What leader and workers have in common; KServe merges it with the model's container `main`."""
    fixed = {
        "TPU_MULTIHOST_BACKEND": "ray",
        "TPU_BACKEND_TYPE": "jax",
        # As that project's own scripts start it: JAX takes what it finds.
        "JAX_PLATFORMS": "",
        "RAY_USAGE_STATS_ENABLED": "0",
        "VLLM_HOST_IP": "$(POD_IP)",
        "VLLM_LOGGING_LEVEL": "INFO",
        "HOME": "/home",
        "HF_HUB_CACHE": "/models",
    }
    return {
        "name": "main",
        "imagePullPolicy": "IfNotPresent",
        "env": [
            {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            *({"name": name, "value": value} for name, value in fixed.items()),
        ],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": False,
            "runAsNonRoot": True,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            {"name": "home", "mountPath": "/home"},
            {"name": "tmp-dir", "mountPath": "/tmp"},
            {"name": "dshm", "mountPath": "/dev/shm"},
            {"name": "model-cache", "mountPath": "/models"},
            {"name": "tls-certs", "mountPath": TLS_PATH, "readOnly": True},
        ],
    }


def _healthy(period: int, failures: int) -> dict[str, Any]:
    scheme = "{{ if .GlobalConfig.EnableTLS }}HTTPS{{ else }}HTTP{{ end }}"
    get = {"path": "/health", "port": MODEL_PORT, "scheme": scheme}
    return {"httpGet": get, "periodSeconds": period, "timeoutSeconds": 1, "failureThreshold": failures}


def _pod(container: dict[str, Any]) -> dict[str, Any]:
    secret = "{{ ChildName .ObjectMeta.Name `-kserve-self-signed-certs` }}"
    return {
        "containers": [container],
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "volumes": [
            *({"name": name, "emptyDir": {}} for name in ("home", "tmp-dir", "model-cache")),
            {"name": "dshm", "emptyDir": {"medium": "Memory", "sizeLimit": SHARED_MEMORY}},
            {"name": "tls-certs", "secret": {"secretName": secret}},
        ],
    }
