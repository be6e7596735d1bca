"""Asking a deployed stack whether it does what its configuration promises.

`checks` is the table of what is looked at; each other module has one group of it, the questions apart from
the judgements, which are pure. `bench` is what all groups share, `client` asks, `passes` signs keys that end after
some minutes, `verdicts` is what comes out.
"""
