"""What a container finds on its file system and in its environment."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ops.kube import Kube, Manifest


class NotMountable(Exception):
    """A volume's Secret or ConfigMap does not exist (yet); a kubelet waits for it."""


def mount(kube: Kube, pod: Manifest, container: Manifest, root: Path) -> dict[str, list[Path]]:
    """Write the container's volumes below `root`; returns the files written by mount path."""
    volumes = {v["name"]: v for v in pod["spec"].get("volumes", [])}
    written = {}
    for entry in container.get("volumeMounts", []):
        target = root / entry["mountPath"].lstrip("/")
        content = _content(kube, pod["metadata"]["namespace"], volumes[entry["name"]])
        written[entry["mountPath"]] = _write(target, content, entry.get("subPath"))
    return written


def _content(kube: Kube, namespace: str, volume: Manifest) -> dict[str, bytes]:
    if source := volume.get("secret"):
        data = _data(kube, "Secret", namespace, source["secretName"], source.get("optional", False))
        return _picked({k: base64.b64decode(v) for k, v in data.items()}, source.get("items"))
    if source := volume.get("configMap"):
        data = _data(kube, "ConfigMap", namespace, source["name"], source.get("optional", False))
        return _picked({k: v.encode() for k, v in data.items()}, source.get("items"))
    return {}


def _data(kube: Kube, kind: str, namespace: str, name: str, optional: bool) -> Mapping[str, str]:
    found = kube.get("v1", kind, name, namespace)
    if found is None and not optional:
        raise NotMountable(f'MountVolume.SetUp failed: {kind.lower()} "{name}" not found')
    return (found or {}).get("data") or {}


def _picked(data: dict[str, bytes], items: list[Manifest] | None) -> dict[str, bytes]:
    return data if items is None else {i["path"]: data[i["key"]] for i in items if i["key"] in data}


def _write(target: Path, content: dict[str, bytes], sub_path: str | None) -> list[Path]:
    if sub_path:
        files = {target: content[sub_path]} if sub_path in content else {}
    else:
        target.mkdir(parents=True, exist_ok=True)
        files = {target / name: data for name, data in content.items()}
    for path, data in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_bytes() != data:
            # Replaced in one step: programs watch these files and must never read half of one.
            fresh = path.with_name(f".{path.name}.new")
            fresh.touch(mode=0o600)
            fresh.write_bytes(data)
            os.replace(fresh, path)
    return list(files)


def environment(kube: Kube, pod: Manifest, container: Manifest, address: str) -> dict[str, str]:
    """The container's environment variables, references resolved."""
    result: dict[str, str] = {}
    for variable in container.get("env", []):
        value = variable.get("value")
        if source := variable.get("valueFrom"):
            value = _reference(kube, pod, source, address)
        if value is not None:
            result[variable["name"]] = value
    return result


def _reference(kube: Kube, pod: Manifest, source: Manifest, address: str) -> str | None:
    namespace = pod["metadata"]["namespace"]
    if field := source.get("fieldRef"):
        return _field(pod, field["fieldPath"], address)
    if key := source.get("secretKeyRef"):
        data = _data(kube, "Secret", namespace, key["name"], key.get("optional", False))
        return base64.b64decode(data[key["key"]]).decode() if key["key"] in data else None
    if key := source.get("configMapKeyRef"):
        return _data(kube, "ConfigMap", namespace, key["name"], key.get("optional", False)).get(key["key"])
    return None


def _field(pod: Manifest, path: str, address: str) -> str | None:
    addresses = {"status.podIP": address, "status.podIPs": address, "status.hostIP": "127.0.0.1"}
    if path in addresses:
        return addresses[path]
    value: Any = pod
    for part in path.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value if isinstance(value, str) else None
