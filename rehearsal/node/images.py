"""Which images can be pulled here, and which of them run a real program.

Matched by repository without its registry host, so a mirror makes no difference.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ops.kube import Manifest


@dataclass(frozen=True)
class Placement:
    """Where a program runs.

    `address` is the pod's, `root` the directory that stands for the container's file
    system, and `local_port` gives a free local port for a server that takes no address.
    """

    address: str
    local_port: Callable[[int], int]
    root: Path = Path("/")


Variables = Mapping[str, str]
"""Environment variables by name."""


@dataclass(frozen=True)
class Program:
    """A program behind an image.

    `binary` stands for the image's entry point. Where a container brings a command
    of its own, as KServe's presets do, that command runs as it is when `shell` is
    set, and finds `binary` on its search path; otherwise the command's first word is
    taken for the entry point. `called` are words by which arguments may repeat it.
    `flags` are added after the container's own arguments, and `env` to its
    environment, for the one thing that containers give and a shared loopback does
    not: a port space and a file system of their own. Without `takes_arguments`
    the container's own are dropped. `files` rewrites mounted files, by name, for
    programs configured that way.
    """

    binary: str
    flags: Callable[[Placement], list[str]] = lambda _: []
    files: Mapping[str, Callable[[str, Placement], str]] = field(default_factory=dict)
    shell: bool = False
    arguments: tuple[str, ...] = ()
    env: Callable[[Placement, Variables], Variables] = lambda _place, _own: {}
    called: tuple[str, ...] = ()
    takes_arguments: bool = True


@dataclass(frozen=True)
class Container:
    """A simulated container: ready `ready_seconds` after its start, serving nothing."""

    ready_seconds: float = 0.2


def _kserve_flags(place: Placement) -> list[str]:
    return [
        f"--webhook-port={place.local_port(9443)}",
        f"--metrics-addr={place.address}:8443",
        f"--health-probe-addr={place.address}:8081",
        # Election reads its namespace from a file of fixed path that only a container has.
        "--leader-elect=false",
    ]


def _lws_config(text: str, place: Placement) -> str:
    config: dict[str, Any] = yaml.safe_load(text)
    webhook = {"host": place.address, "port": 9443, **config.get("webhook", {})}
    # It serves its webhooks only once its certificate is mounted; the path is its default (api/config/v1alpha1).
    mounted = webhook.get("certDir", "/tmp/k8s-webhook-server/serving-certs")
    config["webhook"] = {**webhook, "certDir": f"{place.root}{mounted}"}
    config["health"] = {"healthProbeBindAddress": f"{place.address}:8081"}
    config["metrics"] = {"bindAddress": f"{place.address}:8443"}
    return yaml.safe_dump(config)


def _picker_flags(place: Placement) -> list[str]:
    # It binds all addresses of the machine and has no flag for one. `--model-server-metrics-scheme`, which
    # KServe's preset passes with TLS, is deprecated in the inference extension 1.5 but still understood.
    return [
        f"--grpc-port={place.local_port(9002)}",
        f"--grpc-health-port={place.local_port(9003)}",
        f"--metrics-port={place.local_port(9090)}",
    ]


def _ratelimit_env(place: Placement, own: Variables) -> Variables:
    """Its four servers on the pod's address, and the limits where they are mounted (`settings.go`)."""
    metrics_port = own.get("PROMETHEUS_ADDR", ":9090").rpartition(":")[2]
    runtime = own.get("RUNTIME_ROOT", "/srv/runtime_data/current")
    return {
        **dict.fromkeys(("HOST", "GRPC_HOST", "DEBUG_HOST"), place.address),
        "PROMETHEUS_ADDR": f"{place.address}:{metrics_port}",
        "RUNTIME_ROOT": f"{place.root}{runtime}",
    }


def _valkey_flags(place: Placement) -> list[str]:
    # Its title would be written over the environment by which our processes are known.
    return ["--bind", place.address, "--port", "6379", "--set-proc-title", "no"]


# The Python packages of an engine's image, as far as scripts of ours import them.
IMPORTABLE = Path(__file__).parent.parent / "model_server" / "importable"


def _engine_env(_: Placement, own: Variables) -> Variables:
    return {"PYTHONPATH": str(IMPORTABLE)} if "TPU_MULTIHOST_BACKEND" in own else {}


# vLLM's command; the server behind it is simulated (rehearsal/model_server).
VLLM = Program("vllm", shell=True, arguments=("serve",), env=_engine_env)

# The Python of KServe's storage initializer; its downloads are simulated (rehearsal/storage_initializer).
FETCHER = Program("pod-fetcher")

IMAGES: Mapping[str, Program | Container] = {
    "kserve/llmisvc-controller": Program("kserve-llmisvc", _kserve_flags),
    "kserve/kserve-controller": Program("kserve-manager", _kserve_flags),
    "kubectl": Program("kubectl"),
    "library/python": Program("pod-python"),
    # The inference extension's own picker: the one that llm-d's is built on.
    "llm-d/llm-d-router-endpoint-picker": Program("epp", _picker_flags),
    # Redis 6.2 answers for Valkey, which began as its copy.
    "valkey/valkey": Program("redis-server", _valkey_flags, called=("valkey-server",)),
    "envoyproxy/ratelimit": Program("ratelimit", env=_ratelimit_env),
    # Istio's proxy: Envoy, with the configuration that rehearsal/gateway writes.
    "istio/proxyv2": Program("proxyv2", takes_arguments=False),
    "lws/lws": Program("lws", files={"controller_manager_config.yaml": _lws_config}),
    "jetstack/cert-manager-controller": Container(),
    "jetstack/cert-manager-webhook": Container(),
    "jetstack/cert-manager-cainjector": Container(),
    "jetstack/cert-manager-startupapicheck": Container(),
    "brancz/kube-rbac-proxy": Container(),
    "istio/pilot": Container(),
    # As an init container of KServe's it is the node that downloads; this is for programs of ours.
    "kserve/storage-initializer": FETCHER,
    "llm-d/llm-d-uds-tokenizer": Container(),
    "llm-d/llm-d-cuda": VLLM,
    "vllm/vllm-openai": VLLM,
    "vllm/vllm-tpu": VLLM,
}


def repository(image: str) -> str:
    """The repository of an image reference, without registry host, tag and digest."""
    name = image.split("@", 1)[0]
    head, slash, rest = name.partition("/")
    if slash and ("." in head or ":" in head or head == "localhost"):
        name = rest
    path, colon, tag = name.rpartition(":")
    return path if colon and "/" not in tag else name


def find(image: str) -> Program | Container | None:
    """What runs for an image, or None when it cannot be pulled."""
    name = repository(image)
    return next((what for known, what in IMAGES.items() if name == known or name.endswith(f"/{known}")), None)


def serves_model(pod: Manifest) -> bool:
    """Whether an engine that serves a model is among a pod's containers."""
    return any(find(c["image"]) is VLLM for c in pod["spec"]["containers"])


def has_stages(pod: Manifest) -> bool:
    """Whether a pod's programs ask how long what they do shall take: engines, and what fetches weights."""
    return any(find(c["image"]) in (VLLM, FETCHER) for c in pod["spec"]["containers"])


def accelerator(pod: Manifest) -> str:
    """The resource by which a pod asks for accelerators, for example `google.com/tpu`; "" without."""
    limits = ((c.get("resources") or {}).get("limits") or {} for c in pod["spec"]["containers"])
    return next((name for given in limits for name in given if "/" in name), "")
