"""The life of one object: what the engine's requests mean for it, and what is kept of it in state."""

from __future__ import annotations

from typing import Any

from pulumi.runtime.proto import provider_pb2

from ops.kube import ApiError, Manifest, UnknownKind
from rehearsal.providers.kubernetes import apply
from rehearsal.providers.kubernetes.awaiting import NotReady, Waiting
from rehearsal.providers.kubernetes.awaiting.custom import BadExpression
from rehearsal.providers.kubernetes.check import suffix
from rehearsal.providers.kubernetes.cluster import Cluster
from rehearsal.providers.kubernetes.objects import (
    API_VERSION,
    FIELD_MANAGER,
    annotation,
    from_state,
    identity,
    is_patch,
    meta,
    normalised,
    pruned,
    to_manifest,
    to_state,
    with_secrets,
)
from rehearsal.providers.server import PartialFailure, Plugin, Refusal, Urn
from rehearsal.providers.values import Properties, from_struct, has_unknown, to_struct

MANAGER = "pulumi.com/patchFieldManager"
NO_KIND = (
    "the Kubernetes API server reported that the apiVersion for this resource does not exist. "
    "Verify that any required CRDs have been created"
)


class Resources:
    """Creates, reads, updates and deletes objects of any kind."""

    def __init__(self, plugin: Plugin, cluster: Cluster):
        self.plugin, self.cluster = plugin, cluster

    def create(self, urn: Urn, request: Any) -> Any:
        """POST, or server-side apply for Patch resources, then wait; a preview does it as a dry run where that can work."""
        given = from_struct(request.properties)
        inputs, preview = to_manifest(given), request.preview
        patch = is_patch(urn.type, inputs)
        if preview and (has_unknown(inputs) or patch or not self.cluster.serves(inputs)):
            return provider_pb2.CreateResponse(properties=request.properties)
        manager = _manager(given, inputs)
        made = self._make(urn, inputs, manager, patch, preview)
        if made is None:
            return provider_pb2.CreateResponse(properties=request.properties)
        if preview:
            made.pop("status", None)
            state = to_state(inputs, made, given, manager, inputs["apiVersion"])
            return provider_pb2.CreateResponse(properties=to_struct(state))
        try:
            live = self._waiting(urn).until_ready(inputs, made, None, request.timeout)
        except BadExpression as error:
            raise _not_created(urn, error) from None
        except NotReady as error:
            state = to_state(inputs, error.live, given, manager, inputs["apiVersion"])
            message = (
                f'resource "{urn.text}" was successfully created, but the Kubernetes API server '
                f"reported that it failed to fully initialize or become live: {error}"
            )
            raise _partial(message, error, state) from None
        self._say(urn, "")
        state = to_state(inputs, live, given, manager, inputs["apiVersion"])
        return provider_pb2.CreateResponse(id=identity(live), properties=to_struct(state))

    def _make(self, urn: Urn, inputs: Manifest, manager: str, patch: bool, preview: bool) -> Manifest | None:
        """The new object, None where a dry run says nothing about the real one."""
        upsert = patch or self.cluster.settings.upsert_existing

        def retry(message: str, seconds: float) -> bool:
            self._say(urn, message)
            return not self.plugin.stopping.wait(seconds)

        try:
            return apply.create(self.cluster, inputs, manager, upsert, preview, retry)
        except ApiError as error:
            if preview and _harmless_in_preview(error):
                return None
            if error.reason == "NoMatch":
                text = f'creation of resource "{urn.text}" failed because {NO_KIND}: {error}'
                raise Refusal(text) from None
            raise _not_created(urn, error) from None

    def update(self, urn: Urn, request: Any) -> Any:
        """Apply and wait; any failure is stored as a half-done update, so that the next run goes on from there."""
        olds, given = from_struct(request.olds), from_struct(request.news)
        inputs = normalised(to_manifest(given))
        if request.preview and (has_unknown(inputs) or not self.cluster.serves(inputs)):
            return provider_pb2.UpdateResponse(properties=request.news)
        old_inputs, old_live = from_state(olds)
        old_manager, manager = (_manager(olds, which) for which in (old_inputs, inputs))
        version = olds.get(API_VERSION, inputs["apiVersion"])
        try:
            live = self._update(urn, inputs, old_live, manager, request)
        except (ApiError, NotReady, BadExpression) as error:
            if request.preview and getattr(error, "reason", "") == "Forbidden":
                return provider_pb2.UpdateResponse(properties=request.news)
            live = self._after_failure(urn, old_live, error)
            state = to_state(inputs, live, given, manager, version)
            message = f'the Kubernetes API server reported that "{identity(live)}" failed to fully initialize or become live: {error}'
            raise _partial(message, error, state) from None
        if manager != old_manager and not request.preview:
            apply.relinquish(self.cluster, live, old_manager)
        self._say(urn, "")
        return provider_pb2.UpdateResponse(
            properties=to_struct(to_state(inputs, live, given, manager, version))
        )

    def _update(self, urn: Urn, inputs: Manifest, old_live: Manifest, manager: str, request: Any) -> Manifest:
        before = self.cluster.kube.request("GET", self.cluster.path({**inputs, "metadata": meta(old_live)}))
        patch = is_patch(urn.type, inputs)
        changed = apply.update(
            self.cluster, inputs, before, manager, patch, request.ignoreChanges, request.preview
        )
        if request.preview:
            return changed
        return self._waiting(urn).until_ready(inputs, changed, before, request.timeout)

    def _after_failure(self, urn: Urn, old_live: Manifest, error: Exception) -> Manifest:
        if isinstance(error, UnknownKind):
            raise Refusal(f'update of resource "{urn.text}" failed because {NO_KIND}: {error}') from None
        try:
            return self.cluster.kube.request("GET", self.cluster.path(old_live))
        except ApiError as gone:
            text = f'update of resource "{urn.text}" failed: {error}\nunable to get cluster state: {gone}'
            raise Refusal(text) from None

    def read(self, urn: Urn, request: Any) -> Any:
        """The object as it is now; an empty answer when it, or its kind, is gone."""
        state, given = from_struct(request.properties), from_struct(request.inputs)
        _, known = from_state(state)
        inputs, imported = normalised(to_manifest(given)), False
        if not inputs.get("kind"):
            imported = not known.get("kind")
            inputs = {**_from_type(urn), **{k: known[k] for k in ("apiVersion", "kind") if k in known}}
        namespace, _, name = request.id.rpartition("/")
        address = {
            **inputs,
            "metadata": {**meta(inputs), "name": name, **({"namespace": namespace} if namespace else {})},
        }
        try:
            live = self.cluster.kube.request("GET", self.cluster.path(address))
        except ApiError as error:
            if error.code == 404:
                return provider_pb2.ReadResponse()
            raise Refusal(str(error)) from None
        seen = (
            normalised({k: v for k, v in live.items() if k != "status"}) if imported else pruned(live, inputs)
        )
        stored = to_state(
            seen, live, given, _manager(state, inputs), state.get(API_VERSION, live["apiVersion"])
        )
        answer = {
            "id": request.id,
            "properties": to_struct(stored),
            "inputs": to_struct(with_secrets(seen, given)),
        }
        try:
            if not imported:
                self._waiting(urn).ready_now(inputs, live)
        except NotReady as error:
            raise _partial(str(error), error, stored, request.id, with_secrets(seen, given)) from None
        return provider_pb2.ReadResponse(**answer)

    def delete(self, urn: Urn, request: Any) -> None:
        """Delete and wait until the object is gone; a Patch resource only gives up its fields."""
        state = from_struct(request.properties)
        inputs, live = from_state(state)
        manager = _manager(state, inputs)
        try:
            if is_patch(urn.type, inputs):
                apply.relinquish(self.cluster, live, manager)
            elif apply.delete(self.cluster, inputs, live):
                self._waiting(urn).until_gone(inputs, live, request.timeout)
        except ApiError as error:
            if error.reason == "NoMatch":
                return
            raise Refusal(_undeletable(error) if is_patch(urn.type, inputs) else str(error)) from None
        except NotReady as error:
            kept = to_state(live, error.live, state, manager, state.get(API_VERSION, ""))
            raise _partial(str(error), error, kept, identity(error.live)) from None

    def _waiting(self, urn: Urn) -> Waiting:
        said: set[str] = set()

        def say(message: str, warning: bool) -> None:
            if message and message not in said:
                said.add(message)
                self.plugin.engine.log(message, urn.text, warning, status=not warning)

        return Waiting(self.cluster, say, self.plugin.stopping)

    def _say(self, urn: Urn, message: str) -> None:
        self.plugin.engine.log(message, urn.text, status=True)


def _manager(state: Properties, inputs: Manifest) -> str:
    """The field manager: as annotated, as before, or a new one of this resource's own."""
    return annotation(inputs, MANAGER) or state.get(FIELD_MANAGER) or f"pulumi-kubernetes-{suffix()}"


def _not_created(urn: Urn, error: Exception) -> Refusal:
    return Refusal(
        f'resource "{urn.text}" was not successfully created by the Kubernetes API server: {error}'
    )


def _from_type(urn: Urn) -> Manifest:
    """apiVersion and kind as the type token `kubernetes:<group>/<version>:<Kind>` says."""
    _, module, kind = urn.type.split(":")
    group, _, version = module.partition("/")
    return {"apiVersion": version if group == "core" else module, "kind": kind.removesuffix("Patch")}


def _harmless_in_preview(error: ApiError) -> bool:
    """What a dry run cannot show without being wrong: rights, missing namespaces, objects to be replaced first."""
    no_dry_run = error.code == 400 and "does not support dry run" in error.message
    return error.reason in ("Forbidden", "AlreadyExists") or no_dry_run or apply.namespace_missing(error)


def _undeletable(error: ApiError) -> str:
    if error.reason == "Invalid" and "Required value" in error.message:
        causes = ", ".join(
            c.get("field", "")
            for c in error.details.get("causes", ())
            if c.get("reason") == "FieldValueRequired"
        )
        return (
            "this Patch resource is currently managing a required field, so it can't be deleted directly. Either set "
            f"the `retainOnDelete` resource option, or transfer ownership of the field before deleting: {causes}"
        )
    return str(error)


def _partial(
    message: str, error: Exception, state: Properties, identifier: str = "", inputs: Properties | None = None
) -> PartialFailure:
    live = error.live if isinstance(error, NotReady) else to_manifest(state)
    reasons = [message, *(error.reasons if isinstance(error, NotReady) else ())]
    return PartialFailure(message, identifier or identity(live), state, reasons, inputs)
