"""A cluster that is already there."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, WithJsonSchema

from components.core.accelerators import ACCELERATORS
from stacks.config.base import Strict, entry
from stacks.config.pools import MaxNodes, PoolShape, one_of
from stacks.config.types import DnsLabel, Text, sequence

AcceleratorType = Annotated[
    str,
    AfterValidator(
        one_of(
            tuple(ACCELERATORS),
            "an accelerator that the platform knows",
            "no image or memory is known for it",
        )
    ),
    WithJsonSchema({"enum": sorted(ACCELERATORS)}),
]


class Toleration(Strict):
    """A Kubernetes toleration, as in a pod."""

    key: str = entry("Key of the taint.")
    operator: Literal["Exists", "Equal"] = entry("How the taint's value is compared.", "Exists")
    value: str | None = entry("Value of the taint, with operator Equal.", None)
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = entry(
        "Effect that is tolerated.", None, derived="every effect"
    )


class ExistingAccelerator(Strict):
    """Nodes with accelerators that the cluster already has."""

    type: AcceleratorType = entry("Kind of accelerator; decides the resource name, memory, image and flags.")
    per_node: int = entry("Chips of one node.", 1, ge=1, unit="chips")
    max_nodes: MaxNodes = entry("Largest number of nodes that the models may fill.", unit="nodes")
    node_selector: dict[Text, str] | None = entry(
        "Labels of the nodes.", None, derived="the labels of the accelerator table"
    )
    tolerations: sequence(Toleration) | None = entry(
        "Taints of the nodes that the model pods tolerate.",
        None,
        derived="the taint of the accelerator table",
    )

    def shape(self) -> PoolShape:
        """The pool as the rules see it."""
        return PoolShape(self.type, self.per_node, 1, self.max_nodes)


class ExistingCluster(Strict):
    """A cluster that somebody else creates and pays for; it stays when the stack goes."""

    kind: Literal["existing"] = entry("Kind of cluster.")
    context: Text = entry("Context of the kubeconfig. Always explicit: the current context is never used.")
    kubeconfig: Text | None = entry(
        "Path of the kubeconfig file; ~ stands for the home directory.",
        None,
        derived="`KUBECONFIG`, else `~/.kube/config`",
    )
    accelerators: dict[DnsLabel, ExistingAccelerator] = entry(
        "Accelerator nodes by a name of your choice; models refer to it.", factory=dict
    )
