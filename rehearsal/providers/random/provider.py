"""The servicer of the random plugin: everything is decided at creation and kept in state."""

from __future__ import annotations

import random

from google.protobuf import empty_pb2
from pulumi.runtime.proto import provider_pb2

from rehearsal.providers.random import VERSION
from rehearsal.providers.random.kinds import KINDS, Kind
from rehearsal.providers.server import Engine, Plugin, Refusal, Urn, changes
from rehearsal.providers.values import UNKNOWN, Properties, from_struct, has_unknown, plain, to_struct


class Random(Plugin):
    """Random values; any change of their inputs, keepers included, makes new ones."""

    def __init__(self, engine: Engine):
        super().__init__(VERSION, engine)

    def Configure(self, request, context):
        return provider_pb2.ConfigureResponse(acceptSecrets=True, supportsPreview=True)

    def Check(self, request, context):
        kind = _kind(request.urn)
        news = {key: value for key, value in from_struct(request.news).items() if value is not None}
        failures = [
            (name, f"Missing required property '{name}'") for name in kind.required if name not in news
        ]
        if not failures and not has_unknown(news):
            failures = kind.check(kind.defaults | plain(news))
        return provider_pb2.CheckResponse(
            inputs=to_struct(news),
            failures=[provider_pb2.CheckFailure(property=name, reason=reason) for name, reason in failures],
        )

    def Diff(self, request, context):
        olds, news = plain(from_struct(request.old_inputs)), plain(from_struct(request.news))
        ignored = {path.split(".")[0].split("[")[0] for path in request.ignoreChanges}
        changed = sorted(
            key for key in (olds.keys() | news.keys()) - ignored if olds.get(key) != news.get(key)
        )
        replace = provider_pb2.PropertyDiff.UPDATE_REPLACE
        return provider_pb2.DiffResponse(
            changes=changes(bool(changed)),
            replaces=changed,
            diffs=changed,
            detailedDiff={key: provider_pb2.PropertyDiff(kind=replace, inputDiff=True) for key in changed},
            hasDetailedDiff=True,
        )

    def Create(self, request, context):
        kind, given = _kind(request.urn), from_struct(request.properties)
        inputs = kind.defaults | given
        if request.preview:
            unknown: Properties = dict.fromkeys(kind.computed, UNKNOWN)
            return provider_pb2.CreateResponse(properties=to_struct(inputs | unknown))
        identity, outputs = kind.make(plain(inputs), random.SystemRandom())
        return provider_pb2.CreateResponse(id=identity, properties=to_struct(inputs | outputs))

    def Read(self, request, context):
        if not request.properties.fields:
            raise Refusal(f"{Urn(request.urn).type}: import is not simulated in a rehearsal")
        return provider_pb2.ReadResponse(id=request.id, properties=request.properties, inputs=request.inputs)

    def Delete(self, request, context):
        return empty_pb2.Empty()


def _kind(urn: str) -> Kind:
    token = Urn(urn).type
    if token not in KINDS:
        raise Refusal(f"{token} is not simulated in a rehearsal; there are: {', '.join(KINDS)}")
    return KINDS[token]
