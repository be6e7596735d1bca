"""Whether everything of a stack is Ready, and otherwise what is not, and why.

`look` reads the cluster; `judge`, `workloads` and `history` are pure.
"""
