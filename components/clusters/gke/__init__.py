"""GKE with TPU v6e.

`args`, `control_plane`, `pools` and `kubeconfig` are pure and import no SDK. `component` and what it calls do, and
only stacks of this kind import it.
"""
