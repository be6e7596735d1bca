"""`python -m ops preflight`: whether a stack's first `up` can succeed, asked before anything is made.

`verdicts` says what a check is and how its outcome looks, `plans` which checks a kind of cluster has. Facts are
collected from outside (`*_facts`), judged by small pure functions (`*_checks`), and never changed.
"""
