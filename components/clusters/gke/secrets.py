"""Reading of Google Secret Manager with the cluster's own provider."""

from __future__ import annotations

import pulumi
import pulumi_gcp as gcp


def read_secret(name: str, provider: pulumi.ProviderResource) -> pulumi.Output[str]:
    """The text of a secret, by `projects/P/secrets/S` or with `/versions/V`; the latest version where none is named.

    Needs secretmanager.versions.access alone; the other function of the SDK would ask for the version's record too.
    """
    parts = name.split("/")
    found = gcp.secretmanager.get_secret_version_access_output(
        project=parts[1],
        secret=parts[3],
        version=parts[5] if len(parts) > 5 else None,
        opts=pulumi.InvokeOutputOptions(provider=provider),
    )
    return pulumi.Output.secret(found.apply(lambda version: version.secret_data))
