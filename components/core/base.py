"""The base of every component."""

from __future__ import annotations

from typing import Any, ClassVar

import pulumi


class Component(pulumi.ComponentResource):
    """A component with a literal type token.

    Subclasses set `TOKEN = "llmp:index:<Class>"` as a literal, take `(name, args, opts)`, and end
    their constructor with `register_outputs`. Children get their options from `child` alone:
    nothing that the caller put on the component (aliases, protect, dependencies) may leak into them
    except what the engine itself hands down.
    """

    TOKEN: ClassVar[str]

    def __init__(self, name: str, opts: pulumi.ResourceOptions | None = None):
        super().__init__(self.TOKEN, name, {}, opts)

    def child(self, **options: Any) -> pulumi.ResourceOptions:
        """Options of a child: this component as parent, and what the child itself needs."""
        return pulumi.ResourceOptions(parent=self, **options)
