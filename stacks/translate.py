"""Configuration to component arguments. Pure: no resources, no Outputs, no files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from components.clusters.existing import ExistingClusterArgs
from components.clusters.handle import AcceleratorPool
from components.core import phases
from components.core.accelerators import ACCELERATORS, Accelerator
from components.core.manifest import drop_none
from components.core.services import kind_of
from components.platform.artifacts import ArtifactSource
from components.platform.kserve import KServeArgs
from components.platform.lock import Lock
from components.serving.chain import RequestArgs
from components.serving.manifests import monitoring
from components.serving.manifests.access import AccessSpec, audience
from components.serving.manifests.cache import CacheSpec
from components.serving.manifests.certificate import NAME as CERTIFICATE
from components.serving.manifests.certificate import CertificateSpec
from components.serving.manifests.chain import ChainSpec
from components.serving.manifests.gateway import MODEL_HEADER, GatewaySpec, model_name
from components.serving.manifests.llm_service import ModelSpec
from components.serving.manifests.lua import LuaAccess, LuaModel, LuaTenant, requests_source
from components.serving.manifests.monitoring import ModelTarget, MonitoringSpec
from components.serving.manifests.network_policy import Peer
from components.serving.manifests.rollout import grace_seconds
from components.serving.manifests.serving_runtime import NAME as RUNTIME
from components.serving.manifests.serving_runtime import RuntimeSpec
from components.serving.manifests.token_limits import LimitsSpec
from stacks.config import Access, ExistingCluster, Model, StackConfig
from stacks.config.existing import ExistingAccelerator
from stacks.config.plans import rollout
from stacks.storage import filling, store

# The platform's operators by their keys in the configuration.
_OPERATORS = {
    "cert_manager": "cert-manager",
    "istio": "istio",
    "gateway_api": "gateway-api",
    "inference_extension": "inference-extension",
    "kserve": "kserve",
    "leader_worker_set": "leader-worker-set",
}
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
    # Parts without an owner come with the gateway's kind.
    istio = config.gateway.kind == "istio"
    gateways = "managed" if istio else "provided"
    wanted = {name: getattr(config.platform, key) or gateways for key, name in _OPERATORS.items()}
    wanted["gpu-operator"] = config.gpu_operator
    if config.cluster.kind == "eks":
        wanted["cluster-autoscaler"] = "managed"
    managed = frozenset(name for name, owner in wanted.items() if owner == "managed")
    # Google's gateway does without Istio, so it need not be there.
    there = wanted.keys() if istio else wanted.keys() - {"istio"}
    return managed, tuple(sorted(there - managed))


def artifact_source(config: StackConfig) -> ArtifactSource:
    """Where charts and manifests come from."""
    artifacts = config.platform.artifacts
    return ArtifactSource(directory=artifacts.directory, verify_digests=artifacts.verify_digests)


def gateway_spec(config: StackConfig) -> GatewaySpec:
    """The Gateway."""
    gateway = config.gateway
    tls = gateway.tls if gateway.encrypted else None
    managed = tls.certificate_manager if tls else None
    google = google_class(config) is not None
    return GatewaySpec(
        name=gateway.name,
        namespace=gateway.namespace,
        class_name=gateway.gateway_class,
        internal=gateway.exposure == "internal",
        cloud=_CLOUDS[config.cluster.kind],
        host=gateway.host,
        tls_secret=(tls.secret_name or CERTIFICATE) if tls and not managed else None,
        certificate=managed,
        google=google,
        marks=monitoring.STATS if config.platform.monitoring != "none" and not google else {},
    )


def google_class(config: StackConfig) -> str | None:
    """The class of Google's gateway; None where the gateway is another."""
    return config.gateway.gateway_class if config.gateway.kind == "gke" else None


def proxies(config: StackConfig) -> tuple[str, ...]:
    """Address blocks that Google's gateway sends requests from; none where the gateway runs in the cluster."""
    if config.gateway.kind != "gke":
        return ()
    if config.cluster.kind == "gke":
        return (config.cluster.network.proxies,)
    return (config.gateway.proxy_only,)


def model_headers(config: StackConfig) -> dict[str, str]:
    """The header that chooses each model at the base URL, where no program of ours reads the body for its name."""
    if config.gateway.kind != "gke":
        return {}
    return {
        name: f"{MODEL_HEADER}: {model_name(model.namespace, model.served_name or name)}"
        for name, model in sorted(config.models.items())
    }


def certificate(config: StackConfig) -> CertificateSpec | None:
    """The certificate that is issued for the gateway; None where none is, or somebody else brings it."""
    gateway = config.gateway
    if gateway.tls is None or gateway.tls.issuer is None or gateway.host is None:
        return None
    return CertificateSpec(
        gateway=gateway.name,
        namespace=gateway.namespace,
        host=gateway.host,
        issuer=gateway.tls.issuer,
        email=gateway.tls.email,
    )


def monitoring_peer(config: StackConfig) -> Peer | None:
    """The pods that scrape metrics."""
    home = _monitoring_home(config)
    return monitoring.scraper(config.platform.monitoring, home) if home else None


def monitoring_spec(config: StackConfig) -> MonitoringSpec | None:
    """What is scraped and what raises an alert."""
    home = _monitoring_home(config)
    if home is None:
        return None
    return MonitoringSpec(
        system=config.platform.monitoring,
        namespace=home,
        # Google's has no pods, and metrics of its own (loadbalancing.googleapis.com).
        gateway=config.gateway.name if config.gateway.kind == "istio" else None,
        gateway_namespace=config.gateway.namespace,
        marks=config.platform.monitoring_labels,
        tls=kserve_args(config).tls,
        limits=config.access is not None,
        models=tuple(
            ModelTarget(
                name=name,
                namespace=model.namespace,
                pooled=model.routing != "none",
                running=config.power != "asleep" and model.replicas > 0,
                load_budget_seconds=model.load_budget_seconds,
                kind=kind_of(model.runtime),
            )
            for name, model in sorted(config.models.items())
        ),
    )


def _monitoring_home(config: StackConfig) -> str | None:
    platform = config.platform
    if platform.monitoring == "none":
        return None
    return platform.monitoring_namespace or monitoring.NAMESPACES[platform.monitoring]


def requests(config: StackConfig, stack: str, lock: Lock) -> RequestArgs | None:
    """What the gateway does with requests; None for Google's gateway, which runs no program of ours."""
    gateway, access = config.gateway, config.access
    if gateway.kind != "istio":
        return None
    spec = ChainSpec(
        gateway=gateway.name,
        namespace=gateway.namespace,
        access=_access(access, audience(stack, gateway.namespace, gateway.name)) if access else None,
        tls=gateway.encrypted,
    )
    return RequestArgs(
        spec=spec,
        source=requests_source(_lua_models(config), _lua_access(access) if access else None),
        limits=_limits(config, access, lock) if access else None,
    )


def _access(access: Access, audience: str) -> AccessSpec:
    return AccessSpec(
        audience=audience,
        public_keys={key_id: jwk.model_dump() for key_id, jwk in access.public_keys.items()},
        measure=access.limit_by,
        fail_open=access.failure_mode == "open",
    )


def _lua_models(config: StackConfig) -> list[LuaModel]:
    prices = config.access.multipliers if config.access else {}
    return [
        LuaModel(
            key=name,
            namespace=model.namespace,
            names=(model.served_name or name,),
            multiplier=prices.get(name, 1.0),
            asleep=config.power == "asleep" or model.replicas == 0,
        )
        for name, model in sorted(config.models.items())
    ]


def _lua_access(access: Access) -> LuaAccess:
    tenants = {
        name: LuaTenant(tier=tenant.tier, models=tenant.models)
        for name, tenant in sorted(access.tenants.items())
    }
    return LuaAccess(
        tenants=tenants,
        revoked=tuple(sorted(access.revoked)),
        measure=access.limit_by,
        verified=tuple(sorted(access.tiers)) if access.verification else (),
    )


def _limits(config: StackConfig, access: Access, lock: Lock) -> LimitsSpec:
    field = f"{access.limit_by}_per_minute"
    return LimitsSpec(
        namespace=config.gateway.namespace,
        measure=access.limit_by,
        budgets={name: getattr(tier, field) for name, tier in access.tiers.items()},
        shadow=access.shadow,
        image=lock.images["ratelimit"].pinned,
        store_image=lock.images["valkey"].pinned,
    )


def kserve_args(config: StackConfig) -> KServeArgs:
    """KServe's settings. Google's gateway cannot speak TLS to an InferencePool."""
    gateway = config.gateway
    return KServeArgs(
        gateway=f"{gateway.namespace}/{gateway.name}",
        gateway_class=gateway.gateway_class,
        tls=gateway.kind == "istio",
    )


def time_to_ready(config: StackConfig) -> dict[str, Any]:
    """How long each phase of the first `up` was seen to take elsewhere, in words."""
    new = config.cluster.kind != "existing"
    vendors = sorted(
        {ACCELERATORS[p.shape().accelerator].vendor for p in config.cluster.accelerators.values()}
    )
    return {
        "note": phases.NOTE,
        **({name: str(span) for name, span in phases.CLUSTER.items()} if new else {}),
        "operators": str(phases.OPERATORS),
        **{
            f"{vendor} pod, {name}": str(span)
            for vendor in vendors
            for name, span in phases.POD[vendor].items()
        },
    }


def namespaces(config: StackConfig) -> tuple[str, ...]:
    """The namespaces of the models."""
    return tuple(sorted({model.namespace for model in config.models.values()}))


def spans_hosts(namespace: str, config: StackConfig) -> bool:
    """Whether a replica of one of the namespace's models has several hosts."""
    pools = config.cluster.accelerators
    here = (model for model in config.models.values() if model.namespace == namespace)
    return any(pools[model.accelerator].shape().nodes_per_replica > 1 for model in here)


def picks(namespace: str, config: StackConfig) -> bool:
    """Whether an endpoint picker runs for one of the namespace's models."""
    here = (model for model in config.models.values() if model.namespace == namespace)
    return any(model.routing != "none" for model in here)


def serving_runtime(namespace: str, config: StackConfig, lock: Lock) -> RuntimeSpec | None:
    """What the namespace's models that name a runtime share; None where none does."""
    here = (model for model in config.models.values() if model.namespace == namespace)
    return _runtime(namespace, lock) if any(model.runtime for model in here) else None


def _runtime(namespace: str, lock: Lock) -> RuntimeSpec:
    # The image of the lock file that has the runtime's name.
    return RuntimeSpec(namespace=namespace, image=lock.images[RUNTIME].pinned)


def model_spec(name: str, config: StackConfig, pools: Mapping[str, AcceleratorPool], lock: Lock) -> ModelSpec:
    """One model on its pool; asleep it keeps everything but its replicas."""
    model = config.models[name]
    pool = pools[model.accelerator]
    accelerator = pool.accelerator
    resources = model.resources
    image = model.image or lock.images[accelerator.image_key].pinned
    plan = rollout(config, name)
    return ModelSpec(
        name=name,
        namespace=model.namespace,
        uri=model.uri,
        served_name=model.served_name or name,
        replicas=0 if config.power == "asleep" else model.replicas,
        image=image,
        resource=accelerator.resource,
        chips=config.tensor_parallel(model),
        hosts=pool.nodes_per_replica,
        node_selector=pool.node_selector,
        tolerations=pool.tolerations,
        args=_engine_args(config, model, accelerator),
        env={**accelerator.extra_env, **model.env},
        cpu=resources.cpu if resources else None,
        memory=resources.memory if resources else None,
        ephemeral_storage=resources.ephemeral_storage if resources else None,
        load_budget_seconds=model.load_budget_seconds,
        starts=plan.starts,
        grace_seconds=grace_seconds(model.request_timeout_seconds),
        routing=model.routing,
        pickers=model.pickers,
        picker_fails_open=model.picker_failure_mode == "open",
        run_as_root=accelerator.run_as_root,
        cache=_cache(name, model, pool, image),
        store=store(config, model.uri),
        weights=filling(config, model),
        runtime=_runtime(model.namespace, lock) if model.runtime else None,
        strategy=plan.strategy if model.runtime else None,
    )


def _cache(name: str, model: Model, pool: AcceleratorPool, image: str) -> CacheSpec | None:
    if model.cache is None:
        return None
    return CacheSpec(
        model=name,
        namespace=model.namespace,
        uri=model.uri,
        size=model.cache.size,
        storage_class=model.cache.storage_class,
        shared=model.cache.shared,
        engine=image,
        shape=f"{pool.accelerator.name} {pool.nodes_per_replica}x{pool.chips_per_node}",
    )


def _engine_args(config: StackConfig, model: Model, accelerator: Accelerator) -> tuple[str, ...]:
    """Flags of `vllm serve`, the model's own last."""
    flags = {
        "--max-model-len": model.max_model_len,
        "--max-num-seqs": model.max_num_seqs,
        "--gpu-memory-utilization": model.gpu_memory_utilization,
        "--dtype": model.dtype or accelerator.dtype,
        "--quantization": model.quantization,
    }
    given = tuple(f"{flag}={value}" for flag, value in flags.items() if value is not None)
    # Without it a stream whose client does not ask for usage could only be estimated, and one that is cut off
    # before its end would cost nothing (vLLM: each chunk then carries what was used so far).
    counting = ("--enable-force-include-usage",) if config.access else ()
    # vLLM takes this for the longest answer of any request.
    cap = model.max_output_tokens
    capped = (f'--override-generation-config={{"max_new_tokens":{cap}}}',) if cap else ()
    # Off is the engine's default: prompts are personal data more often than not.
    logging = ("--enable-log-requests",) if model.log_requests else ()
    return (*given, *counting, *capped, *logging, *accelerator.extra_args, *model.args)
