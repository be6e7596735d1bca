"""The only maker of Kubernetes providers."""

from __future__ import annotations

import pulumi
import pulumi_kubernetes as kubernetes


def kubernetes_provider(
    name: str,
    identifier: pulumi.Input[str],
    context: pulumi.Input[str] | None = None,
    kubeconfig: pulumi.Input[str] | None = None,
    opts: pulumi.ResourceOptions | None = None,
) -> kubernetes.Provider:
    """A provider for one cluster.

    `identifier` decides alone whether the provider, and with it every object, is replaced: a renewed
    certificate or another path in `kubeconfig` must not do that. Without `kubeconfig` the
    plugin looks where kubectl would, so that no path of this machine gets into the state.
    Config maps and secrets change in place, since replacing them would break pods that name them.
    Objects that exist already are refused; those of others are touched by Patch resources only.
    """
    return kubernetes.Provider(
        name,
        cluster_identifier=identifier,
        context=context,
        kubeconfig=kubeconfig,
        enable_server_side_apply=True,
        enable_config_map_mutable=True,
        enable_secret_mutable=True,
        upsert_existing_objects=False,
        opts=opts,
    )
