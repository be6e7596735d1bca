"""The only maker of Kubernetes providers."""

from __future__ import annotations

from importlib import metadata

import pulumi

# Provider settings travel as text.
_SETTINGS = {
    "enableServerSideApply": "true",
    # In place, since a replaced config map or secret breaks the pods that name it.
    "enableConfigMapMutable": "true",
    "enableSecretMutable": "true",
    # What exists already is refused; what belongs to others is touched by Patch resources only.
    "upsertExistingObjects": "false",
}


def kubernetes_provider(
    name: str,
    identifier: pulumi.Input[str],
    context: pulumi.Input[str] | None = None,
    kubeconfig: pulumi.Input[str] | None = None,
    opts: pulumi.ResourceOptions | None = None,
) -> pulumi.ProviderResource:
    """A provider for one cluster.

    `identifier` decides alone whether the provider, and with it every object, is replaced: a renewed
    certificate or another path in `kubeconfig` must not do that. Without `kubeconfig` the
    plugin looks where kubectl would. The SDK's own Provider class would fill in `KUBECONFIG` of the machine
    that runs Pulumi, which then stands in the state and differs on the next machine; hence its base class.
    """
    version = pulumi.ResourceOptions(version=metadata.version("pulumi-kubernetes"))
    settings = {"clusterIdentifier": identifier, "context": context, "kubeconfig": kubeconfig, **_SETTINGS}
    return pulumi.ProviderResource(
        "kubernetes",
        name,
        {key: value for key, value in settings.items() if value is not None},
        pulumi.ResourceOptions.merge(opts, version),
    )
