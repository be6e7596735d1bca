"""Where secrets come from that are not in the stack's own configuration: references, never values."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any

from pydantic import AfterValidator, StringConstraints, WithJsonSchema, model_validator

from stacks.config.base import Strict, entry
from stacks.config.errors import refusal


def _name(pattern: str, what: str, fix: str) -> Any:
    form = re.compile(pattern)

    def check(value: str) -> str:
        if not form.fullmatch(value):
            raise refusal(f'"{value}" is no {what}', "nothing could be found by it", fix)
        return value

    return Annotated[
        str,
        AfterValidator(check),
        WithJsonSchema({"type": "string", "pattern": f"^{pattern}$", "title": what}),
    ]


AwsSecret = _name(
    r"(arn:aws[a-z-]*:secretsmanager:[a-z0-9-]+:[0-9]{12}:secret:)?[A-Za-z0-9/_+=.@-]{1,512}",
    "name or ARN of a secret",
    "write prod/hf-token, or arn:aws:secretsmanager:REGION:ACCOUNT:secret:NAME",
)
GoogleSecret = _name(
    r"projects/[a-z0-9:.-]+/secrets/[A-Za-z0-9_-]{1,255}(/versions/([0-9]+|latest))?",
    "secret of a project",
    "write projects/PROJECT/secrets/SECRET, with /versions/N at the end to pin one",
)
SecretName = _name(
    r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?",
    "name of a Secret",
    "use lower-case letters, digits, inner hyphens and dots",
)
JsonKey = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,128}$")]
# The stores of the clouds by their key, and the kind of cluster whose provider can read them.
STORES: Mapping[str, str] = MappingProxyType({"awsSecretsManager": "eks", "googleSecretManager": "gke"})
# Of an existing Secret the data key that is read, and the type that it must have (None for any).
EXPECTED: Mapping[str, tuple[str, str | None]] = MappingProxyType(
    {
        "hfToken": ("HF_TOKEN", None),
        "pullSecret": (".dockerconfigjson", "kubernetes.io/dockerconfigjson"),
    }
)


class SecretSource(Strict):
    """One place that holds the value: a Secret of the cluster, or a store of the cloud that `up` reads.

    A preview reads no value. What `up` reads stands in the stack's state, encrypted, and in a Secret of each
    namespace of models.
    """

    existing: SecretName | None = entry(
        "Secret that somebody else keeps in every namespace of models, for example an operator that syncs it.",
        None,
    )
    aws_secrets_manager: AwsSecret | None = entry(
        "Secret of AWS Secrets Manager in the cluster's region, with kind eks; its current version is read.",
        None,
    )
    google_secret_manager: GoogleSecret | None = entry(
        "Secret of Google Secret Manager, with kind gke; its latest version unless one is named.", None
    )
    key: JsonKey | None = entry(
        "Key of the value, where the store's secret is a JSON object.", None, derived="the whole secret"
    )

    @model_validator(mode="after")
    def _one_place(self) -> SecretSource:
        places = {"existing": self.existing, **{store: self.stored_in(store) for store in STORES}}
        given = [name for name, value in places.items() if value is not None]
        if len(given) != 1:
            raise refusal(
                f"{' and '.join(given)} are two places" if given else "no place is named",
                "it could not be told where the secret comes from",
                f"name exactly one of {', '.join(places)}",
            )
        if self.key is not None and self.existing is not None:
            raise refusal(
                "key belongs to a store's secret, and existing names a Secret of the cluster",
                "another key of it would not be read",
                "remove key; the Secret must have the key HF_TOKEN or .dockerconfigjson",
            )
        return self

    @property
    def store(self) -> str | None:
        """The key of the cloud's store; None for a Secret of the cluster."""
        return next((store for store in STORES if self.stored_in(store) is not None), None)

    @property
    def name(self) -> str:
        """What the source is called where it is."""
        return self.existing or self.aws_secrets_manager or self.google_secret_manager or ""

    @property
    def region(self) -> str | None:
        """The region of AWS that the name says; None for all but ARNs."""
        name = self.aws_secrets_manager or ""
        return name.split(":")[3] if name.startswith("arn:") else None

    def stored_in(self, store: str) -> str | None:
        """The name in one of the stores; None where it is not the source."""
        return self.aws_secrets_manager if store == "awsSecretsManager" else self.google_secret_manager

    def __str__(self) -> str:
        """For people: where it is."""
        places = {"awsSecretsManager": "AWS Secrets Manager", "googleSecretManager": "Google Secret Manager"}
        where = f"in {places[self.store]}" if self.store else "in every namespace of models"
        return f"{self.name} {where}"


class SecretSources(Strict):
    """References to secrets; those without one are set with `pulumi config set --secret`."""

    hf_token: SecretSource | None = entry(
        "The Hugging Face token.", None, derived="llm-platform:hfToken, where it is set"
    )
    pull_secret: SecretSource | None = entry(
        "The registry login, a Docker config JSON.", None, derived="llm-platform:pullSecret, where it is set"
    )

    def given(self) -> dict[str, SecretSource]:
        """The references by the names of their secrets."""
        named = {"hfToken": self.hf_token, "pullSecret": self.pull_secret}
        return {name: source for name, source in named.items() if source is not None}
