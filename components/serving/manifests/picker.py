"""How an endpoint picker runs: the preset that takes the place of KServe's in a namespace of models. Pure.

KServe 0.20 looks for the LLMInferenceServiceConfig of this name in the service's namespace before its own
(`getConfig` in `config_merge.go`). Its preset has a second container that cuts prompts into tokens. Nothing of ours
needs it, and KServe takes it out again, but only after it has laid the model's weights beside it (`scheduler.go`,
attachModelArtifacts before schedulerTransform): a picker would download the model's files at every start, with no
identity at the store, and hold the model's volume claim on a node of its own, from where no GPU node could mount it.
This one has only the picker, and neither weights nor a way to them.
"""

from __future__ import annotations

from typing import Any

from components.core import labels
from components.core.containers import confined
from components.core.manifest import Manifest, manifest
from components.serving.manifests import network_policy, preset, quota

NAME = "kserve-config-llm-scheduler"
# The generation of its command line; KServe rewrites configurations for older ones by it.
VERSION = "0.9.0"
DRAIN_SECONDS, GRACE_SECONDS = 15, 60
EVENTS_PORT = 5557
# A picker that has just started knows no replica yet.
READY_DELAY_SECONDS = 30
_PORTS = {
    "grpc": network_policy.PICKER_PORT,
    "grpc-health": network_policy.PICKER_HEALTH_PORT,
    "metrics": network_policy.PICKER_METRICS_PORT,
    # KServe makes its Service's ports of these names.
    "zmq": EVENTS_PORT,
}
_TLS_FLAGS = (
    "--enable-cert-reload=true",
    "--secure-serving=true",
    "--model-server-metrics-scheme=https",
    f"--cert-path={preset.TLS_PATH}",
)


def scheduler(namespace: str, image: str) -> Manifest:
    """The preset, for the models of a namespace. What a model says of its pool and its picker is merged with it."""
    secret = "{{ ChildName .ObjectMeta.Name `-kserve-self-signed-certs` }}"
    pod = {
        "containers": [_container(image)],
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "volumes": [{"name": "tls-certs", "secret": {"secretName": secret}}],
    }
    marks = {"app.kubernetes.io/version": VERSION}
    return manifest(
        preset.API,
        "LLMInferenceServiceConfig",
        NAME,
        namespace,
        labels=labels.common("models"),
        spec={"router": {"scheduler": {"annotations": marks, "template": pod}}},
    )


def _container(image: str) -> dict[str, Any]:
    limits = {"cpu": quota.PICKER.cpu_limit, "memory": quota.PICKER.memory_limit}
    # The account's directory is where it finds the API server's authority.
    trusted = f"{preset.TLS_PATH}:/var/run/secrets/kubernetes.io/serviceaccount:/etc/pki/tls/certs"
    return {
        "name": "main",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": _command(),
        "env": [{"name": "SSL_CERT_DIR", "value": trusted}],
        "ports": [{"name": name, "containerPort": port, "protocol": "TCP"} for name, port in _PORTS.items()],
        "lifecycle": {"preStop": {"exec": {"command": ["/bin/sleep", str(DRAIN_SECONDS)]}}},
        "livenessProbe": _probe("liveness", delay=5),
        "readinessProbe": _probe("readiness", delay=READY_DELAY_SECONDS),
        "resources": {
            "requests": {"cpu": quota.PICKER.cpu, "memory": quota.PICKER.memory},
            "limits": limits,
        },
        "securityContext": {
            **confined(),
            "runAsNonRoot": True,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [{"name": "tls-certs", "mountPath": preset.TLS_PATH, "readOnly": True}],
    }


def _command() -> list[str]:
    """The pool that it picks from, its servers, and TLS where KServe's is on (else empty words, as in KServe's own)."""
    pool = "{{ ChildName .ObjectMeta.Name `-inference-pool` }}"
    given = ["--pool-name", pool, "--pool-namespace", "{{ .ObjectMeta.Namespace }}", "--zap-encoder", "json"]
    given += ["--grpc-port", str(_PORTS["grpc"]), "--grpc-health-port", str(_PORTS["grpc-health"])]
    tls = [f"{{{{ if .GlobalConfig.EnableTLS }}}}{flag}{{{{ end }}}}" for flag in _TLS_FLAGS]
    return ["/app/epp", *given, *tls]


def _probe(service: str, delay: int) -> dict[str, Any]:
    grpc = {"port": _PORTS["grpc-health"], "service": service}
    return {"grpc": grpc, "initialDelaySeconds": delay, "periodSeconds": 10, "failureThreshold": 3}
