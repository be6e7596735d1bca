"""What pools of all kinds of cluster have in common."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator, Field, StringConstraints, WithJsonSchema

from stacks.config.base import Strict, entry
from stacks.config.errors import choice, refusal
from stacks.config.types import Text


@dataclass(frozen=True)
class PoolShape:
    """What the rules and the components need to know of any pool.

    `accelerator` is a key of the accelerator table, `nodes_per_replica` the machines that
    serve one replica together (more than 1 only for multi-host TPU slices), `memory_gib`
    and `vcpus` those of one node where they are known, `disk_gib` what images and pods may write to.
    """

    accelerator: str
    chips_per_node: int
    nodes_per_replica: int
    max_nodes: int
    memory_gib: float | None = None
    vcpus: int | None = None
    disk_gib: float | None = None

    @property
    def chips_per_replica(self) -> int:
        """The chips of the nodes that serve one replica together."""
        return self.chips_per_node * self.nodes_per_replica


def one_of(known: tuple[str, ...], what: str, consequence: str) -> Callable[[str], str]:
    """A check that a value is one of the known ones; `what` says what the others are not."""

    def check(value: str) -> str:
        if value not in known:
            raise refusal(f'"{value}" is not {what}', consequence, choice(value, known))
        return value

    return check


def _never_zero(value: int) -> int:
    if value < 1:
        raise refusal(
            f"{value} is not a pool's largest size",
            "the clouds refuse a pool that may have no node, and a pool is not switched off this way",
            "write 1 or more; to remove the machines while nobody works, set llm-platform:power to asleep",
        )
    return value


def form(pattern: str, title: str) -> Any:
    """Text of a form, with a name for it."""
    return Annotated[str, StringConstraints(pattern=f"^{pattern}$"), Field(title=title)]


MaxNodes = Annotated[int, AfterValidator(_never_zero), WithJsonSchema({"type": "integer", "minimum": 1})]


class SystemPool(Strict):
    """The machines for controllers and gateways; they stay when the accelerators sleep."""

    machine_type: Text = entry("Machine or instance type.")
    nodes: int = entry("Number of nodes. EKS needs two for cluster DNS.", 2, ge=1, unit="nodes")
    max_nodes: int | None = entry(
        "Largest number of nodes.", None, ge=1, unit="nodes", derived="twice `nodes` on GKE, `nodes` on EKS"
    )
