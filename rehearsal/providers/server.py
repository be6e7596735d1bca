"""What every plugin of a rehearsal shares: the gRPC server, the engine's log, refusals.

Raw servicers rather than `pulumi.provider.experimental`, because only the
protocol itself can say "created, but not ready" (:class:`PartialFailure`), on
which continuing after a time-out rests.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from concurrent import futures
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf import empty_pb2
from pulumi.runtime.proto import (
    engine_pb2,
    engine_pb2_grpc,
    plugin_pb2,
    provider_pb2,
    provider_pb2_grpc,
    status_pb2,
)

from rehearsal.providers.values import Properties, from_struct, to_struct

# Each operation may wait for minutes in its own thread; the engine decides how many run at once.
_THREADS = 512
_OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


class Refusal(Exception):
    """The operation failed and nothing came of it; the text goes to the user."""


class PartialFailure(Exception):
    """The object exists but is not as it should be; the engine stores it and goes on by update."""

    def __init__(
        self,
        message: str,
        identity: str,
        properties: Properties,
        reasons: list[str],
        inputs: Properties | None = None,
    ):
        super().__init__(message)
        self.detail = provider_pb2.ErrorResourceInitFailed(
            id=identity,
            properties=to_struct(properties),
            reasons=reasons,
            inputs=None if inputs is None else to_struct(inputs),
        )


class Engine:
    """The engine's side: where messages for the user go. Silent when there is no engine."""

    def __init__(self, address: str):
        self._stub = (
            engine_pb2_grpc.EngineStub(grpc.insecure_channel(address, options=_OPTIONS)) if address else None
        )

    def log(self, message: str, urn: str = "", warning: bool = False, status: bool = False) -> None:
        """Show a message; a `status` only lives in the resource's line of the display."""
        if self._stub is None:
            return
        severity = engine_pb2.LogSeverity.WARNING if warning else engine_pb2.LogSeverity.INFO
        request = engine_pb2.LogRequest(severity=severity, message=message, urn=urn, ephemeral=status)
        try:
            self._stub.Log(request, timeout=5)
        except grpc.RpcError:
            # An engine that is going away must not turn a finished operation into a failure.
            return


@dataclass(frozen=True)
class Urn:
    """The parts of a URN that providers need."""

    text: str
    type: str = field(init=False)
    name: str = field(init=False)

    def __post_init__(self) -> None:
        _, _, qualified, name = self.text.split("::", 3)
        object.__setattr__(self, "type", qualified.rsplit("$", 1)[-1])
        object.__setattr__(self, "name", name)


class Plugin(provider_pb2_grpc.ResourceProviderServicer):
    """Base of the plugins; `stopping` is set when the user interrupts."""

    def __init__(self, version: str, engine: Engine):
        self.version, self.engine = version, engine
        self.stopping = threading.Event()

    def GetPluginInfo(self, request, context):
        return plugin_pb2.PluginInfo(version=self.version)

    def GetSchema(self, request, context):
        return provider_pb2.GetSchemaResponse(schema="{}")

    def Attach(self, request, context):
        self.engine = Engine(request.address)
        return empty_pb2.Empty()

    def Cancel(self, request, context):
        self.stopping.set()
        return empty_pb2.Empty()

    def CheckConfig(self, request, context):
        return provider_pb2.CheckResponse(inputs=request.news)

    def DiffConfig(self, request, context):
        same = from_struct(request.olds) == from_struct(request.news)
        return provider_pb2.DiffResponse(changes=changes(not same))

    def Invoke(self, request, context):
        """Without a table of functions none is simulated."""
        raise Refusal(f"the function {request.tok} is not simulated in a rehearsal")


def changes(any_: bool) -> Any:
    """The protocol's word for "something changed" or "nothing did"."""
    return provider_pb2.DiffResponse.DIFF_SOME if any_ else provider_pb2.DiffResponse.DIFF_NONE


class _Status(grpc.Status):
    def __init__(self, message: str, detail: Any | None = None):
        self.code, self.details, self.trailing_metadata = grpc.StatusCode.UNKNOWN, message, ()
        if detail is not None:
            status = status_pb2.Status(code=grpc.StatusCode.UNKNOWN.value[0], message=message)
            status.details.add().Pack(detail)
            self.trailing_metadata = (("grpc-status-details-bin", status.SerializeToString()),)


class _Refusals(grpc.ServerInterceptor):
    """Turns exceptions of the handlers into the statuses that the engine understands."""

    def intercept_service(self, continuation, handler_call_details):
        handler = continuation(handler_call_details)
        if handler is None or handler.unary_unary is None:
            return handler

        def answer(request, context):
            try:
                return handler.unary_unary(request, context)
            except PartialFailure as failure:
                status = _Status(str(failure), failure.detail)
            except Refusal as refusal:
                status = _Status(str(refusal))
            except NotImplementedError as error:
                context.abort(grpc.StatusCode.UNIMPLEMENTED, str(error))
            except Exception as error:  # noqa: BLE001 - whatever it was, the engine must hear of it
                traceback.print_exc()
                status = _Status(f"{type(error).__name__}: {error}")
            context.abort_with_status(status)

        return grpc.unary_unary_rpc_method_handler(
            answer, handler.request_deserializer, handler.response_serializer
        )


def serve(make: Callable[[Engine], Plugin], arguments: list[str]) -> None:
    """Run a plugin until the engine ends it; prints the port, as the engine expects."""
    address = next((word for word in reversed(arguments) if not word.startswith("-")), "")
    plugin = make(Engine(address))
    server = grpc.server(
        futures.ThreadPoolExecutor(max_workers=_THREADS), interceptors=[_Refusals()], options=_OPTIONS
    )
    provider_pb2_grpc.add_ResourceProviderServicer_to_server(plugin, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    # The user's interrupt arrives as Cancel; this signal is how the engine ends a plugin that it no longer needs.
    signal.signal(signal.SIGINT, lambda *_: os._exit(0))
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    _until_orphaned()


def _until_orphaned() -> None:
    """Return never; a killed engine cannot end its plugins, so they, and what they started, end themselves."""
    parent = os.getppid()
    while os.getppid() == parent:
        threading.Event().wait(0.5)
    if os.getpgrp() == os.getpid():
        os.killpg(os.getpgrp(), signal.SIGKILL)
    os._exit(1)
