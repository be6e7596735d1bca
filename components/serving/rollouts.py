"""What makes room for the rollouts of a model whose pool is full."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi

from components.clusters.objects import KubernetesObject
from components.core.base import Component
from components.serving.handle import NamespaceHandle
from components.serving.manifests.rollout import RoomSpec, make_room


@dataclass(frozen=True, kw_only=True)
class RoomMakerArgs:
    """`image` has a Python interpreter; `one_node` is that of the model's `Rollout`."""

    model: str
    namespace: NamespaceHandle
    image: str
    one_node: bool = False
    after: tuple[pulumi.Resource, ...] = ()


class RoomMaker(Component):
    """A small program that takes one old replica away where a new one finds no node (docs/adr/0010)."""

    TOKEN = "llmp:index:RoomMaker"

    def __init__(self, name: str, args: RoomMakerArgs, opts: pulumi.ResourceOptions | None = None):
        super().__init__(name, opts)
        home = args.namespace
        spec = RoomSpec(
            model=args.model,
            namespace=home.name,
            image=args.image,
            pull_secrets=home.pull_secrets,
            one_node=args.one_node,
        )
        after = [*args.after, *home.ready]
        for role, item in make_room(spec):
            after.append(KubernetesObject(f"{name}-{role}", item, self.child(depends_on=list(after))))
        self.register_outputs({"model": args.model})
