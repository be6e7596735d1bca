"""Reading of AWS Secrets Manager with the cluster's own provider."""

from __future__ import annotations

import pulumi
import pulumi_aws as aws


def read_secret(name: str, provider: pulumi.ProviderResource) -> pulumi.Output[str]:
    """The current text of a secret of the provider's region, by name or ARN.

    Needs secretsmanager:GetSecretValue, and kms:Decrypt where the secret has a key of its own.
    """
    found = aws.secretsmanager.get_secret_version_output(
        secret_id=name, opts=pulumi.InvokeOutputOptions(provider=provider)
    )
    return pulumi.Output.secret(found.apply(lambda version: version.secret_string or ""))
