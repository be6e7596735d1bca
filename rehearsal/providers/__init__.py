"""Pulumi plugins for a rehearsal, written in Python.

They answer the engine as the official plugins do, but only ever inside a
rehearsal: see :mod:`rehearsal.providers.guard`.
"""
