"""An EKS cluster with NVIDIA GPUs.

Importing `component` loads Amazon's SDK, which costs more than a second; `args` does not.
"""
