"""One model: what to serve. How it is served follows from the accelerator that it names."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, StringConstraints, WithJsonSchema, model_validator

from components.core.models import ModelArchitecture as CoreArchitecture
from components.serving.manifests import claim as claims
from stacks.config.base import Strict, entry
from stacks.config.errors import refusal
from stacks.config.storage import ClaimFill, ModelClaim
from stacks.config.types import DnsLabel, EnvName, ModelUri, PinnedImage, Quantity, dns_label, sequence

# KServe and Istio derive these names from the model's; beyond 63 characters they would cut or hash them.
DERIVED_SUFFIXES = (
    "-kserve-router-scheduler",
    "-kserve-self-signed-certs",
    "-kserve-workload-svc",
    "-inference-pool-ip-00000000",
)
MAX_MODEL_NAME = 63 - max(len(suffix) for suffix in DERIVED_SUFFIXES)

_DERIVED = "the topology of the accelerator decides it; remove the argument"
_OURS = "the platform sets it; remove the argument"
# vLLM's flags that have an owner already, and what to use instead.
OWNED_ARGS = {
    "--model": "use uri",
    "--host": _OURS,
    "--port": _OURS,
    "--served-model-name": "use servedName",
    "--tensor-parallel-size": "use tensorParallel",
    "-tp": "use tensorParallel",
    "--pipeline-parallel-size": _DERIVED,
    "-pp": _DERIVED,
    "--max-model-len": "use maxModelLen",
    "--max-num-seqs": "use maxNumSeqs",
    "--gpu-memory-utilization": "use gpuMemoryUtilization",
    "--dtype": "use dtype",
    "--quantization": "use quantization",
    "-q": "use quantization",
    "--api-key": "use llm-platform:access; a key here would be readable in the cluster",
    "--enable-force-include-usage": _OURS,
    "--enable-log-requests": "use logRequests",
    "--disable-log-requests": "use logRequests",
    "--no-enable-log-requests": "use logRequests",
    "--ssl-keyfile": _OURS,
    "--ssl-certfile": _OURS,
    "--ssl-ca-certs": _OURS,
    "--device": "the accelerator decides it; remove the argument",
}
OWNED_ENV = {
    "HF_TOKEN": "set the secret: pulumi config set --secret llm-platform:hfToken",
    "HUGGING_FACE_HUB_TOKEN": "set the secret: pulumi config set --secret llm-platform:hfToken",
    "VLLM_ADDITIONAL_ARGS": "use args",
    "VLLM_API_KEY": "use llm-platform:access",
    "VLLM_CACHE_ROOT": "use cache",
    "VLLM_XLA_CACHE_PATH": "use cache",
}


def _flag(argument: str) -> str:
    name = argument.split("=", 1)[0]
    # vLLM takes both spellings of a long flag.
    return name.replace("_", "-") if name.startswith("--") else name


def _argument(value: str) -> str:
    flag = _flag(value)
    if " " in flag:
        raise refusal(
            f'"{value}" is two arguments in one',
            "vLLM would refuse to start",
            f"write {value.replace(' ', '=', 1)}, or two items of the list",
        )
    if flag in OWNED_ARGS:
        raise refusal(
            f"{flag} repeats what the platform sets itself",
            "the two values could contradict each other",
            OWNED_ARGS[flag],
        )
    return value


def _environment(values: dict[str, str]) -> dict[str, str]:
    for name in values:
        if name in OWNED_ENV:
            raise refusal(
                f"{name} is set by the platform",
                "the two values could contradict each other",
                OWNED_ENV[name],
            )
    return values


Argument = Annotated[str, StringConstraints(min_length=1), AfterValidator(_argument)]
ServedName = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,127}$"), Field(title="name")
]


class ModelArchitecture(Strict):
    """The numbers of a model's config.json that memory arithmetic needs."""

    parameters_billions: float = entry("Parameters, all experts included.", gt=0, unit="10^9")
    layers: int = entry("Hidden layers.", ge=1)
    kv_heads: int = entry("Key and value heads of one layer.", ge=1)
    head_dim: int = entry("Size of one head.", ge=1)
    bytes_per_parameter: float = entry(
        "Size of one weight: 2 for FP16 and BF16, 1 for FP8, 0.5 for 4 bits.", 2.0, gt=0, le=8
    )

    attention_heads: int | None = entry("Query heads of one layer.", None, ge=1, derived="not checked")
    context: int | None = entry(
        "Longest context that the model was made for.", None, ge=1, unit="tokens", derived="not checked"
    )

    def core(self) -> CoreArchitecture:
        """The same numbers for the memory arithmetic."""
        return CoreArchitecture(**self.model_dump())


class ModelResources(Strict):
    """CPU, memory and disk of one model pod; accelerators follow from tensorParallel."""

    cpu: Quantity | None = entry("CPU request.", None, unit="cores", derived="the engine's default")
    memory: Quantity | None = entry(
        "Memory request and limit.", None, unit="bytes", derived="the engine's default"
    )
    ephemeral_storage: Quantity | None = entry(
        "Node disk request and limit.", None, unit="bytes", derived="no request"
    )


class ModelCache(Strict):
    """A volume that keeps weights and compiled programs, so that the second start is faster than the first."""

    size: Quantity = entry("Size of the volume; it holds the weights and what was compiled.", unit="bytes")
    storage_class: DnsLabel | None = entry(
        "StorageClass. TPU v6e machines take Hyperdisk and network file systems only.",
        None,
        derived="the cluster's default class",
    )
    shared: bool = entry(
        "All replicas mount it at once (ReadWriteMany), as a network file system can; else one node does.",
        True,
    )


ClaimKey = tuple[str, str]
"""Namespace and name of a claim."""


class Model(Strict):
    """A model service."""

    uri: ModelUri = entry(
        "Weights: hf://owner/model[:revision], s3://bucket/path, pvc://claim/path, oci://image:tag."
    )
    accelerator: DnsLabel = entry("Accelerator of the cluster that serves it.")
    replicas: int = entry("Copies that serve. 0 keeps the service without machines.", 1, ge=0)
    namespace: DnsLabel = entry("Namespace of the model's objects.", "llm-models")
    served_name: ServedName | None = entry(
        "Name in requests and in /v1/models.", None, derived="the model's key"
    )
    max_model_len: int | None = entry(
        "Longest prompt and answer together.", None, ge=1, unit="tokens", derived="the model's own limit"
    )
    max_num_seqs: int | None = entry(
        "Requests that one replica works on at a time.", None, ge=1, unit="requests", derived="vLLM's default"
    )
    max_output_tokens: int | None = entry(
        "Longest answer.", None, ge=1, unit="tokens", derived="what is left of maxModelLen"
    )
    min_tokens_per_second: float = entry(
        "Slowest generation that you plan for, per request; the request timeout is checked with it.",
        20.0,
        gt=0,
        unit="tokens per second",
    )
    gpu_memory_utilization: float | None = entry(
        "Share of accelerator memory for weights and KV cache.",
        None,
        ge=0.1,
        le=0.98,
        derived="0.9, vLLM's default",
    )
    dtype: Literal["auto", "half", "float16", "bfloat16", "float", "float32"] | None = entry(
        "Number format of activations.", None, derived="the model's own"
    )
    quantization: Annotated[str, StringConstraints(pattern=r"^[a-z0-9_-]+$")] | None = entry(
        "Quantization of the weights, as vLLM names it.", None, derived="the model's own"
    )
    tensor_parallel: int | None = entry(
        "Chips that share one replica.",
        None,
        ge=1,
        unit="chips",
        derived="all of its node, or of its TPU slice",
    )
    image: PinnedImage | None = entry(
        "Image of the engine, with exact tag or digest.",
        None,
        derived="the accelerator's image in the lock file",
    )
    args: sequence(Argument) = entry(
        "Further vLLM arguments; those that have a key of their own are refused.", ()
    )
    env: Annotated[dict[EnvName, str], AfterValidator(_environment)] = entry(
        "Further environment of the engine.", factory=dict
    )
    resources: ModelResources | None = entry("CPU, memory and disk of a pod.", None)
    claim: ModelClaim | None = entry(
        "The volume claim of a pvc:// uri, and what fills it.", None, derived="a claim that is there already"
    )
    cache: ModelCache | None = entry(
        "Volume for weights and compiled programs.", None, derived="every start downloads and compiles"
    )
    runtime: Literal["vllm-cuda"] | None = entry(
        "ServingRuntime of the namespace; the model is then an InferenceService, for which no picker runs.",
        None,
        derived="an LLMInferenceService with KServe's own presets",
    )
    routing: Literal["prefix-cache", "load", "none"] = entry(
        "How a replica is picked: by cached prefix and load, by load, or in turn; with a runtime, in turn.",
        "prefix-cache",
    )
    pickers: int = entry("Endpoint pickers that run. One picks; the others stand by.", 1, ge=1, le=3)
    picker_failure_mode: Literal["open", "closed"] = entry(
        "What happens while no picker answers: requests go to any replica, or are refused.", "open"
    )
    load_budget_seconds: int = entry(
        "Time from the start of a pod to Ready: download, load, compile. `up` fails after it.",
        900,
        ge=30,
        le=7200,
        unit="seconds",
    )
    request_timeout_seconds: int = entry(
        "Longest request at the gateway.", 600, ge=1, le=3600, unit="seconds"
    )
    log_requests: bool = entry("Log prompts and answers. They are personal data more often than not.", False)
    gated: bool = entry("The weights need a licence: the secret hfToken must be set.", False)
    architecture: ModelArchitecture | None = entry(
        "For the memory arithmetic.", None, derived="a table of known models; no check for others"
    )

    @model_validator(mode="before")
    @classmethod
    def _without_a_picker(cls, values: Any) -> Any:
        """What nobody says about the routing of a model with a runtime is what alone is possible."""
        return {"routing": "none", **values} if isinstance(values, dict) and values.get("runtime") else values

    @property
    def reads(self) -> ClaimKey | None:
        """The claim that the weights are in; None where they are elsewhere."""
        if not self.uri.startswith(claims.SCHEME):
            return None
        return self.namespace, claims.parts(self.uri)[0]

    @property
    def fill(self) -> ClaimFill | None:
        """What the entry's own claim is filled with; None where this stack fills none for it."""
        return self.claim.fill if self.claim else None

    @property
    def origin(self) -> str:
        """Where the weights come from, before they are put into a claim of the entry's own."""
        return self.fill.source if self.fill else self.uri


def _short_enough(name: str) -> str:
    if len(name) > MAX_MODEL_NAME:
        raise refusal(
            f'"{name}" has {len(name)} characters',
            "names derived from it would exceed the 63 that Kubernetes allows and be cut",
            f"use {MAX_MODEL_NAME} characters at most",
        )
    return name


def _not_taken(name: str) -> str:
    if name == "default":
        raise refusal(
            '"default" is the name of the service account that every namespace has',
            "the model's own account of that name could not be created",
            "use another name",
        )
    return name


ModelName = Annotated[
    str,
    AfterValidator(dns_label),
    AfterValidator(_short_enough),
    AfterValidator(_not_taken),
    WithJsonSchema({"type": "string", "pattern": rf"^[a-z]([-a-z0-9]{{0,{MAX_MODEL_NAME - 2}}}[a-z0-9])?$"}),
]
