"""Stands in for `aws`, as far as kubeconfigs call it.

    python -m rehearsal.cloud.aws_cli eks get-token --cluster-name NAME --region REGION

prints an ExecCredential with the embedded API server's client certificate. It refuses outside a rehearsal, for a
cluster that the simulated account has not, and what it does not know by name.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence

from rehearsal.cloud.auth_plugin import credential
from rehearsal.cloud.gcloud import flags_of
from rehearsal.cloud.node_groups import CLUSTER
from rehearsal.cloud.project import Project
from rehearsal.providers.guard import OutsideRehearsal, require_rehearsal

Command = Callable[[Mapping[str, str], Mapping[str, str]], str]


def _token(flags: Mapping[str, str], environ: Mapping[str, str]) -> str:
    """Whoever created the cluster is its administrator, if it was told so; nobody else has credentials here."""
    name, region = flags.get("cluster-name", ""), flags.get("region", "")
    record = Project.of(require_rehearsal(environ)).read().of(CLUSTER).get(name)
    if record is None or record["outputs"].get("region") != region:
        raise OutsideRehearsal(f"the simulated account has no cluster {name!r} in {region or 'no region'}")
    if not record["outputs"]["accessConfig"]["bootstrapClusterCreatorAdminPermissions"]:
        raise OutsideRehearsal("Unauthorized: the cluster's creator has no access entry")
    return json.dumps(credential(environ))


def _version(_: Mapping[str, str], __: Mapping[str, str]) -> str:
    return "aws-cli/2 (simulated by a rehearsal)"


COMMANDS: Mapping[tuple[str, ...], Command] = {("eks", "get-token"): _token, ("--version",): _version}


def answer(words: Sequence[str], environ: Mapping[str, str]) -> str:
    """What the command prints; OutsideRehearsal where it is refused."""
    require_rehearsal(environ)
    found = next((known for known in COMMANDS if tuple(words[: len(known)]) == known), None)
    if found is None:
        known = ", ".join(" ".join(command) for command in COMMANDS)
        raise OutsideRehearsal(f"`aws {' '.join(words)}` is not rehearsed; there are: {known}")
    return COMMANDS[found](flags_of(words[len(found) :]), environ)


def main() -> int:
    """Print the answer; 1 and a sentence on stderr where it is refused."""
    try:
        print(answer(sys.argv[1:], os.environ))
    except OutsideRehearsal as refusal:
        print(f"this simulated aws refuses: {refusal}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
