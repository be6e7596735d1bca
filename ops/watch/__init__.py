"""What happens in a stack's cluster while it comes up, one line for each thing that a person must know.

`source` reads the cluster; `news`, `advice` and `place` are pure.
"""
