"""What all checks share: the configuration, who is asked, what is known of the cluster, and what was wished for."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import pairwise

from components.core.services import LLM, ServiceKind, kind_of
from components.serving.manifests.gateway import model_prefix
from ops.kube import Kube
from ops.state import State
from ops.verify.client import Client
from ops.verify.passes import Passes
from ops.verify.verdicts import Unchecked
from stacks.config import Model, StackConfig

BLOCK = 16
"""Tokens in a block of vLLM's prefix cache, unless `--block-size` says otherwise."""
_BLOCK_FLAG = "--block-size"


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """How much is asked for, and what is fast enough: requests per second, and milliseconds."""

    requests: int = 20
    concurrent: int = 10
    min_rps: float | None = None
    max_p50: float | None = None
    max_tokens: int = 20_000


@dataclass(frozen=True, kw_only=True)
class Target:
    """One model as its clients know it."""

    key: str
    name: str
    namespace: str
    replicas: int
    routing: str
    longest: int | None
    block: int
    price: float = 1.0
    kind: ServiceKind = LLM

    @property
    def prefix(self) -> str:
        """Where the model lives on the gateway."""
        return model_prefix(self.namespace, self.key)

    def __str__(self) -> str:
        return f"model {self.key}"


@dataclass(frozen=True, kw_only=True)
class Bench:
    """`kube` is None where the cluster cannot be reached, for the reason in `lacking`; `client` while no door is known.

    `plain` asks the listener that only redirects. `log` gives the gateway's access log. `only` names the models
    that are wanted, all if it is empty. `elsewhere` says that the user named where the gateway answers.
    """

    config: StackConfig
    passes: Passes
    wishes: Wishes = field(default_factory=Wishes)
    state: State = field(default_factory=State)
    kube: Kube | None = None
    lacking: str = ""
    client: Client | None = None
    plain: Client | None = None
    undoored: str = ""
    elsewhere: bool = False
    log: Callable[[], Iterable[str]] | None = None
    only: tuple[str, ...] = ()
    say: Callable[[str], None] = field(default=lambda text: print(text, file=sys.stderr, flush=True))

    @property
    def cluster(self) -> Kube:
        """The cluster's API. Raises Unchecked where it cannot be reached."""
        if self.kube is None:
            raise Unchecked(
                self.lacking or "the cluster is not known", "name it with --context and --kubeconfig"
            )
        return self.kube

    @property
    def gateway(self) -> Client:
        """A client of the gateway. Raises Unchecked where nobody knows where it answers."""
        if self.client is None:
            raise Unchecked(self.undoored or "the gateway's address is not known", "name it with --resolve")
        return self.client

    @property
    def reads_bodies(self) -> bool:
        """Whether one base URL serves all models by what their bodies say: Istio's gateway does."""
        return self.config.gateway.kind == "istio"

    def path(self, target: Target, path: str) -> str:
        """Where a model is asked: the base URL where that works, else its own."""
        return path if self.reads_bodies else target.prefix + path

    def targets(self) -> list[Target]:
        """The models that are wanted and awake."""
        found = (_target(self.config, name, model) for name, model in sorted(self.config.models.items()))
        return [t for t in found if t.replicas and (not self.only or t.key in self.only)]


def _target(config: StackConfig, name: str, model: Model) -> Target:
    access = config.access
    words = [word for argument in model.args for word in argument.split("=", 1)]
    blocks = [value for flag, value in pairwise(words) if flag == _BLOCK_FLAG]
    return Target(
        key=name,
        name=model.served_name or name,
        namespace=model.namespace,
        replicas=0 if config.power == "asleep" else model.replicas,
        routing=model.routing,
        longest=model.max_model_len,
        block=int(blocks[-1]) if blocks and blocks[-1].isdigit() else BLOCK,
        price=access.multipliers.get(name, 1.0) if access else 1.0,
        kind=kind_of(model.runtime),
    )
