"""Putting right what a killed or timed-out `pulumi up` left behind.

`facts` looks (stack state, locks, cluster) and changes nothing; `findings`
judges, purely; `actions` does what was planned.
"""
