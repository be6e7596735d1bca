"""Secrets that somebody else keeps in the namespaces of models: whether they are there, with what is read of them.

Only names of keys and the type are looked at; values are not kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ops.kube import Manifest
from stacks.config import StackConfig
from stacks.config.secret_sources import EXPECTED
from stacks.translate import namespaces

STORE_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")


@dataclass(frozen=True)
class Reference:
    """One Secret of one namespace: the key of the configuration that names it, and what it must have."""

    path: str
    namespace: str
    name: str
    keys: tuple[str, ...]
    type: str | None = None

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"

    def fault(self, live: Manifest | None) -> str:
        """What is wrong with it; empty if nothing is."""
        if live is None:
            return "there is no such Secret"
        missing = [key for key in self.keys if not (live.get("data") or {}).get(key)]
        if missing:
            return f"it has no key {' and '.join(missing)}"
        kind = live.get("type")
        return f"its type is {kind}, not {self.type}" if self.type and kind != self.type else ""

    @property
    def fix(self) -> str:
        """How to put it right, without a value."""
        if self.type:
            made = f"docker-registry {self.name} --from-file=.dockerconfigjson=FILE"
        else:
            made = f"generic {self.name} {' '.join(f'--from-file={key}=FILE' for key in self.keys)}"
        return f"run: kubectl create secret {made} -n {self.namespace}, or correct {self.path}"


def references(config: StackConfig) -> Iterator[Reference]:
    """Every Secret that the configuration names and this stack does not make."""
    named = [
        (f"secrets.{name}.existing", source.existing, (EXPECTED[name][0],), EXPECTED[name][1])
        for name, source in config.secrets.given().items()
    ]
    if config.storage is not None:
        named.append(("storage.s3.existingSecret", config.storage.s3.existing_secret, STORE_KEYS, None))
    for home in namespaces(config):
        for path, secret, keys, kind in named:
            if secret is not None:
                yield Reference(path, home, secret, keys, kind)
