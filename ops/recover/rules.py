"""What is done about each case: tables of what was being done and what the cluster holds now."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ops.recover.edits import Clear, Edit, EditState, Forget, Retry
from ops.recover.locks import Lock


@dataclass(frozen=True)
class ReleaseLock:
    """Remove the lock of a process that has ended."""

    lock: Lock


@dataclass(frozen=True)
class DeleteRevision:
    """Delete Helm's record of a revision that it never finished, so that the one before counts again, if any."""

    namespace: str
    secret: str


@dataclass(frozen=True)
class Uninstall:
    """Remove what an unfinished installation or uninstallation left, and the release with it."""

    namespace: str
    name: str


Action = ReleaseLock | DeleteRevision | Uninstall | Edit | EditState


@dataclass(frozen=True)
class Rule:
    """What to say and do about one case: in the cluster, in the state (None: adopt), or by people.

    One that `blocks` leaves the pending operation in the state, for the next run to judge.
    """

    found: str
    done: str = ""
    edit: type[Clear | Retry | Forget] | None = Clear
    decide: str = ""
    cluster: type[Uninstall | DeleteRevision] | None = None
    blocks: bool = False


CREATE = "the pending operation is dropped; the next `up` creates it"
CONTINUE = "taken into the state; the next `up` continues it by an update"
REPEAT = "the next `up` repeats the update"
_RECREATE = "taken out of the state; the next `up` creates it if it is still wanted"
AGAIN = "the pending operation is dropped; the next `up` or `destroy` repeats it where wanted"
_WAIT = (
    "wait until it is gone, or see what its finalizers wait for (`kubectl get -o yaml`), then run this again"
)

OBJECTS: Mapping[tuple[str, str], Rule] = {
    ("creating", "absent"): Rule("was to be created, and was not", CREATE),
    ("creating", "ours"): Rule("was created, and not recorded", CONTINUE, None),
    ("creating", "foreign"): Rule(
        "was to be created, but exists already, and nothing shows that this stack made it",
        decide="delete it, or rename it in the stack's config: `up` will refuse to create it (AlreadyExists)",
    ),
    ("creating", "leaving"): Rule(
        "was to be created; one of that name is still being deleted", decide=_WAIT, blocks=True
    ),
    ("updating", "absent"): Rule("was being updated, and is gone", _RECREATE, Forget),
    ("updating", "there"): Rule("was being updated", REPEAT, Retry),
    ("updating", "leaving"): Rule("was being updated, and is now being deleted", decide=_WAIT, blocks=True),
    ("deleting", "absent"): Rule("was being deleted, and is gone", _RECREATE, Forget),
    ("deleting", "there"): Rule("was to be deleted, and is still there", AGAIN),
    ("deleting", "leaving"): Rule("is still being deleted", decide=_WAIT, blocks=True),
}
"""(operation, what the cluster holds) -> what to do, for Kubernetes objects."""

_REMOVE = "what is left of it is uninstalled; the next `up` installs it where wanted"
_TAKE_OVER = (
    "Helm's record of it is deleted; the next `up` installs it and takes over what is there "
    "(to destroy the stack instead, run `up` before)"
)
_ROLL_BACK = "the unfinished revision is deleted, so that the one before counts; " + REPEAT

RELEASES: Mapping[tuple[str, str], Rule] = {
    ("creating", "absent"): Rule("was to be installed, and was not", CREATE),
    ("creating", "settled"): Rule("was installed, and not recorded", CONTINUE, None),
    # Not uninstalled: deleting what it made could take minutes (definitions have finalizers), and Helm adopts it.
    ("creating", "installing"): Rule("its installation was interrupted", _TAKE_OVER, cluster=DeleteRevision),
    ("creating", "uninstalling"): Rule(
        "the removal of its failed installation was interrupted", _REMOVE, cluster=Uninstall
    ),
    ("creating", "foreign"): Rule(
        "was to be installed, but a release of that name exists, and nothing shows that this stack made it",
        decide="uninstall it (`helm uninstall`), or set that part of `platform` in the config to `provided`",
    ),
    ("updating", "absent"): Rule("was being upgraded, and is gone", _RECREATE, Forget),
    ("updating", "settled"): Rule("its upgrade was interrupted", REPEAT, Retry),
    ("deleting", "absent"): Rule("was being uninstalled, and is gone", _RECREATE, Forget),
    ("deleting", "settled"): Rule("was to be uninstalled, and is still there", AGAIN),
    ("", "installing"): Rule("its installation was interrupted", _REMOVE, Forget, cluster=Uninstall),
    ("", "upgrading"): Rule("its upgrade was interrupted", _ROLL_BACK, Retry, cluster=DeleteRevision),
    ("", "uninstalling"): Rule("its uninstallation was interrupted", _REMOVE, Forget, cluster=Uninstall),
}
"""(operation, condition of the release) -> what to do; the empty operation is for all others and none."""
