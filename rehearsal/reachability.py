"""Who may open a connection to whom, by the live NetworkPolicies: what loopback cannot show is judged.

The judge is `ops.reachability`, which `python -m ops doctor` asks as well.
"""

from __future__ import annotations

from ops.reachability import Direction, External, Manifest, Peer, Pod, Reachability, Verdict, selects

__all__ = ["Direction", "External", "Manifest", "Peer", "Pod", "Reachability", "Verdict", "selects"]
