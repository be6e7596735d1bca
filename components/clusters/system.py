"""The machines of a new cluster that carry no accelerator. Pure: no SDK, no Outputs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class SystemPoolArgs:
    """Machines for controllers and gateways: `nodes` at least and at first, `max_nodes` at most."""

    machine_type: str
    nodes: int
    max_nodes: int
