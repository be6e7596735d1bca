"""Doing what was planned, one action after the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ops import helm
from ops.errors import OpsError
from ops.kube import Kube
from ops.pulumi import Pulumi
from ops.recover.edits import EditState
from ops.recover.rules import Action, DeleteRevision, ReleaseLock, Uninstall

PATIENCE = 120.0
"""Seconds within which the objects of an uninstalled release must be gone."""


@dataclass(frozen=True)
class Doer:
    """Carries actions out. `exported` is the state that was judged; `kube` is only needed for releases."""

    pulumi: Pulumi
    kube: Kube | None = None
    exported: Mapping[str, Any] | None = None

    def do(self, action: Action) -> None:
        """Carry out one action; every one of them can be repeated."""
        _DO[type(action)](self, action)

    def _release_lock(self, action: ReleaseLock) -> None:
        if self.pulumi.backend.startswith("file://"):
            Path(action.lock.where).unlink(
                missing_ok=True
            )  # This very one; `pulumi cancel` removes whatever there is.
        else:
            self.pulumi.call("cancel", "--yes", "--stack", self.pulumi.stack)

    def _delete_revision(self, action: DeleteRevision) -> None:
        self.kube.delete("v1", "Secret", action.secret, action.namespace)

    def _uninstall(self, action: Uninstall) -> None:
        helm.uninstall(self.kube, action.namespace, action.name, PATIENCE)

    def _edit_state(self, action: EditState) -> None:
        if self.pulumi.export() != self.exported:
            raise OpsError("the stack's state changed while it was being judged: run this again")
        self.pulumi.restore(action.apply(self.exported))


_DO: dict[type, Callable[[Doer, Any], None]] = {
    ReleaseLock: Doer._release_lock,
    DeleteRevision: Doer._delete_revision,
    Uninstall: Doer._uninstall,
    EditState: Doer._edit_state,
}
