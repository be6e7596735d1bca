"""Stands in for `aws`: tokens, as kubeconfigs call it, and the questions of `python -m ops preflight`.

    python -m rehearsal.cloud.aws_cli eks get-token --cluster-name NAME --region REGION

prints an ExecCredential with the embedded API server's client certificate. Questions are answered from the simulated
account (rehearsal/cloud/aws_questions.py). It refuses outside a rehearsal, for a cluster that the simulated account has
not, and what it does not know by name.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence

from rehearsal.cloud.auth_plugin import credential
from rehearsal.cloud.project import Project
from rehearsal.cloud.settings import Settings
from rehearsal.providers.guard import OutsideRehearsal, require_rehearsal

Command = Callable[[Mapping[str, str], Mapping[str, str]], str]
# As rehearsal/cloud/node_groups.py has it, whose import would hold every token up for half a second.
CLUSTER = "eks/cluster"
VERSION = "2.31.2"


def _token(flags: Mapping[str, str], environ: Mapping[str, str]) -> str:
    """Whoever created the cluster is its administrator, if it was told so; nobody else has credentials here."""
    name, region = flags.get("cluster-name", ""), flags.get("region", "")
    record = Project.of(require_rehearsal(environ)).read().of(CLUSTER).get(name)
    if record is None or record["outputs"].get("region") != region:
        raise OutsideRehearsal(f"the simulated account has no cluster {name!r} in {region or 'no region'}")
    if not record["outputs"]["accessConfig"]["bootstrapClusterCreatorAdminPermissions"]:
        raise OutsideRehearsal("Unauthorized: the cluster's creator has no access entry")
    return json.dumps(credential(environ))


def _version(_: Mapping[str, str], environ: Mapping[str, str]) -> str:
    settings = Settings.of(require_rehearsal(environ))
    return f"aws-cli/{settings.aws.get('cli') or VERSION} (simulated by a rehearsal)"


COMMANDS: Mapping[tuple[str, ...], Command] = {("eks", "get-token"): _token, ("--version",): _version}


def answer(words: Sequence[str], environ: Mapping[str, str]) -> str:
    """What a command of ours prints; OutsideRehearsal where it is refused."""
    require_rehearsal(environ)
    known = next(known for known in COMMANDS if tuple(words[: len(known)]) == known)
    flags = {name: values[0] for name, values in flags_of(words[len(known) :]).items() if values}
    return COMMANDS[known](flags, environ)


def flags_of(words: Sequence[str]) -> dict[str, list[str]]:
    """The values of each flag, as `--name value …` or `--name=value`; none where it stands alone."""
    flags: dict[str, list[str]] = {}
    values: list[str] = []
    for word in words:
        if not word.startswith("--"):
            values.append(word)
            continue
        name, equals, value = word.removeprefix("--").partition("=")
        values = flags.setdefault(name, [])
        if equals:
            values.append(value)
    return flags


def run(words: Sequence[str], environ: Mapping[str, str]) -> tuple[int, str, str]:
    """(exit code, what goes to standard output, what goes to standard error)."""
    try:
        root = require_rehearsal(environ)
        if any(tuple(words[: len(known)]) == known for known in COMMANDS):
            return 0, answer(words, environ) + "\n", ""
        # Tokens are asked for all the time; whoever wants one does not wait for this.
        from rehearsal.cloud import aws_questions

        return aws_questions.ask(words, root, environ, [" ".join(known) for known in COMMANDS])
    except OutsideRehearsal as refusal:
        return 1, "", f"this simulated aws refuses: {refusal}\n"


def main() -> int:
    """Print what the command says."""
    code, out, err = run(sys.argv[1:], os.environ)
    sys.stdout.write(out)
    sys.stderr.write(err)
    return code


if __name__ == "__main__":
    sys.exit(main())
