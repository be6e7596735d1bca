"""What is kept of a Helm release in state: its complete inputs, what it consists of, how it is."""

from __future__ import annotations

import re
from typing import Any

import yaml

from rehearsal.providers.kubernetes.helm import Record
from rehearsal.providers.kubernetes.objects import INPUTS, with_secrets
from rehearsal.providers.values import UNKNOWN, Asset, Properties, Secret, plain, words

_SWITCHES = words("""allowNullValues atomic cleanupOnFail createNamespace dependencyUpdate devel disableCRDHooks
    disableOpenapiValidation disableWebhooks forceUpdate lint recreatePods renderSubchartNotes replace resetValues
    reuseValues skipAwait skipCrds verify waitForJobs""")
_TEXTS = words("chart description keyring name namespace postrender version")
_DEFAULTS: Properties = (
    dict.fromkeys(_SWITCHES, False) | dict.fromkeys(_TEXTS, "") | {"timeout": 0, "values": {}}
)
_OPTIONAL = ("maxHistory", "repositoryOpts")
# The top-level fields that say what an object is, with the lines that belong to them.
_HEAD = re.compile(r"^(?:apiVersion|kind|metadata):.*(?:\n(?:[ \t#-].*)?)*", re.MULTILINE)


def decoded(given: Properties) -> Record:
    """All inputs of a Release, files of values merged under the values."""
    release = {
        field: default if given.get(field) is None else given[field] for field, default in _DEFAULTS.items()
    }
    release |= {field: given[field] for field in _OPTIONAL if given.get(field) is not None}
    release = {
        field: value.value if isinstance(value, Secret) and field != "values" else value
        for field, value in release.items()
    }
    files, values = plain(given.get("valueYamlFiles")), plain(release["values"])
    merged: Any = {}
    for asset in files if isinstance(files, list) else ():
        if isinstance(asset, Asset):
            merged = _merged(merged, yaml.safe_load(asset.read()) or {})
    return {**release, "values": _merged(merged, values) if isinstance(values, dict) else values}


def _merged(base: Any, over: Any) -> Any:
    if not (isinstance(base, dict) and isinstance(over, dict)):
        return over
    return base | {key: _merged(base[key], value) if key in base else value for key, value in over.items()}


def managed(state: Any, old: Any, new: Any) -> Any:
    """The part of the recorded state that the program speaks, or spoke, about."""
    if not (isinstance(state, dict) and isinstance(new, dict)):
        return state
    spoken = new.keys() | (old.keys() if isinstance(old, dict) else set())
    before = old if isinstance(old, dict) else {}
    return {
        key: managed(value, before.get(key), new.get(key)) for key, value in state.items() if key in spoken
    }


def foreseen(given: Properties) -> Properties:
    """What a preview can tell of a release: its inputs."""
    return {**given, INPUTS: Secret(given), "resourceNames": UNKNOWN, "status": UNKNOWN}


def to_release_state(given: Properties, record: Record) -> Properties:
    """What the engine keeps of a release: its inputs, its values as Helm has them, what it consists of, how it is."""
    release, chart = decoded(plain(given)), (record.get("chart") or {}).get("metadata") or {}
    outputs = release | {
        "name": release["name"] or record["name"],
        "namespace": release["namespace"] or record["namespace"],
        "chart": release["chart"] or chart.get("name", ""),
        "version": chart.get("version", release["version"]),
        "values": _merged(release["values"], record.get("config") or {}),
        "resourceNames": _resource_names(record.get("manifest", "")),
        "status": {
            "appVersion": chart.get("appVersion", ""),
            "chart": chart.get("name", ""),
            "name": record["name"],
            "namespace": record["namespace"],
            "revision": record["version"],
            "status": record["info"]["status"],
            "version": chart.get("version", ""),
        },
    }
    return {**with_secrets(outputs, given), INPUTS: Secret(given)}


def _resource_names(manifest: str) -> dict[str, list[str]]:
    names: dict[str, set[str]] = {}
    for document in re.split(r"^---.*$", manifest, flags=re.MULTILINE):
        # CRDs are megabytes of YAML, of which only the head is read.
        item = yaml.safe_load("\n".join(match[0] for match in _HEAD.finditer(document)) or document)
        if not item or not item.get("kind"):
            continue
        group, slash, _ = item["apiVersion"].partition("/")
        key = f"{item['kind']}{'.' + group if slash else ''}/{item['apiVersion']}"
        meta = item.get("metadata") or {}
        name = "/".join(part for part in (meta.get("namespace"), meta.get("name", "")) if part)
        names.setdefault(key, set()).add(name)
    return {key: sorted(values) for key, values in names.items()}
