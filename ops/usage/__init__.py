"""What tenants used, summed from the gateway's access log.

`records` is pure; `logs` finds the lines.
"""
