"""Names and options of the parts of one cluster."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pulumi


@dataclass(frozen=True, kw_only=True)
class Scope:
    """`name` is the component's, `parent` the component, `provider` that of Google's resources."""

    name: str
    parent: pulumi.Resource
    provider: pulumi.ProviderResource

    def options(
        self,
        after: Sequence[pulumi.Resource] = (),
        create: str | None = None,
        update: str | None = None,
        delete: str | None = None,
        **more: object,
    ) -> pulumi.ResourceOptions:
        """Options of one resource: what must exist `after` which it comes, and how long each step may take."""
        timed = create or update or delete
        return pulumi.ResourceOptions(
            parent=self.parent,
            provider=self.provider,
            depends_on=list(after) or None,
            custom_timeouts=pulumi.CustomTimeouts(create=create, update=update, delete=delete)
            if timed
            else None,
            **more,
        )
