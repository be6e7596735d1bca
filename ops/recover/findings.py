"""Judging what was left behind. Pure: state and facts in, findings and a plan out.

Each pending operation and each Helm release of the stack is looked up in the
tables of `rules`. A finding names what was found and the actions that put it
right, or what a person must decide.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ops.helm import PENDING, Revision
from ops.recover.edits import Adopt, Clear, Edit, EditState, Retry
from ops.recover.facts import Facts, is_leaving
from ops.recover.locks import Lock
from ops.recover.ownership import is_ours, patch_manager
from ops.recover.rules import (
    AGAIN,
    CONTINUE,
    CREATE,
    OBJECTS,
    RELEASES,
    REPEAT,
    Action,
    DeleteRevision,
    ReleaseLock,
    Rule,
    Uninstall,
)
from ops.state import Operation, Resource, State

NOTHING_OUTSIDE = {"pulumi", "random", "time", "tls"}
"""Packages whose resources exist in the state only, so that whatever was begun can simply be repeated."""


@dataclass(frozen=True)
class Finding:
    """Something found, the actions that put it right (`done` tells people), or what one must `decide`.

    A finding that `blocks` forbids writing the state, because that would lose
    what is still to be decided.
    """

    subject: str
    found: str
    actions: tuple[Action, ...] = ()
    done: str = ""
    decide: str = ""
    blocks: bool = False


def find(state: State, facts: Facts, decisions: Mapping[str, str | None] | None = None) -> list[Finding]:
    """Judge every pending operation and every release of the stack, and report what else was left.

    `decisions` maps the URN of a resource that was being created elsewhere to
    the ID it got there, or to None where it was not created after all.
    """
    taken = {str(r.outputs.get("__fieldManager")) for r in state.resources}
    judged = [_judge(op, state, facts, taken, decisions or {}) for op in state.pending]
    busy = {op.resource.release for op in state.pending if op.resource.is_release}
    quiet = [r for r in state.releases if r.release not in busy]
    releases = [finding for r in quiet if (finding := _judge_quiet(r, facts)) is not None]
    return [*judged, *releases, *_half_made(state), *_strays(facts)]


def find_locks(locks: Iterable[Lock], stack: str) -> list[Finding]:
    """One finding per lock: released when its process has ended, else somebody is at work."""
    return [
        Finding(str(lock), "its process has ended", (ReleaseLock(lock),), "released")
        if lock.stale
        else Finding(
            str(lock),
            "an update may be at work on the stack",
            decide="wait for it to end, or, if you know that it has, "
            f"`pulumi cancel --stack {stack}`; then run this again",
            blocks=True,
        )
        for lock in locks
    ]


def find_orphans(pids: Iterable[int]) -> list[Finding]:
    """One finding per provider that still works although its engine is gone."""
    return [
        Finding(
            f"process {pid}",
            "a provider of the killed engine is still at work",
            decide=f"wait until it ends (five minutes at most) or `kill {pid}`; then run this again",
            blocks=True,
        )
        for pid in pids
    ]


def plan(findings: Iterable[Finding]) -> list[Action]:
    """The actions of all findings in the order to do them: locks, cluster, and last one edit of the state.

    The state comes last because its pending operations are the record of what
    is still to be done, should this be interrupted too. Where a finding blocks,
    nothing is done but releasing locks.
    """
    findings = list(findings)
    actions = [action for finding in findings for action in finding.actions]
    locks = [action for action in actions if isinstance(action, ReleaseLock)]
    if any(finding.blocks for finding in findings):
        return list(locks)
    cluster = [action for action in actions if isinstance(action, DeleteRevision | Uninstall)]
    edits = tuple(action for action in actions if isinstance(action, Edit))
    return [*locks, *cluster, *([EditState(edits)] if edits else [])]


def _judge(
    op: Operation,
    state: State,
    facts: Facts,
    taken: set[str],
    decisions: Mapping[str, str | None],
) -> Finding:
    resource = op.resource
    if resource.is_release:
        return _judge_release(op, facts.releases[resource.release], state)
    if resource.object:
        return _judge_object(op, facts.objects[resource.object], state, taken)
    if resource.package in NOTHING_OUTSIDE or op.type in ("reading", "importing"):
        return Finding(str(resource), f"was interrupted while {op.type}", (Clear(resource),), AGAIN)
    return _judge_elsewhere(op, decisions)


def _judge_object(op: Operation, live: Mapping | None, state: State, taken: set[str]) -> Finding:
    resource = op.resource
    manager = patch_manager(live, resource.inputs, taken) if live and resource.is_patch else ""
    presence = "there"
    if live is None or (resource.is_patch and op.type == "creating" and not manager):
        presence = "absent"
    elif is_leaving(live):
        presence = "leaving"
    elif op.type == "creating":
        presence = "ours" if manager or is_ours(live, resource.inputs, state.begun(resource)) else "foreign"
    rule = OBJECTS.get((op.type, presence)) or Rule(f"was interrupted while {op.type}", AGAIN)
    if presence == "ours" and not resource.is_patch and state.keeps(resource.object):
        rule = Rule("was to be replaced by one of the same name; the old one is still there", AGAIN)
    edit = rule.edit(resource) if rule.edit else Adopt(resource, _id(live), manager)
    return Finding(str(resource), rule.found, (edit,), rule.done, rule.decide, rule.blocks)


def _id(live: Mapping) -> str:
    metadata = live["metadata"]
    return "/".join(part for part in (metadata.get("namespace"), metadata["name"]) if part)


def _judge_release(op: Operation, revisions: tuple[Revision, ...], state: State) -> Finding:
    resource = op.resource
    condition = _condition(revisions)
    creating = op.type == "creating" and not state.holds(resource.urn)
    if creating and revisions and not _made_by(resource, revisions):
        condition = "foreign"
    key = (op.type if op.type != "creating" or creating else "updating", condition)
    return _apply_release_rule(resource, RELEASES.get(key) or RELEASES["", condition], revisions)


def _judge_quiet(resource: Resource, facts: Facts) -> Finding | None:
    revisions = facts.releases.get(resource.release, ())
    condition = _condition(revisions)
    rule = RELEASES.get(("", condition))
    return _apply_release_rule(resource, rule, revisions) if rule else None


def _apply_release_rule(resource: Resource, rule: Rule, revisions: tuple[Revision, ...]) -> Finding:
    namespace, name = resource.release
    edit: Edit = rule.edit(resource) if rule.edit else Adopt(resource, f"{namespace}/{name}")
    cluster: tuple[Action, ...] = ()
    if rule.cluster is Uninstall:
        cluster = (Uninstall(namespace, name),)
    elif rule.cluster is DeleteRevision:
        cluster = (DeleteRevision(namespace, revisions[-1].secret),)
    return Finding(str(resource), rule.found, (*cluster, edit), rule.done, rule.decide)


def _condition(revisions: tuple[Revision, ...]) -> str:
    """`absent`, `settled` (deployed, failed or superseded), `installing`, `upgrading` or `uninstalling`."""
    if not revisions:
        return "absent"
    if revisions[-1].status in PENDING:
        return "upgrading" if len(revisions) > 1 else "installing"
    return "uninstalling" if revisions[-1].status == "uninstalling" else "settled"


def _made_by(resource: Resource, revisions: tuple[Revision, ...]) -> bool:
    """Whether the release can only be of the interrupted installation: a first revision of the very chart."""
    chart = str(resource.inputs.get("chart", "")).rsplit("/", 1)[-1]
    only = revisions[0]
    return (
        len(revisions) == 1
        and only.version == 1
        and chart in (only.chart, f"{only.chart}-{only.chart_version}.tgz")
    )


def _judge_elsewhere(op: Operation, decisions: Mapping[str, str | None]) -> Finding:
    """A resource of a cloud, which is not looked up here: the engine reads it again, or a person says."""
    resource = op.resource
    if op.type != "creating":
        retry = Retry(resource, reread=True)
        return Finding(
            str(resource), f"was interrupted while {op.type}", (retry,), "the next `up` reads it again first"
        )
    if resource.urn not in decisions:
        urn = resource.urn
        return Finding(
            str(resource),
            "was being created, and may or may not exist",
            decide="look for it in the cloud, then run this again with "
            f"--created '{urn}=ID' or --not-created '{urn}'",
            blocks=True,
        )
    identity = decisions[resource.urn]
    if identity is None:
        return Finding(
            str(resource), "was to be created, and, as you say, was not", (Clear(resource),), CREATE
        )
    adopt = Adopt(resource, identity, reread=True)
    return Finding(str(resource), f"was created, as you say, as {identity}", (adopt,), CONTINUE)


def _half_made(state: State) -> list[Finding]:
    """Resources whose last update did not end well; the engine goes on with them by itself."""
    pending = {op.resource.urn for op in state.pending}
    return [
        Finding(
            str(r),
            "its last operation did not end well: " + str(r.raw["initErrors"][0]).splitlines()[0],
            done=REPEAT,
        )
        for r in state.resources
        if r.raw.get("initErrors") and r.urn not in pending
    ]


def _strays(facts: Facts) -> list[Finding]:
    return [
        Finding(
            str(ref),
            "is in the cluster with this program's labels, and unknown to the stack's state",
            done="left alone: it may be another stack's. If `up` refuses it (AlreadyExists), delete it",
        )
        for ref in facts.strays
    ]
