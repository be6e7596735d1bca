"""The servicer: what is asked about objects goes to :mod:`.resources`, about Releases to :mod:`.release`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from google.protobuf import empty_pb2
from pulumi.runtime.proto import provider_pb2

from rehearsal.providers.guard import OutsideRehearsal
from rehearsal.providers.kubernetes import VERSION, settings
from rehearsal.providers.kubernetes.check import check
from rehearsal.providers.kubernetes.cluster import Cluster
from rehearsal.providers.kubernetes.diff import diff
from rehearsal.providers.kubernetes.release import TYPE, Releases
from rehearsal.providers.kubernetes.resources import Resources
from rehearsal.providers.server import Engine, Plugin, Refusal, Urn, changes
from rehearsal.providers.values import from_struct, plain, to_struct

_GONE = (
    "If the cluster was deleted, you can remove this resource from Pulumi state by rerunning the operation "
    'with the PULUMI_K8S_DELETE_UNREACHABLE environment variable set to "true"'
)


class Kubernetes(Plugin):
    """The Kubernetes plugin of one provider resource."""

    def __init__(self, engine: Engine, rehearsal: Path):
        super().__init__(VERSION, engine)
        self._rehearsal = rehearsal

    def CheckConfig(self, request, context):
        failures = [
            provider_pb2.CheckFailure(property=name, reason=reason)
            for name, reason in settings.refused(plain(from_struct(request.news)))
        ]
        return provider_pb2.CheckResponse(inputs=request.news, failures=failures)

    def DiffConfig(self, request, context):
        diffs, replaces = settings.diff(plain(from_struct(request.olds)), plain(from_struct(request.news)))
        return provider_pb2.DiffResponse(changes=changes(bool(diffs)), diffs=diffs, replaces=replaces)

    def Configure(self, request, context):
        try:
            self.cluster = Cluster(settings.Settings.of(request.variables), self._rehearsal)
        except OutsideRehearsal as refusal:
            raise Refusal(str(refusal)) from None
        self.resources = Resources(self, self.cluster)
        self.releases = Releases(self, self.cluster, self._rehearsal)
        return provider_pb2.ConfigureResponse(
            acceptSecrets=True, supportsPreview=True, supports_autonaming_configuration=True
        )

    def Check(self, request, context):
        urn = Urn(request.urn)
        if self.cluster.unreachable and self.cluster.settings.skip_update_unreachable:
            return provider_pb2.CheckResponse(inputs=request.olds)
        olds, news = from_struct(request.olds), from_struct(request.news)
        if urn.type == TYPE:
            inputs, failure = self.releases.check(urn, olds, news)
            failures = [provider_pb2.CheckFailure(property="chart", reason=failure)] if failure else []
            return provider_pb2.CheckResponse(inputs=to_struct(inputs), failures=failures)
        autonaming = request.autonaming if request.HasField("autonaming") else None
        inputs = check(self.cluster, urn, olds, news, request.randomSeed, autonaming)
        return provider_pb2.CheckResponse(inputs=to_struct(inputs))

    def Diff(self, request, context):
        urn, olds, news = Urn(request.urn), from_struct(request.olds), from_struct(request.news)
        if urn.type == TYPE:
            return self.releases.diff(olds, news, request.ignoreChanges)
        return diff(self.cluster, urn, olds, news, request.ignoreChanges)

    def Create(self, request, context):
        if self.cluster.unreachable and not request.preview:
            raise Refusal(f"configured Kubernetes cluster is unreachable: {self.cluster.unreachable}")
        urn = Urn(request.urn)
        return self._of(urn).create(urn, request)

    def Update(self, request, context):
        if self.cluster.unreachable and not request.preview:
            raise Refusal(f"configured Kubernetes cluster is unreachable: {self.cluster.unreachable}")
        urn = Urn(request.urn)
        return self._of(urn).update(urn, request)

    def Read(self, request, context):
        urn = Urn(request.urn)
        if not self.cluster.unreachable:
            return self._of(urn).read(urn, request)
        self.engine.log(
            f"configured Kubernetes cluster is unreachable: {self.cluster.unreachable}",
            urn.text,
            warning=True,
        )
        if self.cluster.settings.delete_unreachable:
            return provider_pb2.ReadResponse()
        if self.cluster.settings.skip_update_unreachable:
            return provider_pb2.ReadResponse(
                id=request.id, properties=request.properties, inputs=request.inputs
            )
        raise Refusal(f"failed to read resource state due to unreachable cluster. {_GONE}")

    def Delete(self, request, context):
        urn = Urn(request.urn)
        if not self.cluster.unreachable:
            self._of(urn).delete(urn, request)
        elif urn.type == TYPE:
            raise Refusal(
                f'can\'t delete Helm Release with unreachable cluster. Reason: "{self.cluster.unreachable}"'
            )
        else:
            self.engine.log(
                f"configured Kubernetes cluster is unreachable: {self.cluster.unreachable}",
                urn.text,
                warning=True,
            )
            if not self.cluster.settings.delete_unreachable:
                raise Refusal(f"configured Kubernetes cluster is unreachable. {_GONE}")
        return empty_pb2.Empty()

    def _of(self, urn: Urn) -> Any:
        return self.releases if urn.type == TYPE else self.resources
