"""Digests of everything that the lock file names: filled in from the sources, and checked against them."""
