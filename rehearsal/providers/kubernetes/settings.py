"""The provider's own configuration: what it accepts, what changes replace it, what it means."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rehearsal.providers.kubernetes import kubeconfig
from rehearsal.providers.values import UNKNOWN, Properties, has_unknown

# Inputs of the official provider that a rehearsal does not play; refused instead of ignored.
_NOT_REHEARSED = (
    "renderYamlToDirectory",
    "alwaysRender",
    "strictMode",
    "helmReleaseSettings",
    "enablePatchForce",
)


@dataclass(frozen=True)
class Settings:
    """The provider's inputs, decoded."""

    kubeconfig: str = ""
    context: str = ""
    cluster: str = ""
    namespace: str = ""
    delete_unreachable: bool = False
    skip_update_unreachable: bool = False
    config_map_mutable: bool = False
    secret_mutable: bool = False
    upsert_existing: bool = False
    reject_unknown: bool = False

    @classmethod
    def of(cls, variables: Mapping[str, str]) -> Settings:
        """From the engine's `kubernetes:config:…` strings, with the official environment variables behind."""

        def text(name: str) -> str:
            return variables.get(f"kubernetes:config:{name}") or ""

        def flag(name: str, variable: str = "") -> bool:
            return (variables.get(f"kubernetes:config:{name}") or os.environ.get(variable, "")) == "true"

        return cls(
            kubeconfig=text("kubeconfig"),
            context=text("context"),
            cluster=text("cluster"),
            namespace=text("namespace"),
            delete_unreachable=flag("deleteUnreachable", "PULUMI_K8S_DELETE_UNREACHABLE"),
            skip_update_unreachable=flag("skipUpdateUnreachable", "PULUMI_K8S_SKIP_UPDATE_UNREACHABLE"),
            config_map_mutable=flag("enableConfigMapMutable", "PULUMI_K8S_ENABLE_CONFIGMAP_MUTABLE"),
            secret_mutable=flag("enableSecretMutable", "PULUMI_K8S_ENABLE_SECRET_MUTABLE"),
            upsert_existing=flag("upsertExistingObjects", "PULUMI_K8S_UPSERT_EXISTING_OBJECTS"),
            reject_unknown=flag("rejectUnknownResources"),
        )


def refused(news: Properties) -> list[tuple[str, str]]:
    """(property, reason) of every input that cannot be rehearsed."""
    found = [
        (name, f"{name} is not rehearsed")
        for name in _NOT_REHEARSED
        if news.get(name) not in (None, "", "false", False)
    ]
    if news.get("enableServerSideApply") in ("false", False):
        found.append(
            ("enableServerSideApply", "client-side apply is not rehearsed; leave enableServerSideApply on")
        )
    return found


def diff(olds: Properties, news: Properties) -> tuple[list[str], list[str]]:
    """(changed keys, keys whose change replaces the provider and so every object in the cluster).

    With an unchanged clusterIdentifier nothing replaces; a changed one always
    does; without one an unknown kubeconfig, or another cluster behind the
    context, does.
    """
    changed = sorted(key for key in olds.keys() | news.keys() if olds.get(key) != news.get(key))
    identifier = (olds.get("clusterIdentifier"), news.get("clusterIdentifier"))
    if identifier[1] and identifier[0] == identifier[1]:
        return changed, []
    replaces = ["clusterIdentifier"] if all(identifier) and identifier[0] != identifier[1] else []
    which = ("kubeconfig", "context", "cluster")
    if unknown := [key for key in which if has_unknown(news.get(key))]:
        return unknown[:1], replaces + unknown[:1]
    before, after = (
        kubeconfig.active_cluster(_text(p.get("kubeconfig")), p.get("context"), p.get("cluster"))
        for p in (olds, news)
    )
    if before is not None and after is not None and before != after:
        replaces += [key for key in which if key in changed]
    return changed, replaces


def _text(value: Any) -> Any:
    return value if isinstance(value, str) or value in (None, UNKNOWN) else json.dumps(value)
