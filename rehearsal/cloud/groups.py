"""What node groups of every cloud have in common: sizes, and the Node objects they stand for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from ops.kube import Kube
from rehearsal.cloud.project import State
from rehearsal.cloud.settings import Settings
from rehearsal.node import nodes
from rehearsal.node.nodes import NodeShape

CLUSTER_LABEL = "rehearsal.llm-platform.dev/cluster"


class Short(Exception):
    """There are not as many machines as asked for; `cause` is the autoscaler's word for it."""

    def __init__(self, cause: str, message: str):
        super().__init__(message)
        self.cause = cause


class Group(ABC):
    """A node group, as its record says; `limits` are (least, most) nodes for the autoscaler, None without it."""

    # The kind of its record.
    record: ClassVar[str]
    identity: str
    cluster: str
    name: str
    zones: tuple[str, ...]
    size: int
    limits: tuple[int, int] | None

    @property
    def most(self) -> int:
        """The largest size that the autoscaler may give it."""
        return self.limits[1] if self.limits else self.size

    @property
    def step(self) -> int:
        """Nodes that come and go together."""
        return 1

    @property
    @abstractmethod
    def selector(self) -> Mapping[str, str]:
        """The labels by which its nodes are found."""

    @abstractmethod
    def node_names(self, size: int | None = None) -> list[str]:
        """Names of the first `size` nodes, the same every time."""

    @abstractmethod
    def shape(self, index: int = 0) -> NodeShape:
        """The node that is number `index`."""

    def template(self) -> NodeShape:
        """A node to come, as the autoscaler imagines it."""
        return self.shape()

    def awaited(self, node: dict[str, Any]) -> bool:
        """Whether a node of this group counts as one to come, since its devices are not there yet."""
        return False

    @abstractmethod
    def require(self, state: State, settings: Settings, size: int) -> None:
        """Raise Short unless the group may grow to `size` nodes: quota and stock."""

    @abstractmethod
    def growth(self, size: int, wanted: int) -> str:
        """A growth from one size to another in the words of the autoscaler's event."""

    def failure(self, short: Short) -> str:
        """What a pod is told of a growth that failed, "" where only the cloud's own console says it."""
        return ""

    def noted(self, missing: int) -> tuple[str, str] | None:
        """(namespace, text) of what the autoscaler notes at its own status of so many machines that did not come."""
        return None


def ensure_nodes(kube: Kube, group: Group) -> None:
    """Make the cluster's Node objects those of the group: missing ones appear, superfluous ones go."""
    _remove(kube, group, set(group.node_names()))
    for index in range(group.size):
        nodes.ensure(kube, group.shape(index))


def remove_nodes(kube: Kube, group: Group) -> None:
    """Remove every Node object of the group, with the pods on it."""
    _remove(kube, group, set())


def _remove(kube: Kube, group: Group, keep: set[str]) -> None:
    for node in group_nodes(kube, group):
        name = node["metadata"]["name"]
        if name not in keep:
            for pod in kube.list("v1", "Pod", fields=f"spec.nodeName={name}"):
                kube.delete("v1", "Pod", pod["metadata"]["name"], pod["metadata"]["namespace"])
            kube.delete("v1", "Node", name)


def group_nodes(kube: Kube, group: Group) -> list[dict[str, Any]]:
    """The Node objects of the group."""
    labels = {CLUSTER_LABEL: group.cluster, **group.selector}
    return kube.list("v1", "Node", selector=",".join(f"{name}={value}" for name, value in labels.items()))
