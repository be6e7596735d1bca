"""Pure builders: typed arguments in, Kubernetes objects out. Nothing here imports Pulumi."""
