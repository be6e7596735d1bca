"""`kubernetes:helm.sh/v3:Release`: charts installed by the real Helm, with the official provider's bookkeeping."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pulumi.runtime.proto import provider_pb2

from rehearsal import skipped
from rehearsal.providers.kubernetes.check import suffix
from rehearsal.providers.kubernetes.cluster import Cluster
from rehearsal.providers.kubernetes.diff import Change, compare, detailed, forces_replacement, spelled
from rehearsal.providers.kubernetes.helm import DEFAULT_SECONDS, Helm, HelmError, Record
from rehearsal.providers.kubernetes.objects import INPUTS, with_secrets
from rehearsal.providers.kubernetes.release_state import decoded, foreseen, managed, to_release_state
from rehearsal.providers.server import PartialFailure, Plugin, Refusal, Urn, changes
from rehearsal.providers.values import (
    Properties,
    Secret,
    from_struct,
    has_unknown,
    plain,
    to_struct,
)

TYPE = "kubernetes:helm.sh/v3:Release"
UNAVAILABLE = "rehearsal.llm-platform.dev/unavailable"
SKIPPED = "skipped"

_NOT_REHEARSED = ("lint", "postrender", "recreatePods", "verify")
_CREDENTIALS = ("username", "password", "caFile", "certFile", "keyFile")


class Releases:
    """Installs, upgrades, reads and uninstalls releases."""

    def __init__(self, plugin: Plugin, cluster: Cluster, rehearsal: Path):
        self._plugin, self._cluster, self._rehearsal = plugin, cluster, rehearsal

    def check(self, urn: Urn, olds: Properties, news: Properties) -> tuple[Properties, str]:
        """(complete inputs, why the chart cannot be used or ""); the chart is found in previews already."""
        release = decoded(news)
        if release["name"] == "":
            release["name"] = plain(olds).get("name") or f"{urn.name}-{suffix()}"
        release["namespace"] = release["namespace"] or self._cluster.default_namespace
        if release["skipAwait"] is False and "timeout" not in news:
            release["timeout"] = DEFAULT_SECONDS
        if release["allowNullValues"] is True:
            self._plugin.engine.log(
                "`allowNullValues` is deprecated and has no effect", urn.text, warning=True
            )
        _refuse_unrehearsed(release)
        failure = ""
        if not has_unknown(news):
            try:
                release["version"] = self._helm(urn).chart(release)["version"]
            except HelmError as error:
                failure = f"{error}; check the chart name and repository configuration."
        return with_secrets(release, news), failure

    def diff(self, olds: Properties, news: Properties, ignored: Any) -> Any:
        """Against the release as last recorded; only another name or namespace replaces it."""
        state, new = plain(olds), plain(news)
        old_inputs = state.pop(INPUTS, {})
        if "version" in ignored:
            # Check has put the chart's exact version in, whatever the engine ignored.
            new["version"] = state.get("version", "")
        found = [
            Change(
                c.path, c.kind + 1 if forces_replacement(c, (("name",), ("namespace",))) else c.kind, c.value
            )
            for c in compare(managed(state, old_inputs, new), new)
        ]
        return provider_pb2.DiffResponse(
            changes=changes(bool(found)),
            diffs=sorted({str(c.path[0]) for c in found}),
            replaces=[spelled(c.path) for c in found if c.kind % 2],
            detailedDiff=detailed(found),
            hasDetailedDiff=bool(found),
        )

    def create(self, urn: Urn, request: Any) -> Any:
        """Install; a release that was recorded but did not become ready is kept, as partly created."""
        given = from_struct(request.properties)
        release = decoded(plain(given))
        if request.preview:
            return provider_pb2.CreateResponse(properties=to_struct(foreseen(given)))
        helm, where = self._helm(urn), f"{release['namespace']}/{release['name']}"
        if not (record := self._skipped(urn, release)):
            try:
                record = helm.install(release)
            except HelmError as error:
                record = _kept(helm, release, error)
                state = to_release_state(given, record)
                text = f'Helm release "{where}" was created, but failed to initialize completely. Use Helm CLI to investigate: '
                raise _unavailable(text, where, error, state) from None
        return provider_pb2.CreateResponse(id=where, properties=to_struct(to_release_state(given, record)))

    def update(self, urn: Urn, request: Any) -> Any:
        """Upgrade; a failed one is stored with the new inputs, so that the next run upgrades again."""
        given, old = from_struct(request.news), plain(from_struct(request.olds))
        release, helm = decoded(plain(given)), self._helm(urn)
        if request.preview:
            return provider_pb2.UpdateResponse(properties=to_struct(foreseen(given)))
        record, was_skipped = self._skipped(urn, release), _status(old) == SKIPPED
        where = f"{release['namespace']}/{release['name']}"
        if record and not was_skipped:
            helm.uninstall(old)
        elif not record:
            before = helm.status(release["name"], old["namespace"]) or {}
            try:
                record = helm.install(release) if was_skipped else helm.upgrade(release, old["namespace"])
            except HelmError as error:
                after = helm.status(release["name"], old["namespace"]) or {}
                if after.get("version") == before.get("version"):
                    raise Refusal(_advised(error, before, release)) from None
                text = f'Helm release "{where}" failed to initialize completely. Use Helm CLI to investigate: error running update: '
                raise _unavailable(text, where, error, to_release_state(given, after)) from None
        return provider_pb2.UpdateResponse(properties=to_struct(to_release_state(given, record)))

    def read(self, urn: Urn, request: Any) -> Any:
        """The release as Helm has it; an empty answer when Helm has none."""
        olds = from_struct(request.properties)
        state = plain(olds)
        namespace, _, name = request.id.rpartition("/")
        given = olds.get(INPUTS)
        given = (
            given.value
            if isinstance(given, Secret)
            else given or decoded({"name": name, "namespace": namespace})
        )
        if _status(state) == SKIPPED:
            return provider_pb2.ReadResponse(
                id=request.id, properties=request.properties, inputs=to_struct(given)
            )
        record = self._helm(urn).status(name, namespace)
        if record is None:
            return provider_pb2.ReadResponse()
        return provider_pb2.ReadResponse(
            id=request.id, properties=to_struct(to_release_state(given, record)), inputs=to_struct(given)
        )

    def delete(self, urn: Urn, request: Any) -> None:
        """Uninstall; a release that Helm does not know is an error, as it is for Helm."""
        state = plain(from_struct(request.properties))
        if _status(state) == SKIPPED:
            skipped.forget(self._rehearsal, state["status"]["chart"])
            return
        try:
            self._helm(urn).uninstall(state)
        except HelmError as error:
            raise Refusal(str(error)) from None

    def _helm(self, urn: Urn) -> Helm:
        kubeconfig = None if self._cluster.unreachable else self._cluster.kubeconfig
        return Helm(
            kubeconfig,
            self._plugin.stopping,
            lambda line: self._plugin.engine.log(line, urn.text, status=True),
        )

    def _skipped(self, urn: Urn, release: Record) -> Record:
        """The record of a chart that this machine cannot have: nothing is installed, and the user is told."""
        try:
            chart = self._helm(urn).chart(release)
        except HelmError as error:
            raise Refusal(str(error)) from None
        reason = (chart.get("annotations") or {}).get(UNAVAILABLE)
        if not reason:
            return {}
        self._plugin.engine.log(
            f"SKIPPED in rehearsal: {chart['name']} {chart['version']}: {reason}", urn.text, warning=True
        )
        skipped.note(self._rehearsal, chart["name"], release["namespace"], release.get("values") or {})
        info = {"status": SKIPPED}
        return {
            "name": release["name"],
            "namespace": release["namespace"],
            "version": 1,
            "info": info,
            "chart": {"metadata": chart},
        }


def _refuse_unrehearsed(release: Record) -> None:
    found = [field for field in _NOT_REHEARSED if release[field]]
    options = release.get("repositoryOpts")
    found += [
        f"repositoryOpts.{field}"
        for field in _CREDENTIALS
        if isinstance(options, dict) and options.get(field)
    ]
    if found:
        raise Refusal(f"not rehearsed for Helm releases: {', '.join(found)}")


def _status(state: Properties) -> str:
    status = state.get("status")
    return status.get("status", "") if isinstance(status, dict) else ""


def _kept(helm: Helm, release: Record, error: HelmError) -> Record:
    """The record that a failed install left behind; Refusal if it left none, or another owns the name."""
    record = helm.status(release["name"], release["namespace"])
    if record is None or "cannot re-use a name" in str(error):
        raise Refusal(_advised(error, record or {}, release)) from None
    return record


def _advised(error: HelmError, record: Record, release: Record) -> str:
    status = (record.get("info") or {}).get("status", "")
    if not status or not any(
        words in str(error) for words in ("re-use a name", "in progress", "no deployed releases")
    ):
        return str(error)
    where = f"{release['name']} -n {record['namespace']}"
    fix = (
        f"helm rollback {where}"
        if status.startswith("pending-") and record["version"] > 1
        else f"helm uninstall {where}"
    )
    return f"{error}: Helm has this release as {status}, revision {record['version']}. If nothing works on it any more: {fix}"


def _unavailable(text: str, where: str, error: HelmError, state: Properties) -> PartialFailure:
    message = (
        f"{text}failed to become available within allocated timeout. Error: Helm Release {where}: {error}"
    )
    return PartialFailure(message, where, state, [message])
