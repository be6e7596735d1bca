"""The one exception of the toolchain."""


class ToolchainError(Exception):
    """A tool, a chart or the cache cannot be had; the message says which, why, and what to do."""
