"""`python -m rehearsal.toolchain [NAME...]`: build what is missing, and say where it is."""

from __future__ import annotations

import sys

from rehearsal import artifacts
from rehearsal.toolchain import Store, ToolchainError, ensure


def main(names: list[str]) -> int:
    """Build the named tools, or everything that `make up` needs; returns the exit status."""
    try:
        tools = ensure(only=names or None)
        if not names:
            artifacts.ensure(tools)
            artifacts.ensure_google()
    except ToolchainError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted; what is built is kept, the same command goes on", file=sys.stderr)
        return 130
    print(f"ready in {Store().root}: {', '.join(tools.names())}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
