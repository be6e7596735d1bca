"""How the stand-in of `aws` reads a question and prints its answer: flags, words of refusal and exit codes.

What the answers are, and what settings change them, is in rehearsal/cloud/aws_account.py.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from rehearsal.cloud.aws_account import ACCOUNT, COMMANDS, HOME, Question, Refused, answer
from rehearsal.cloud.aws_cli import flags_of
from rehearsal.cloud.project import Project
from rehearsal.cloud.settings import Settings
from rehearsal.providers.guard import OutsideRehearsal

# The account that the stack allows, where the settings name none: as for the simulated provider.
ALLOWED = "LLMP_SIMULATED_ACCOUNT"
# The command's own exit codes: a refusal by AWS, nobody to ask as, a line that it does not understand.
REFUSED, NOBODY, USAGE = 254, 253, 252
_COMMON = ("region", "output")
_NO_CREDENTIALS = 'Unable to locate credentials. You can configure credentials by running "aws configure".'


class Misused(Exception):
    """A command line that `aws` does not take."""


def ask(
    words: Sequence[str], root: Path, environ: Mapping[str, str], others: Sequence[str] = ()
) -> tuple[int, str, str]:
    """(exit code, output, errors). OutsideRehearsal for what is not simulated; `others` are simulated elsewhere."""
    asked = (words[0], words[1]) if len(words) > 1 else ("", "")
    if asked not in COMMANDS:
        known = ", ".join((*others, *(" ".join(command) for command in COMMANDS)))
        raise OutsideRehearsal(f"`aws {' '.join(words)}` is not rehearsed; there are: {known}")
    settings = Settings.of(root)
    if settings.aws.get("login") == "none":
        return NOBODY, "", f"{_NO_CREDENTIALS}\n"
    try:
        flags = _checked(asked, flags_of(words[2:]))
        account = settings.aws_account or environ.get(ALLOWED) or ACCOUNT
        region = flags["region"][0] if flags.get("region") else HOME
        given = answer(asked, Question(region, flags, Project.of(root).read(), settings, account))
    except Misused as misused:
        return USAGE, "", f"\naws: error: {misused}\n"
    except Refused as refused:
        where = f"when calling the {operation(asked[1])} operation"
        return REFUSED, "", f"\nAn error occurred ({refused.code}) {where}: {refused}\n"
    return 0, json.dumps(given, indent=4) + "\n", ""


def _checked(asked: tuple[str, str], flags: dict[str, list[str]]) -> dict[str, list[str]]:
    command = COMMANDS[asked]
    unknown = [name for name in flags if name not in (*command.flags, *command.needs, *_COMMON)]
    if unknown:
        raise Misused(f"Unknown options: {', '.join(f'--{name}' for name in unknown)}")
    missing = [name for name in command.needs if not flags.get(name)]
    if missing:
        raise Misused(f"the following arguments are required: {', '.join(f'--{name}' for name in missing)}")
    return flags


def operation(command: str) -> str:
    """The API's name of a command: DescribeVpcs of describe-vpcs."""
    return "".join({"aws": "AWS"}.get(word, word.capitalize()) for word in command.split("-"))
