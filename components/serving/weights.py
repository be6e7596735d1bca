"""A volume claim with a model's weights, and the job that fills it."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi

from components.clusters.objects import KubernetesObject
from components.core.base import Component
from components.serving.handle import NamespaceHandle
from components.serving.manifests.claim import ClaimSpec, claim
from components.serving.manifests.fill import SPARE_SECONDS, FillSpec, fill


@dataclass(frozen=True, kw_only=True)
class WeightsClaimArgs:
    """`fill` is None where somebody else writes the weights; pods can run `after` these resources."""

    claim: ClaimSpec
    namespace: NamespaceHandle
    fill: FillSpec | None = None
    after: tuple[pulumi.Resource, ...] = ()


class WeightsClaim(Component):
    """A claim that is `ready` when its weights are complete. The models that read it come after it, and go before it."""

    TOKEN = "llmp:index:WeightsClaim"

    def __init__(self, name: str, args: WeightsClaimArgs, opts: pulumi.ResourceOptions | None = None):
        super().__init__(name, opts)
        # What somebody else has written here cannot be fetched again.
        options = self.child(depends_on=[args.namespace.resource], retain_on_delete=args.fill is None)
        made: list[pulumi.Resource] = [KubernetesObject(f"{name}-claim", claim(args.claim), options)]
        for role, item in fill(args.fill) if args.fill else ():
            made.append(KubernetesObject(f"{name}-{role}", item, self._after(args, made, role)))
        self.ready: tuple[pulumi.Resource, ...] = tuple(made)
        self.register_outputs({"claim": args.claim.name})

    def _after(
        self, args: WeightsClaimArgs, made: list[pulumi.Resource], role: str
    ) -> pulumi.ResourceOptions:
        """The job comes last, with its own time; what it needs, beside the claim."""
        home = args.namespace
        if role != "job" or args.fill is None:
            return self.child(depends_on=[home.resource])
        seconds = f"{args.fill.budget_seconds + SPARE_SECONDS}s"
        times = pulumi.CustomTimeouts(create=seconds, update=seconds)
        return self.child(depends_on=[*args.after, *home.ready, *made], custom_timeouts=times)
