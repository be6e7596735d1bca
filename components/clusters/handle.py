"""What the layers above know of a cluster, whichever cloud it is in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pulumi

from components.core.accelerators import Accelerator


@dataclass(frozen=True, kw_only=True)
class AcceleratorPool:
    """Nodes with one kind of accelerator.

    `node_selector` and `tolerations` put a pod on them. `chips_per_node` counts chips;
    `nodes_per_replica` is above 1 only where one replica spans machines; `max_nodes` is the largest
    size that the pool may have.
    """

    accelerator: Accelerator
    node_selector: Mapping[str, str]
    tolerations: tuple[Mapping[str, Any], ...]
    chips_per_node: int
    max_nodes: int
    nodes_per_replica: int = 1


@dataclass(frozen=True, kw_only=True)
class ClusterHandle:
    """A usable cluster.

    `provider` is the one Kubernetes provider of the cluster. `ready` are resources that must exist
    before pods can run; the provider itself depends on what the API needs to be usable.
    `description` names the cluster for people; `kubeconfig` is secret, and None where the user has his own.
    `name` is the cloud's name of a cluster that the stack makes. `read_secret` reads the text of a secret in the
    cloud's own store, by its name there; None where the stack has no provider of a cloud.
    """

    provider: pulumi.ProviderResource
    cloud: Literal["gcp", "aws", "other"]
    accelerators: Mapping[str, AcceleratorPool]
    description: str
    ready: tuple[pulumi.Resource, ...] = ()
    kubeconfig: pulumi.Output[str] | None = None
    name: pulumi.Output[str] | None = None
    read_secret: Callable[[str], pulumi.Output[str]] | None = None
