"""The `python3` of KServe's storage initializer: this machine's own, with a simulated `kserve_storage`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from rehearsal.paths import CHECKOUT

IMPORTABLE = Path(__file__).parent / "importable"


def main() -> None:
    """Become the interpreter."""
    path = f"{IMPORTABLE}{os.pathsep}{CHECKOUT}"
    os.execve(sys.executable, [sys.executable, *sys.argv[1:]], {**os.environ, "PYTHONPATH": path})


if __name__ == "__main__":
    main()
