"""Kubernetes objects from manifests.

One small class for all kinds: the provider decides by the resource's type, and the SDK's classes
for single kinds only add spelling. It also exposes `status`, which the SDK's CustomResource does not.
"""

from __future__ import annotations

from typing import Any

import pulumi

from components.core.manifest import Manifest

# Secret in the state whatever they are made of; the SDK's own class does the same.
SECRET_FIELDS = ("data", "stringData")


def type_token(manifest: Manifest, patch: bool = False) -> str:
    """The provider's type for an object: `kubernetes:apps/v1:Deployment`, with `Patch` at the end for a patch."""
    version = manifest["apiVersion"]
    group = version if "/" in version else f"core/{version}"
    return f"kubernetes:{group}:{manifest['kind']}{'Patch' if patch else ''}"


class KubernetesObject(pulumi.CustomResource):
    """One object that this stack owns: created, changed and deleted by it."""

    def __init__(self, name: str, manifest: Manifest, opts: pulumi.ResourceOptions):
        if manifest["kind"] == "Secret":
            opts = pulumi.ResourceOptions.merge(
                opts, pulumi.ResourceOptions(additional_secret_outputs=list(SECRET_FIELDS))
            )
        super().__init__(type_token(manifest), name, {**manifest, "status": None}, opts)

    @property
    @pulumi.getter
    def metadata(self) -> pulumi.Output[dict[str, Any]]:
        """The object's metadata."""
        return pulumi.get(self, "metadata")

    @property
    @pulumi.getter
    def status(self) -> pulumi.Output[dict[str, Any] | None]:
        """The status when the object was last awaited; unknown in a preview."""
        return pulumi.get(self, "status")


class KubernetesPatch(pulumi.CustomResource):
    """Some fields of an object that somebody else owns, or that is shared.

    Its create is a server-side apply: a missing object is created, an existing one is shared, and a
    field that somebody else set to another value is a conflict. Its delete gives the fields up.
    """

    def __init__(self, name: str, manifest: Manifest, opts: pulumi.ResourceOptions):
        super().__init__(type_token(manifest, patch=True), name, dict(manifest), opts)
