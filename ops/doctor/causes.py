"""What the last lines of a log mean. Pure data: patterns, and what to do about each.

The words are those of the programs of the lock file: huggingface_hub and boto3 in KServe's storage initializer, vLLM 0.22,
the endpoint picker; of a container runtime for images. They change between versions, so what matches nothing
is shown as it is and never guessed at. The first pattern that matches counts: the narrow ones stand first.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

_SHOWN = 240


@dataclass(frozen=True, kw_only=True)
class Cause:
    """One known message. With `decide`, only a person can supply or decide what is missing."""

    pattern: str
    found: str
    fix: str
    decide: bool = False


DOWNLOADS = (
    Cause(
        pattern=r"[Gg]ated|is restricted|not in the authorized list|awaiting a review",
        found="the model is gated, and the token's owner has not been let in",
        fix="accept the model's licence on its page with the account of the token, or set another token: "
        "`pulumi config set --secret llm-platform:hfToken`, then `up`",
        decide=True,
    ),
    Cause(
        pattern=r"401 Client Error|Unauthorized|Invalid (user token|username or password)|RepositoryNotFound",
        found="the store does not accept the credentials, or does not know the model",
        fix="compare `uri` with the model's page (names are case-sensitive), and set a token that may read it: "
        "`pulumi config set --secret llm-platform:hfToken`, then `up`",
        decide=True,
    ),
    Cause(
        pattern=r"429 Client Error|Too Many Requests",
        found="the store throttles this address",
        fix="set a token, whose limits are higher (`pulumi config set --secret llm-platform:hfToken`), or keep the weights "
        "in a bucket or claim of your own (`uri: s3://…` or `pvc://…`)",
        decide=True,
    ),
    Cause(
        pattern=r"AccessDenied|InvalidAccessKeyId|SignatureDoesNotMatch|NoCredentialsError|Unable to locate cred",
        found="the bucket refuses the pod's identity",
        fix="let the model's service account read the bucket, or set the credentials that the stack file names",
        decide=True,
    ),
    Cause(
        pattern=r"NoSuchBucket|NoSuchKey|EntryNotFound|404 Client Error|Failed to fetch model",
        found="there is nothing to download at `uri`",
        fix="correct the model's `uri`, then `up`",
        decide=True,
    ),
    Cause(
        pattern=r"[Nn]ame or service not known|[Nn]ame resolution|getaddrinfo|NameResolutionError",
        found="the store's name cannot be resolved",
        fix="look at the policies link (DNS), at the cluster's DNS pods, and at the host in `uri`",
    ),
    Cause(
        pattern=r"[Tt]imed out|[Cc]onnection refused|unreachable|ConnectTimeout|Max retries|LocalEntryNotFound",
        found="the store cannot be reached from the pod",
        fix="look at the policies link, then at the way out of the nodes (NAT, firewall, proxy); a private "
        "store's addresses belong into the stack file",
    ),
    Cause(
        pattern=r"No space left on device|ENOSPC|exceeds the total limit of containers",
        found="the node's disk is too small for the weights",
        fix="raise the model's `resources.ephemeralStorage` to twice the weights, or use `uri: pvc://…`",
    ),
)
"""What keeps weights from arriving."""

ENGINE = (
    Cause(
        pattern=r"[Bb]float16 is only supported on GPUs with compute capability",
        found="the accelerator has no bfloat16",
        fix="set `dtype: float16` for the model, or choose a newer accelerator (T4 and older have none)",
    ),
    Cause(
        pattern=r"PassManager::run failed|Triton compilation failed",
        found="the engine's kernels do not compile for this accelerator",
        fix="use the accelerator table's own settings for it (T4: `--enforce-eager`, float16), or an older image",
    ),
    Cause(
        pattern=r"CUDA out of memory|OutOfMemoryError|RESOURCE_EXHAUSTED|Ran out of memory|No available memory",
        found="the accelerator's memory is too small for weights and cache",
        fix="lower `maxModelLen` or `maxNumSeqs`, use more chips per replica, or a quantized model",
    ),
    Cause(
        pattern=r"larger than the (maximum number of tokens that can be stored in KV|available KV) cache",
        found="one request of `maxModelLen` does not fit the KV cache",
        fix="lower `maxModelLen` to what the message says, or raise `gpuMemoryUtilization`",
    ),
    Cause(
        pattern=r"unrecognized arguments|error: argument |invalid choice|expected one argument",
        found="the engine does not know one of its arguments",
        fix="correct the model's `args`: `vllm serve --help` of the locked image lists them",
    ),
    Cause(
        pattern=r"[Aa]rchitectures? .*not supported|does not recognize this architecture|not supported for now",
        found="this engine cannot serve the model's architecture",
        fix="choose an image that can (`image` of the model), or another model",
        decide=True,
    ),
    Cause(
        pattern=r"[Nn]o config format found|does not appear to have a file named config|[Ii]nvalid repository ID",
        found="the weights are not complete where the engine looks for them",
        fix="look at the storage initializer's log, and at the folder that `uri` names: config.json stands in it",
    ),
    Cause(
        pattern=r"TPU is already in use|[Uu]nable to initialize backend 'tpu'|[Ff]ailed to initialize TPU",
        found="the TPU cannot be opened",
        fix="see that no other pod holds the node's chips, and delete the pod: a wedged TPU needs a new process, "
        "sometimes a new node",
    ),
    Cause(
        pattern=r"NVIDIA-SMI has failed|no CUDA-capable device|Found no NVIDIA driver|[Ff]ailed to infer device type",
        found="the container sees no accelerator",
        fix="wait until the GPU operator is done with the node (`kubectl get pods -n gpu-operator`); its driver may be "
        "older than the image wants",
    ),
    Cause(
        pattern=r"NCCL error|ncclSystemError|[Bb]us error",
        found="the chips of one replica cannot talk to each other",
        fix="see that the machine has the chips linked as `tensorParallel` needs; `/dev/shm` must not be full",
    ),
    Cause(
        pattern=r"EngineDeadError|EngineCore (encountered|died|failed)|AsyncEngineDeadError",
        found="the engine died behind its server",
        fix="read what stands before it in the log: most often memory; the kubelet restarts the pod",
    ),
)
"""What ends the engine."""

IMAGES = (
    Cause(
        pattern=r"toomanyrequests|rate limit",
        found="the registry throttles this address",
        fix="set a pull secret (an account has higher limits), or mirror the image and name it in the lock file",
        decide=True,
    ),
    Cause(
        pattern=r"unauthorized|authentication required|denied|403 Forbidden|insufficient_scope",
        found="the registry does not let the node in",
        fix="set a pull secret that may read it: `pulumi config set --secret llm-platform:pullSecret`, then `up`",
        decide=True,
    ),
    Cause(
        pattern=r"i/o timeout|no such host|connection refused|dial tcp|TLS handshake",
        found="the registry cannot be reached from the node",
        fix="look at the way out of the nodes (NAT, private access to the registry), or mirror the image",
    ),
    Cause(
        pattern=r"not found|manifest unknown|no match for platform|invalid reference",
        found="there is no such image for this platform",
        fix="correct the model's `image`, or go back to the locked one by leaving it out; then `up`",
    ),
)
"""What keeps an image from being pulled."""

PICKERS = (
    Cause(
        pattern=r"[Ff]ailed to (parse|load|instantiate).*(config|plugin)|unknown plugin|plugin type .* not (found|reg)",
        found="the picker does not understand its configuration",
        fix="compare the plugins in the model's `router.scheduler.config` with those that the locked picker knows; `up` "
        "writes the stack's own",
    ),
    Cause(
        pattern=r"(forbidden|cannot (list|watch|get) resource)",
        found="the picker may not read the API server",
        fix="`kubectl get rolebinding -A` shows whether KServe's for the picker is there; restart its controller if not",
    ),
    Cause(
        pattern=r"(dial tcp|connect).*(timeout|refused|unreachable).*:(443|6443)|Unable to connect to the server",
        found="the picker cannot reach the API server",
        fix="the picker's network policy must allow the API server's addresses (see the policies link)",
    ),
)
"""What ends a picker."""


def explain(text: str, causes: Iterable[Cause]) -> Cause | None:
    """The first cause that a log shows."""
    return next((cause for cause in causes if re.search(cause.pattern, text)), None)


def proof(text: str, cause: Cause) -> str:
    """The last line of a log that shows the cause."""
    lines = [line for line in text.splitlines() if re.search(cause.pattern, line)]
    return shown(lines[-1]) if lines else last_line(text)


def last_line(text: str) -> str:
    """The last line that says anything; empty where none does."""
    lines = [line for line in text.splitlines() if line.strip()]
    return shown(lines[-1]) if lines else ""


def shown(line: str) -> str:
    """One line, not endlessly long; its end says more than its beginning."""
    line = " ".join(line.split())
    return line if len(line) <= _SHOWN else "…" + line[1 - _SHOWN :]
