"""The servicer: every operation of every kind, by the table."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from google.protobuf import empty_pb2
from pulumi.runtime.proto import provider_pb2

from rehearsal.cloud.project import Project, Record, State
from rehearsal.cloud.settings import Settings
from rehearsal.providers.gcp import VERSION
from rehearsal.providers.gcp.call import Call, Defaults, google
from rehearsal.providers.gcp.diff import changes as differences
from rehearsal.providers.gcp.diff import text_in
from rehearsal.providers.gcp.embedded import Embedded
from rehearsal.providers.gcp.kinds import Kind, table
from rehearsal.providers.server import Engine, PartialFailure, Plugin, Refusal, Urn, changes
from rehearsal.providers.values import Properties, Secret, from_struct, has_unknown, plain, to_struct

DEFAULTED = "__defaults"
KINDS = table()
_HIDDEN = "(kept by Google)"
_RANDOM = 7


class NameTooLong(ValueError):
    """No name can be made of a resource's logical one; it has to be given, or shorter."""


class Gcp(Plugin):
    """The gcp plugin of one provider resource; the project is the rehearsal's."""

    def __init__(
        self,
        engine: Engine,
        rehearsal: Path,
        embedded: Embedded | None = None,
        clock: Callable[[], float] = time.time,
    ):
        super().__init__(VERSION, engine)
        self.project, self.settings = Project.of(rehearsal), Settings.of(rehearsal)
        self._embedded, self._clock = embedded or Embedded.of(rehearsal), clock
        self._defaults = Defaults()

    def Configure(self, request, context):
        self._defaults = Defaults.of(_configured(request))
        return provider_pb2.ConfigureResponse(
            acceptSecrets=True, supportsPreview=True, supports_autonaming_configuration=True
        )

    # -- questions -----------------------------------------------------------------------------------

    def Check(self, request, context):
        kind = kind_of(request.urn)
        olds = from_struct(request.olds)
        news = {k: v for k, v in from_struct(request.news).items() if v is not None and k != DEFAULTED}
        failures, inputs = list(_misfits(kind, news)), news
        try:
            inputs = _completed(kind, Urn(request.urn), olds, news, request.randomSeed)
        except NameTooLong as error:
            failures.append((kind.named, str(error)))
        if not failures:
            failures = list(self._planned(kind, plain(inputs)))
        return provider_pb2.CheckResponse(
            inputs=to_struct(inputs),
            failures=[provider_pb2.CheckFailure(property=name, reason=reason) for name, reason in failures],
        )

    def _planned(self, kind: Kind, inputs: Properties) -> Iterator[tuple[str, str]]:
        call = self._call(kind, inputs)
        for check in kind.plan:
            try:
                check(call)
            except Refusal as refusal:
                yield "", str(refusal)

    def Diff(self, request, context):
        kind = kind_of(request.urn)
        state, before, news = (
            plain(from_struct(s)) for s in (request.olds, request.old_inputs, request.news)
        )
        found = differences(kind, state, before, news, list(request.ignoreChanges))
        replaces = sorted(path for path, forced in found.items() if forced)
        modes = provider_pb2.PropertyDiff
        return provider_pb2.DiffResponse(
            changes=changes(bool(found)),
            replaces=replaces,
            diffs=sorted(found),
            detailedDiff={
                path: modes(kind=modes.UPDATE_REPLACE if forced else modes.UPDATE)
                for path, forced in found.items()
            },
            hasDetailedDiff=True,
            deleteBeforeReplace=bool(replaces) and _name_is_kept(kind, before, news),
        )

    # -- operations ----------------------------------------------------------------------------------

    def Create(self, request, context):
        kind, given = kind_of(request.urn), _without_marks(request.properties)
        if request.preview:
            outputs = kind.foreseen(given, self._call(kind, plain(given)))
            return provider_pb2.CreateResponse(properties=to_struct(_sealed(kind, outputs)))
        with self._during(kind, plain(given), f"Error creating {kind.title}: ") as call:
            self._admit(call, "create")
            self._not_taken(call)
            call.stored = identity = call.identity
            record: Record = {"inputs": _storable(kind, call.inputs), "outputs": {}, "created": call.now}
            outputs = kind.outcome(given, call)
            call.state.of(kind.module)[identity] = record
            kind.made(call)
            record["outputs"] = _storable(kind, plain(outputs))
        outputs = _sealed(kind, outputs)
        self._wait(kind, request.timeout, "creating", identity, outputs)
        return provider_pb2.CreateResponse(id=identity, properties=to_struct(outputs))

    def Update(self, request, context):
        kind, olds, given = kind_of(request.urn), from_struct(request.olds), _without_marks(request.news)
        given = _with_ignored(given, olds, request.ignoreChanges)
        if request.preview:
            return provider_pb2.UpdateResponse(properties=to_struct(_sealed(kind, _kept(kind, olds) | given)))
        with self._during(kind, plain(given), f"Error updating {kind.title}: ", request.id) as call:
            if call.record is None:
                raise google(404, f"The resource '{request.id}' was not found", "notFound")
            call.olds = plain(olds)
            self._admit(call, "update")
            record = {**call.record, "inputs": _storable(kind, call.inputs)}
            call.state.of(kind.module)[request.id] = record
            outputs = kind.outcome(given, call, olds)
            record["outputs"] = _storable(kind, plain(outputs))
            kind.changed(call)
            outputs |= _only(outputs, record["outputs"], kind)
        outputs = _sealed(kind, outputs)
        self._wait(kind, request.timeout, "updating", request.id, outputs)
        return provider_pb2.UpdateResponse(properties=to_struct(outputs))

    def Read(self, request, context):
        kind, olds = kind_of(request.urn), from_struct(request.properties)
        state = self.project.read()
        record = state.of(kind.module).get(request.id)
        if record is None:
            return provider_pb2.ReadResponse()
        call = self._call(kind, record["inputs"], state, record, request.id)
        live = kind.observed(call, record["outputs"])
        outputs = olds | _only(olds, live, kind) if olds else live
        inputs = from_struct(request.inputs) or {**record["inputs"], DEFAULTED: []}
        return provider_pb2.ReadResponse(
            id=request.id,
            properties=to_struct(_sealed(kind, outputs)),
            inputs=to_struct({name: _refreshed(value, live.get(name)) for name, value in inputs.items()}),
        )

    def Delete(self, request, context):
        kind, olds = kind_of(request.urn), plain(from_struct(request.properties))
        policy = olds.get("deletionPolicy") or "DELETE"
        if policy == "PREVENT":
            raise Refusal(f"cannot destroy {kind.title} {request.id}: deletion_policy is set to PREVENT")
        if policy == "ABANDON":
            return empty_pb2.Empty()
        with self._during(kind, olds, f"Error deleting {kind.title}: ", request.id) as call:
            if call.record is not None:
                self._refuse_injected(call, "delete")
                for check in kind.removal:
                    check(call)
                _unused(call)
                del call.state.of(kind.module)[request.id]
                kind.removed(call)
                _drop_parts(call)
        self.stopping.wait(self.settings.seconds(kind.module))
        return empty_pb2.Empty()

    # -- parts ---------------------------------------------------------------------------------------

    def _call(
        self,
        kind: Kind,
        inputs: Properties,
        state: State | None = None,
        record: Record | None = None,
        identity: str = "",
    ) -> Call:
        return Call(
            kind, inputs, self._defaults, self.settings, self._embedded, state or State(), self._clock(), record,
            identity,
        )  # fmt: skip

    @contextmanager
    def _during(self, kind: Kind, inputs: Properties, prefix: str, identity: str = "") -> Iterator[Call]:
        """An operation on the project, which is as before when it is refused; `prefix` begins the refusal."""
        inputs = {name: value for name, value in inputs.items() if name != DEFAULTED}
        refused: Refusal | None = None
        with self.project.change() as state:
            record = state.of(kind.module).get(identity) if identity else None
            before = json.dumps(state.document())
            try:
                yield self._call(kind, inputs, state, record, identity)
            except Refusal as refusal:
                # How often an injected refusal has struck is kept all the same.
                refused, kept = refusal, State(json.loads(before))
                state.resources, state.services = kept.resources, kept.services
        if refused is not None:
            text = str(refused)
            raise Refusal(f"1 error occurred:\n\t* {prefix if text.startswith('googleapi') else ''}{text}\n")

    def _admit(self, call: Call, operation: str) -> None:
        """Everything that may stand against a creation or an update, in the order in which Google looks."""
        if call.kind.api and not call.enabled(call.kind.api):
            raise _disabled(call)
        self._refuse_injected(call, operation)
        for field, kind in call.kind.references.items():
            reference = call.inputs.get(field)
            if reference and call.find(kind, reference) is None:
                raise google(404, f"The resource '{reference}' was not found", "notFound")
        for check in call.kind.checks:
            check(call)

    def _refuse_injected(self, call: Call, operation: str) -> None:
        name = call.name or call.stored.rsplit("/", 1)[-1]
        for key, entry in self.settings.refusals(call.kind.module, name, operation):
            times = call.state.struck.get(key, 0)
            if times < int(entry.get("times", times + 1)):
                call.state.struck[key] = times + 1
                reason = str(entry.get("reason", "backendError"))
                raise google(int(entry.get("status", 503)), str(entry.get("message", "injected")), reason)

    def _not_taken(self, call: Call) -> None:
        if not call.kind.adopts and call.identity in call.state.of(call.kind.module):
            raise google(409, f"The resource '{call.identity}' already exists", "alreadyExists")

    def _wait(self, kind: Kind, timeout: float, what: str, identity: str, outputs: Properties) -> None:
        """Let the operation take its time; an interrupted or too slow one leaves the resource behind."""
        seconds = self.settings.seconds(kind.module)
        late = 0 < timeout < seconds
        stopped = seconds > 0 and self.stopping.wait(timeout if late else seconds)
        if not stopped and not late:
            return
        state = f"while waiting for state to become 'DONE' (last state: 'RUNNING', timeout: {timeout:g}s)"
        reason = "context canceled" if stopped else f"timeout {state}"
        message = f"Error waiting for {what} {kind.title}: {reason}"
        raise PartialFailure(message, identity, outputs, [message])


def kind_of(urn: str) -> Kind:
    """The row of a resource's type; refused by name where there is none."""
    token = Urn(urn).type
    if token not in KINDS:
        raise Refusal(f"{token} is not simulated in a rehearsal; there are: {', '.join(sorted(KINDS))}")
    return KINDS[token]


def _configured(request: Any) -> Mapping[str, Any]:
    """The provider's inputs that are known; the engine sends structured ones as JSON text."""
    given = plain(from_struct(request.args)) or {
        k.rsplit(":", 1)[-1]: v for k, v in request.variables.items()
    }
    return {name: _decoded(value) for name, value in given.items() if not has_unknown(value)}


def _decoded(value: Any) -> Any:
    if isinstance(value, str) and value[:1] in ("{", "["):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


def _misfits(kind: Kind, news: Properties) -> Iterator[tuple[str, str]]:
    for name in sorted(news.keys() - kind.names.inputs):
        yield name, f"An argument named '{name}' is not expected here."
    for name in sorted({*kind.names.required, *kind.required}):
        if name not in news and not (kind.autonamed and name == kind.named):
            yield (
                name,
                f"Missing required argument: the argument '{name}' is required, but no definition was found",
            )


def _completed(kind: Kind, urn: Urn, olds: Properties, news: Properties, seed: bytes) -> Properties:
    """The inputs with the provider's defaults and, where none was given, a name."""
    inputs = {name: value for name, value in kind.defaults.items() if name in kind.names.inputs} | news
    defaulted = sorted(name for name in kind.defaults if name not in news and name in inputs)
    if kind.autonamed and kind.named not in news:
        former = olds.get(kind.named) if kind.named in (olds.get(DEFAULTED) or ()) else None
        inputs[kind.named] = former or autoname(urn.name, seed, kind.max_name)
        defaulted.append(kind.named)
    return {**inputs, DEFAULTED: defaulted}


def autoname(name: str, seed: bytes, longest: int) -> str:
    """The logical name in lower case with random digits, as the bridge makes it; NameTooLong beyond `longest`."""
    prefix = f"{name.lower()}-"
    if len(prefix) + _RANDOM > longest:
        raise NameTooLong(
            f"name '{prefix}' plus {_RANDOM} random chars is longer than maximum length {longest}"
        )
    return prefix + hashlib.sha256(seed or name.encode()).hexdigest()[:_RANDOM]


def _name_is_kept(kind: Kind, before: Properties, news: Properties) -> bool:
    """Whether the old one must go first: both would have the name that the user gave."""
    if not kind.autonamed or kind.named in (news.get(DEFAULTED) or ()):
        return False
    return news.get(kind.named) == before.get(kind.named)


def _disabled(call: Call) -> Refusal:
    where = f"https://console.developers.google.com/apis/api/{call.kind.api}/overview?project={call.project}"
    return google(
        403,
        f"{call.kind.api} has not been used in project {call.project} before or it is disabled. Enable it by "
        f"visiting {where} then retry. If you enabled this API recently, wait a few minutes for the action to "
        "propagate to our systems and retry.",
        "accessNotConfigured",
    )


def _unused(call: Call) -> None:
    """Refuse to delete what something else names, unless that goes with it."""
    for module, identity, record in call.state.all():
        kind = next(k for k in KINDS.values() if k.module == module)
        for field, target in kind.references.items():
            if target != call.kind.module or field == kind.part_of:
                continue
            found = call.find(target, record["inputs"].get(field))
            if found and found[0] == call.identity:
                raise google(
                    400,
                    f"The {call.kind.title.lower()} resource '{call.identity}' is already being used by '{identity}'",
                    "resourceInUseByAnotherResource",
                )


def _drop_parts(call: Call) -> None:
    """What was a part of the deleted resource is gone with it."""
    parts = [k for k in KINDS.values() if k.part_of and k.references[k.part_of] == call.kind.module]
    for kind in parts:
        records = call.state.of(kind.module)
        short = call.identity.rsplit("/", 1)[-1]
        gone = [i for i, r in records.items() if r["inputs"].get(kind.part_of) in (call.identity, short)]
        for identity in gone:
            del records[identity]


def _without_marks(struct: Any) -> Properties:
    return {name: value for name, value in from_struct(struct).items() if name != DEFAULTED}


def _storable(kind: Kind, properties: Properties) -> Properties:
    """As the project keeps them: no secrets."""
    return {n: _HIDDEN if n in kind.sensitive else v for n, v in properties.items() if n != DEFAULTED}


def _sealed(kind: Kind, outputs: Properties) -> Properties:
    """The outputs with what is sensitive marked, whatever the program did."""
    return {
        name: Secret(plain(value)) if name in kind.sensitive and value is not None else value
        for name, value in outputs.items()
        if name != DEFAULTED
    }


def _kept(kind: Kind, olds: Properties) -> Properties:
    """Outputs that an update leaves alone: what only Google decides or decided."""
    names = kind.names.computed | kind.outputs.keys() | kind.filled.keys()
    return {name: value for name, value in olds.items() if name in names}


def _only(olds: Properties, live: Properties, kind: Kind) -> Properties:
    """Live values that differ from what we know; secrets stay as they are."""
    return {
        name: value
        for name, value in live.items()
        if name not in kind.sensitive and plain(olds.get(name)) != value
    }


def _with_ignored(given: Properties, olds: Properties, ignored: Any) -> Properties:
    """The inputs with ignored top-level fields as they were."""
    return {n: olds.get(n, v) if text_in(n, list(ignored)) else v for n, v in given.items()}


def _refreshed(given: Any, live: Any) -> Any:
    """An input as it is now: leaves that were given, with the live values."""
    if isinstance(given, Secret) or live is None or has_unknown(given):
        return given
    if isinstance(given, dict) and isinstance(live, dict):
        return {name: _refreshed(value, live.get(name)) for name, value in given.items()}
    return given if isinstance(given, list) and not isinstance(live, list) else live
