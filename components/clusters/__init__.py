"""Clusters: each kind ends in the same ClusterHandle. A kind's module is imported by the stack that uses it."""
