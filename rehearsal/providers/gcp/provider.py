"""The servicer of Google's resources: their table, and Google's words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rehearsal.cloud.project import FORWARDING_RULE, GROUP
from rehearsal.providers.cloud.provider import CloudPlugin
from rehearsal.providers.gcp import VERSION
from rehearsal.providers.gcp.call import Call, Defaults, google
from rehearsal.providers.gcp.diff import DIALECT
from rehearsal.providers.gcp.embedded import Embedded
from rehearsal.providers.gcp.kinds import Kind, table
from rehearsal.providers.gcp.network import NETWORK, SUBNETWORK
from rehearsal.providers.gcp.secrets import FUNCTIONS
from rehearsal.providers.server import Refusal
from rehearsal.providers.values import Properties

KINDS = table()
_GERUNDS = {"create": "creating", "update": "updating", "delete": "deleting"}


class Gcp(CloudPlugin):
    """The gcp plugin of one provider resource; the project is the rehearsal's."""

    release, kinds, dialect, calls = VERSION, KINDS, DIALECT, Call
    functions = FUNCTIONS
    embedding = Embedded
    controllers: Mapping[str, Mapping[str, str]] = {
        FORWARDING_RULE: {"network": NETWORK, "subnetwork": SUBNETWORK, "proxyOnlySubnetwork": SUBNETWORK},
        GROUP: {"network": NETWORK, "subnetwork": SUBNETWORK},
    }

    def defaults_of(self, configured: Mapping[str, Any]) -> Defaults:
        return Defaults.of(configured)

    def admit(self, call: Call) -> None:
        if call.kind.api and not call.enabled(call.kind.api):
            raise _disabled(call)

    def keeps(self, kind: Kind, identity: str, olds: Properties) -> bool:
        policy = olds.get("deletionPolicy") or "DELETE"
        if policy == "PREVENT":
            raise Refusal(f"cannot destroy {kind.title} {identity}: deletion_policy is set to PREVENT")
        return policy == "ABANDON"

    # -- words -----------------------------------------------------------------------------------------

    def failed(self, call: Call, operation: str, refusal: str) -> str:
        prefix = f"Error {_GERUNDS[operation]} {call.kind.title}: "
        return f"{prefix if refusal.startswith('googleapi') else ''}{refusal}"

    def late(self, kind: Kind, operation: str, identity: str, timeout: float | None) -> str:
        state = (
            f"timeout while waiting for state to become 'DONE' (last state: 'RUNNING', timeout: {timeout}s)"
        )
        reason = "context canceled" if timeout is None else state
        return f"Error waiting for {operation} {kind.title}: {reason}"

    def missing(self, call: Call, field: str, reference: Any) -> Refusal:
        return google(404, f"The resource '{reference}' was not found", "notFound")

    def taken(self, call: Call) -> Refusal:
        return google(409, f"The resource '{call.identity}' already exists", "alreadyExists")

    def in_use(self, call: Call, by: str) -> Refusal:
        what = call.kind.title.lower()
        message = f"The {what} resource '{call.identity}' is already being used by '{by}'"
        return google(400, message, "resourceInUseByAnotherResource")

    def injected(self, entry: Mapping[str, Any]) -> Refusal:
        reason = str(entry.get("reason", "backendError"))
        return google(int(entry.get("status", 503)), str(entry.get("message", "injected")), reason)


def _disabled(call: Call) -> Refusal:
    where = f"https://console.developers.google.com/apis/api/{call.kind.api}/overview?project={call.project}"
    return google(
        403,
        f"{call.kind.api} has not been used in project {call.project} before or it is disabled. Enable it by "
        f"visiting {where} then retry. If you enabled this API recently, wait a few minutes for the action to "
        "propagate to our systems and retry.",
        "accessNotConfigured",
    )
