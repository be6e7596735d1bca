"""The servicer: every operation of every kind, by a cloud's table."""

from __future__ import annotations

import hashlib
import json
import time
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from google.protobuf import empty_pb2
from pulumi.runtime.proto import provider_pb2

from rehearsal.cloud.project import Project, Record, State
from rehearsal.cloud.settings import Settings
from rehearsal.providers.cloud.call import Call
from rehearsal.providers.cloud.diff import Dialect, text_in
from rehearsal.providers.cloud.diff import changes as differences
from rehearsal.providers.cloud.embedded import Embedded
from rehearsal.providers.cloud.functions import READ, Function, Question
from rehearsal.providers.cloud.kinds import Kind
from rehearsal.providers.server import Engine, PartialFailure, Plugin, Refusal, Urn, changes
from rehearsal.providers.values import Properties, Secret, from_struct, has_unknown, plain, to_struct

DEFAULTED = "__defaults"
_HIDDEN = "(kept by the cloud)"
_RANDOM = 7

Kinds = Mapping[str, Kind]
"""A cloud's kinds by token."""


class NameTooLong(ValueError):
    """No name can be made of a resource's logical one; it has to be given, or shorter."""


class CloudPlugin(Plugin):
    """The plugin of one provider resource of a cloud; what there is is the rehearsal's.

    A cloud says its `kinds`, how it writes values, and the sentences of its refusals; `release` is its SDK's.
    """

    release: ClassVar[str]
    embedding: ClassVar[type[Embedded]] = Embedded
    kinds: ClassVar[Kinds]
    dialect: ClassVar[Dialect]
    calls: ClassVar[type[Call]]
    functions: ClassVar[Mapping[str, Function]] = {}
    # Kinds without a row, which controllers make in a cluster, and the fields by which these hold on to others.
    controllers: ClassVar[Mapping[str, Mapping[str, str]]] = {}

    def __init__(
        self,
        engine: Engine,
        rehearsal: Path,
        embedded: Embedded | None = None,
        clock: Callable[[], float] = time.time,
    ):
        super().__init__(self.release, engine)
        self.project, self.settings = Project.of(rehearsal), Settings.of(rehearsal)
        self._embedded, self._clock = embedded or self.embedding.of(rehearsal), clock
        self._defaults = self.defaults_of({})

    # -- what a cloud says -----------------------------------------------------------------------------

    @abstractmethod
    def defaults_of(self, configured: Mapping[str, Any]) -> Any:
        """The provider's configuration as a call's `defaults`; Refusal where it cannot be used."""

    @abstractmethod
    def failed(self, call: Call, operation: str, refusal: str) -> str:
        """The provider's sentence about an operation (create, update, delete) that was refused."""

    @abstractmethod
    def late(self, kind: Kind, operation: str, identity: str, timeout: float | None) -> str:
        """The provider's sentence about an operation that took longer than `timeout`, or was stopped (None)."""

    @abstractmethod
    def missing(self, call: Call, field: str, reference: Any) -> Refusal:
        """The refusal of an operation on, or with, something that does not exist; `field` names it, if one does."""

    @abstractmethod
    def taken(self, call: Call) -> Refusal:
        """The refusal of a second resource of one id."""

    @abstractmethod
    def in_use(self, call: Call, by: str) -> Refusal:
        """The refusal to delete what the resource `by` needs."""

    @abstractmethod
    def injected(self, entry: Mapping[str, Any]) -> Refusal:
        """The refusal that a settings file asks for."""

    def admit(self, call: Call) -> None:
        """What stands before everything else that may refuse a creation or an update."""

    def keeps(self, kind: Kind, identity: str, olds: Properties) -> bool:
        """Whether a deletion leaves the resource as it is; Refusal where it is forbidden."""
        return False

    def follows(self, call: Call, state: Properties) -> Iterable[str]:
        """Outputs that differ since the provider's own configuration has changed."""
        return ()

    # -- questions -----------------------------------------------------------------------------------

    def Configure(self, request, context):
        self._defaults = self.defaults_of(_configured(request))
        return provider_pb2.ConfigureResponse(
            acceptSecrets=True, supportsPreview=True, supports_autonaming_configuration=True
        )

    def Check(self, request, context):
        kind = self.kind_of(request.urn)
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
        kind = self.kind_of(request.urn)
        state, before, news = (
            plain(from_struct(s)) for s in (request.olds, request.old_inputs, request.news)
        )
        found = differences(self.dialect, kind, state, before, news, list(request.ignoreChanges))
        found |= dict.fromkeys(self.follows(self._call(kind, news), state), False)
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

    def Invoke(self, request, context):
        function = self.functions.get(request.tok)
        if function is None:
            return super().Invoke(request, context)
        question = Question(plain(from_struct(request.args)), self._defaults, self.settings)
        try:
            self._refuse_reading(function, question)
            found = function.answer(question)
        except Refusal as refusal:
            words = function.failed(question, str(refusal))
            raise Refusal(f"invoking {request.tok}: 1 error occurred:\n\t* {words}\n\n") from None
        return provider_pb2.InvokeResponse(**{"return": to_struct(found)})

    def _refuse_reading(self, function: Function, question: Question) -> None:
        refused: Refusal | None = None
        with self.project.change() as state:
            try:
                self._strike(state, function.kind, function.subject(question), READ)
            except Refusal as refusal:
                # How often it has struck is kept.
                refused = refusal
        if refused is not None:
            raise refused

    # -- operations ----------------------------------------------------------------------------------

    def Create(self, request, context):
        kind, given = self.kind_of(request.urn), _without_marks(request.properties)
        if request.preview:
            outputs = kind.foreseen(given, self._call(kind, plain(given)))
            return provider_pb2.CreateResponse(properties=to_struct(_sealed(kind, outputs)))
        with self._during(kind, plain(given), "create") as call:
            self._admit(call, "create")
            self._not_taken(call)
            call.stored = identity = call.identity
            record: Record = {"inputs": _storable(kind, call.inputs), "outputs": {}, "created": call.now}
            outputs = kind.outcome(given, call)
            call.state.of(kind.module)[identity] = record
            kind.made(call)
            record["outputs"] = _storable(kind, plain(outputs))
            wrong = kind.unfinished(call)
        outputs = _sealed(kind, outputs)
        self._wait(kind, request.timeout, "creating", identity, outputs)
        _require_finished(wrong, identity, outputs)
        return provider_pb2.CreateResponse(id=identity, properties=to_struct(outputs))

    def Update(self, request, context):
        kind, olds, given = (
            self.kind_of(request.urn),
            from_struct(request.olds),
            _without_marks(request.news),
        )
        given = _with_ignored(given, olds, list(request.ignoreChanges))
        if request.preview:
            outputs = kind.changed_to(given, self._call(kind, plain(given)), olds)
            return provider_pb2.UpdateResponse(properties=to_struct(_sealed(kind, outputs)))
        with self._during(kind, plain(given), "update", request.id) as call:
            if call.record is None:
                raise self.missing(call, "", request.id)
            call.olds = plain(olds)
            self._admit(call, "update")
            record = {**call.record, "inputs": _storable(kind, call.inputs)}
            call.state.of(kind.module)[request.id] = record
            outputs = kind.outcome(given, call, olds)
            record["outputs"] = _storable(kind, plain(outputs))
            kind.changed(call)
            outputs |= _only(outputs, record["outputs"], kind)
            wrong = kind.unfinished(call)
        outputs = _sealed(kind, outputs)
        self._wait(kind, request.timeout, "updating", request.id, outputs)
        _require_finished(wrong, request.id, outputs)
        return provider_pb2.UpdateResponse(properties=to_struct(outputs))

    def Read(self, request, context):
        kind, olds = self.kind_of(request.urn), from_struct(request.properties)
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
        kind, olds = self.kind_of(request.urn), plain(from_struct(request.properties))
        if self.keeps(kind, request.id, olds):
            return empty_pb2.Empty()
        with self._during(kind, olds, "delete", request.id) as call:
            if call.record is not None:
                self._refuse_injected(call, "delete")
                for check in kind.removal:
                    check(call)
                self._unused(call)
                del call.state.of(kind.module)[request.id]
                kind.removed(call)
                self._drop_parts(call)
        self.stopping.wait(self.settings.seconds(kind.module))
        return empty_pb2.Empty()

    # -- parts ---------------------------------------------------------------------------------------

    def kind_of(self, urn: str) -> Kind:
        """The row of a resource's type; refused by name where there is none."""
        token = Urn(urn).type
        if token not in self.kinds:
            raise Refusal(
                f"{token} is not simulated in a rehearsal; there are: {', '.join(sorted(self.kinds))}"
            )
        return self.kinds[token]

    def _call(
        self,
        kind: Kind,
        inputs: Properties,
        state: State | None = None,
        record: Record | None = None,
        identity: str = "",
    ) -> Any:
        return self.calls(
            kind, inputs, self._defaults, self.settings, self._embedded, state or State(), self._clock(), record,
            identity,
        )  # fmt: skip

    @contextmanager
    def _during(self, kind: Kind, inputs: Properties, operation: str, identity: str = "") -> Iterator[Any]:
        """An operation on the project, which is as before when it is refused."""
        inputs = {name: value for name, value in inputs.items() if name != DEFAULTED}
        refused: Refusal | None = None
        with self.project.change() as state:
            record = state.of(kind.module).get(identity) if identity else None
            before = json.dumps(state.document())
            call = self._call(kind, inputs, state, record, identity)
            try:
                yield call
            except Refusal as refusal:
                # How often an injected refusal has struck is kept all the same.
                refused, kept = refusal, State(json.loads(before))
                state.resources, state.services = kept.resources, kept.services
        if refused is not None:
            raise Refusal(f"1 error occurred:\n\t* {self.failed(call, operation, str(refused))}\n")

    def _admit(self, call: Call, operation: str) -> None:
        """Everything that may stand against a creation or an update, in the order in which a cloud looks."""
        self.admit(call)
        self._refuse_injected(call, operation)
        for field, kind in call.kind.references.items():
            for reference in _references(call.inputs, field):
                if reference and call.find(kind, reference) is None:
                    raise self.missing(call, field, reference)
        for check in call.kind.checks:
            check(call)

    def _refuse_injected(self, call: Call, operation: str) -> None:
        name = call.name or call.stored.rsplit("/", 1)[-1]
        self._strike(call.state, call.kind.module, name, operation)

    def _strike(self, state: State, kind: str, name: str, operation: str) -> None:
        for key, entry in self.settings.refusals(kind, name, operation):
            times = state.struck.get(key, 0)
            if times < int(entry.get("times", times + 1)):
                state.struck[key] = times + 1
                raise self.injected(entry)

    def _not_taken(self, call: Call) -> None:
        if not call.kind.adopts and call.identity in call.state.of(call.kind.module):
            raise self.taken(call)

    def _unused(self, call: Call) -> None:
        """Refuse to delete what something else names, unless that goes with it."""
        for module, identity, record in call.state.all():
            kind = next((k for k in self.kinds.values() if k.module == module), None)
            references, part_of = (
                (kind.references, kind.part_of) if kind else (self.controllers.get(module, {}), "")
            )
            for field, target in references.items():
                if target != call.kind.module or field == part_of:
                    continue
                for reference in _references(record["inputs"], field):
                    found = call.find(target, reference)
                    if found and found[0] == call.identity:
                        raise self.in_use(call, identity)

    def _drop_parts(self, call: Call) -> None:
        """What was a part of the deleted resource is gone with it."""
        parts = [k for k in self.kinds.values() if k.part_of and k.references[k.part_of] == call.kind.module]
        for kind in parts:
            records = call.state.of(kind.module)
            gone = [
                i
                for i, r in records.items()
                if call.means(r["inputs"].get(kind.part_of), call.identity, call.record or {})
            ]
            for identity in gone:
                del records[identity]

    def _wait(self, kind: Kind, timeout: float, what: str, identity: str, outputs: Properties) -> None:
        """Let the operation take its time; an interrupted or too slow one leaves the resource behind."""
        seconds = self.settings.seconds(kind.module)
        late = 0 < timeout < seconds
        stopped = seconds > 0 and self.stopping.wait(timeout if late else seconds)
        if stopped or late:
            message = self.late(kind, what, identity, None if stopped else timeout)
            raise PartialFailure(message, identity, outputs, [message])


def _require_finished(wrong: str, identity: str, outputs: Properties) -> None:
    if wrong:
        message = f"1 error occurred:\n\t* {wrong}\n"
        raise PartialFailure(message, identity, outputs, [wrong])


def _references(inputs: Properties, field: str) -> list[Any]:
    """What a field names: `a.b` is the field b of the block a, and a list names several."""
    value: Any = inputs
    for part in field.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value if isinstance(value, list) else [value]


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
    if kind.autonamed and kind.named not in news and f"{kind.named}Prefix" not in news:
        former = olds.get(kind.named) if kind.named in (olds.get(DEFAULTED) or ()) else None
        logical = urn.name.lower() if kind.lower else urn.name
        inputs[kind.named] = former or autoname(logical, seed, kind.max_name)
        defaulted.append(kind.named)
    return {**inputs, DEFAULTED: defaulted}


def autoname(name: str, seed: bytes, longest: int) -> str:
    """The logical name with random digits, as the bridge makes it; NameTooLong beyond `longest`."""
    prefix = f"{name}-"
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


def _only(olds: Properties, live: Properties, kind: Kind) -> Properties:
    """Live values that differ from what we know; secrets stay as they are."""
    return {
        name: value
        for name, value in live.items()
        if name not in kind.sensitive and plain(olds.get(name)) != value
    }


def _with_ignored(given: Any, olds: Any, ignored: list[str], path: str = "") -> Any:
    """The inputs with ignored fields as they were."""
    if not isinstance(given, dict):
        return given
    before = plain(olds) if isinstance(plain(olds), dict) else {}
    result = {}
    for name, value in given.items():
        place = f"{path}.{name}" if path else name
        kept = text_in(place, ignored) and name in before
        result[name] = before[name] if kept else _with_ignored(value, before.get(name), ignored, place)
    return result


def _refreshed(given: Any, live: Any) -> Any:
    """An input as it is now: leaves that were given, with the live values."""
    if isinstance(given, Secret) or live is None or has_unknown(given):
        return given
    if isinstance(given, dict) and isinstance(live, dict):
        return {name: _refreshed(value, live.get(name)) for name, value in given.items()}
    return given if isinstance(given, list) and not isinstance(live, list) else live
