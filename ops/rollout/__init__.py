"""Following a change of a model on the workload that KServe makes for it.

`look` reads the cluster; `progress` is pure.
"""
