"""The embedded environment: any stack, on one machine, without a cloud account.

The Pulumi engine, the Kubernetes control plane and the controllers are the real
ones. What cannot exist on one machine is simulated, each in a folder that says
so: provider plugins (`providers/`), nodes and the container runtime (`node/`),
and what cert-manager and istiod would do for us (`stand_ins/`).
"""
