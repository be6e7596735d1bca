"""Configuration to component arguments. Pure: no resources, no Outputs, no files."""

from __future__ import annotations

from collections.abc import Mapping

from components.clusters.existing import ExistingClusterArgs
from components.clusters.handle import AcceleratorPool
from components.core.accelerators import ACCELERATORS, Accelerator
from components.core.manifest import drop_none
from components.platform.artifacts import ArtifactSource
from components.platform.kserve import KServeArgs
from components.platform.lock import Lock
from components.serving.manifests.gateway import GatewaySpec
from components.serving.manifests.llm_service import ModelSpec
from stacks.config import ExistingCluster, Model, StackConfig
from stacks.config.existing import ExistingAccelerator

# The platform's operators by their keys in the configuration.
_OPERATORS = {
    "cert_manager": "cert-manager",
    "istio": "istio",
    "gateway_api": "gateway-api",
    "inference_extension": "inference-extension",
    "kserve": "kserve",
    "leader_worker_set": "leader-worker-set",
}
# The Secret that cert-manager fills with the gateway's certificate.
_TLS_SECRET = "gateway-tls"
_CLOUDS = {"gke": "gcp", "eks": "aws", "existing": "other"}


def existing_cluster(cluster: ExistingCluster) -> ExistingClusterArgs:
    """The arguments of an existing cluster."""
    return ExistingClusterArgs(
        context=cluster.context,
        kubeconfig=cluster.kubeconfig,
        accelerators={key: _pool(pool) for key, pool in sorted(cluster.accelerators.items())},
    )


def _pool(pool: ExistingAccelerator) -> AcceleratorPool:
    accelerator = ACCELERATORS[pool.type]
    tolerations = accelerator.tolerations
    if pool.tolerations is not None:
        tolerations = tuple(drop_none(toleration.model_dump()) for toleration in pool.tolerations)
    selector = accelerator.node_selector if pool.node_selector is None else pool.node_selector
    return AcceleratorPool(
        accelerator=accelerator,
        node_selector=dict(selector),
        tolerations=tolerations,
        chips_per_node=pool.per_node,
        max_nodes=pool.max_nodes,
    )


def operators(config: StackConfig) -> tuple[frozenset[str], tuple[str, ...]]:
    """The operators that this stack installs, and those that are there already."""
    wanted = {name: getattr(config.platform, key) for key, name in _OPERATORS.items()}
    wanted["gpu-operator"] = config.gpu_operator
    managed = frozenset(name for name, owner in wanted.items() if owner == "managed")
    return managed, tuple(sorted(wanted.keys() - managed))


def artifact_source(config: StackConfig) -> ArtifactSource:
    """Where charts and manifests come from."""
    artifacts = config.platform.artifacts
    return ArtifactSource(directory=artifacts.directory, verify_digests=artifacts.verify_digests)


def gateway_spec(config: StackConfig) -> GatewaySpec:
    """The Gateway."""
    gateway = config.gateway
    tls = gateway.tls if gateway.encrypted else None
    return GatewaySpec(
        name=gateway.name,
        namespace=gateway.namespace,
        class_name=gateway.gateway_class,
        internal=gateway.exposure == "internal",
        cloud=_CLOUDS[config.cluster.kind],
        host=gateway.host,
        tls_secret=(tls.secret_name or _TLS_SECRET) if tls else None,
        issuer=tls.issuer if tls else None,
    )


def kserve_args(config: StackConfig) -> KServeArgs:
    """KServe's settings. Google's gateway cannot speak TLS to an InferencePool."""
    gateway = config.gateway
    return KServeArgs(
        gateway=f"{gateway.namespace}/{gateway.name}",
        gateway_class=gateway.gateway_class,
        tls=gateway.kind == "istio",
    )


def request_timeout(config: StackConfig, model: Model) -> int | None:
    """The route's timeout in seconds; None for Google's gateway, which refuses timeouts in routes."""
    return model.request_timeout_seconds if config.gateway.kind == "istio" else None


def namespaces(config: StackConfig) -> tuple[str, ...]:
    """The namespaces of the models."""
    return tuple(sorted({model.namespace for model in config.models.values()}))


def model_spec(name: str, config: StackConfig, pools: Mapping[str, AcceleratorPool], lock: Lock) -> ModelSpec:
    """One model on its pool; asleep it keeps everything but its replicas."""
    model = config.models[name]
    pool = pools[model.accelerator]
    accelerator = pool.accelerator
    resources = model.resources
    return ModelSpec(
        name=name,
        namespace=model.namespace,
        uri=model.uri,
        served_name=model.served_name or name,
        replicas=0 if config.power == "asleep" else model.replicas,
        image=model.image or lock.images[accelerator.image_key].pinned,
        resource=accelerator.resource,
        chips=config.tensor_parallel(model),
        node_selector=pool.node_selector,
        tolerations=pool.tolerations,
        args=_engine_args(model, accelerator),
        env={**accelerator.extra_env, **model.env},
        cpu=resources.cpu if resources else None,
        memory=resources.memory if resources else None,
        ephemeral_storage=resources.ephemeral_storage if resources else None,
        load_budget_seconds=model.load_budget_seconds,
        routing=model.routing,
        run_as_root=accelerator.run_as_root,
    )


def _engine_args(model: Model, accelerator: Accelerator) -> tuple[str, ...]:
    """Flags of `vllm serve`, the model's own last."""
    flags = {
        "--max-model-len": model.max_model_len,
        "--max-num-seqs": model.max_num_seqs,
        "--gpu-memory-utilization": model.gpu_memory_utilization,
        "--dtype": model.dtype or accelerator.dtype,
        "--quantization": model.quantization,
    }
    given = tuple(f"{flag}={value}" for flag, value in flags.items() if value is not None)
    # Off is the engine's default: prompts are personal data more often than not.
    logging = ("--enable-log-requests",) if model.log_requests else ()
    return (*given, *logging, *accelerator.extra_args, *model.args)
