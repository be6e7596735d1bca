"""`python -m stacks.config schema|reference [--check]` and `python -m stacks.config check FILE...`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from stacks.config import reference, schema
from stacks.config.errors import ConfigError
from stacks.config.load import load_stack_file

ROOT = Path(__file__).resolve().parents[2]
OUTPUTS = {
    "schema": (ROOT / "config.schema.json", schema.render),
    "reference": (ROOT / "docs" / "configuration.md", reference.render),
}


def write(what: str, check: bool) -> int:
    """Writes a generated file, or says whether it is current. Returns the exit status."""
    path, render = OUTPUTS[what]
    name, text = path.relative_to(ROOT), render()
    if check:
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            return 0
        print(f"{name} is not what the models say; run: python -m stacks.config {what}", file=sys.stderr)
        return 1
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
    print(f"wrote {name}")
    return 0


def check_files(files: Sequence[Path]) -> int:
    """Applies every rule to stack files. Returns the exit status."""
    failed = 0
    for path in files:
        try:
            load_stack_file(path)
        except (ConfigError, OSError) as fault:
            failed = 1
            print(f"{path}: {fault}", file=sys.stderr)
        else:
            print(f"{path}: ok")
    return failed


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m stacks.config", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for what in OUTPUTS:
        command = commands.add_parser(what, help=f"write the {what}")
        command.add_argument("--check", action="store_true", help="only say whether it is current")
    check = commands.add_parser("check", help="apply every rule to stack files")
    check.add_argument("files", nargs="+", type=Path)
    options = parser.parse_args(arguments)
    return check_files(options.files) if options.command == "check" else write(options.command, options.check)


if __name__ == "__main__":
    sys.exit(main())
