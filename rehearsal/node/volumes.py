"""What a container finds on its file system and in its environment."""

from __future__ import annotations

import base64
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ops.kube import Kube, Manifest

CURRENT = "..data"
STORAGE = "storage.k8s.io/v1"
REFERENCE = re.compile(r"\$(\$|\([^)]*\))")


class NotMountable(Exception):
    """A volume's Secret, ConfigMap or disk does not exist (yet); a kubelet waits for it."""


Rewrite = Callable[[str, bytes], bytes]
"""What a mounted file shall hold instead, from its name and its content."""


def mount(
    kube: Kube,
    pod: Manifest,
    container: Manifest,
    root: Path,
    rewrite: Rewrite = lambda _, data: data,
    disks: Path | None = None,
) -> dict[str, list[Path]]:
    """Write the container's volumes below `root`; returns the files written by mount path.

    Volumes of claims are directories in `disks`, by name, which pods share; they are mounted as links.
    """
    volumes = {v["name"]: v for v in pod["spec"].get("volumes", [])}
    written = {}
    for entry in container.get("volumeMounts", []):
        target = root / entry["mountPath"].lstrip("/")
        if disks and (claim := volumes[entry["name"]].get("persistentVolumeClaim")):
            written[entry["mountPath"]] = [target]
            if not target.is_symlink():
                disk = disks / _disk(kube, pod, claim["claimName"])
                _link(target, disk / entry.get("subPath", ""))
            continue
        content = _content(kube, pod["metadata"]["namespace"], volumes[entry["name"]])
        content = {name: rewrite(Path(name).name, data) for name, data in content.items()}
        written[entry["mountPath"]] = _write(target, content, entry.get("subPath"))
    return written


def disk_at(kube: Kube, pod: Manifest, container: Manifest, path: str, disks: Path) -> Path | None:
    """The directory of the claim that a container mounts at `path`; None where it mounts no claim there.

    Raises NotMountable.
    """
    volumes = {v["name"]: v for v in pod["spec"].get("volumes", [])}
    for entry in container.get("volumeMounts", []):
        claim = volumes.get(entry["name"], {}).get("persistentVolumeClaim")
        if claim and entry["mountPath"] == path:
            disk = disks / _disk(kube, pod, claim["claimName"]) / entry.get("subPath", "")
            disk.mkdir(parents=True, exist_ok=True)
            return disk
    return None


def _disk(kube: Kube, pod: Manifest, claim: str) -> str:
    """The name of a claim's volume, once it is bound and, where its driver wants that, attached to the pod's node."""
    found = kube.get("v1", "PersistentVolumeClaim", claim, pod["metadata"]["namespace"])
    if found is None or (found.get("status") or {}).get("phase") != "Bound":
        raise NotMountable(f'MountVolume.SetUp failed: persistentvolumeclaim "{claim}" is not bound')
    name, node = str(found["spec"]["volumeName"]), pod["spec"].get("nodeName")
    if _is_attached(kube, name, node):
        return name
    raise NotMountable(f'FailedAttachVolume: volume "{name}" of "{claim}" is not attached to {node} (yet)')


def _is_attached(kube: Kube, volume: str, node: str | None) -> bool:
    """Whether a node has a volume, or needs none: only drivers that say so attach."""
    disk = kube.get("v1", "PersistentVolume", volume) or {"spec": {}}
    driver = kube.get(STORAGE, "CSIDriver", (disk["spec"].get("csi") or {}).get("driver", "")) or {}
    if not (driver.get("spec") or {}).get("attachRequired"):
        return True
    return any(
        item["spec"]["nodeName"] == node and (item.get("status") or {}).get("attached")
        for item in kube.list(STORAGE, "VolumeAttachment")
        if item["spec"]["source"].get("persistentVolumeName") == volume
    )


def _link(target: Path, disk: Path) -> None:
    disk.mkdir(parents=True, exist_ok=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.symlink_to(disk)


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
    if not sub_path:
        return _publish(target, content)
    if sub_path not in content:
        return []
    target.parent.mkdir(parents=True, exist_ok=True)
    _replace(target, lambda fresh: _private(fresh, content[sub_path]))
    return [target]


def _publish(target: Path, content: dict[str, bytes]) -> list[Path]:
    """Make `target` hold exactly `content`, all of it in one step.

    As a kubelet does it: the files lie in a hidden directory, the link `..data` names the
    current one, and what programs see are links through that. Programs watch for its swap.
    """
    target.mkdir(parents=True, exist_ok=True)
    last = (target / CURRENT).resolve() if (target / CURRENT).is_symlink() else None
    if _content_of(last) != content:
        fresh = Path(tempfile.mkdtemp(prefix="..", dir=target))
        for name, data in content.items():
            _private(fresh / name, data)
        _replace(target / CURRENT, lambda link: link.symlink_to(fresh.name))
        _show(target, {Path(name).parts[0] for name in content})
        if last:
            shutil.rmtree(last, ignore_errors=True)
    return [target / name for name in content]


def _content_of(directory: Path | None) -> dict[str, bytes]:
    files = (f for f in directory.rglob("*") if f.is_file()) if directory else ()
    return {str(f.relative_to(directory)): f.read_bytes() for f in files if directory}


def _show(target: Path, names: set[str]) -> None:
    """Link the `names` of the current directory into `target`, and drop the links of what it lost."""
    ours = {f.name for f in target.iterdir() if f.is_symlink() and f.readlink() == Path(CURRENT) / f.name}
    for name in ours - names:
        (target / name).unlink()
    for name in names - ours:
        (target / name).symlink_to(Path(CURRENT) / name)


def _private(file: Path, data: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch(mode=0o600)
    file.write_bytes(data)


def _replace(path: Path, make: Callable[[Path], None]) -> None:
    """Let `make` write beside `path`, then put that in its place in one step."""
    fresh = path.with_name(f"..{path.name}.new")
    fresh.unlink(missing_ok=True)
    make(fresh)
    os.replace(fresh, path)


def environment(kube: Kube, pod: Manifest, container: Manifest, address: str) -> dict[str, str]:
    """The container's environment variables, references resolved."""
    result: dict[str, str] = {}
    for variable in container.get("env", []):
        value = variable.get("value")
        if value is not None:
            value = expand(value, result)
        if source := variable.get("valueFrom"):
            value = _reference(kube, pod, source, address)
        if value is not None:
            result[variable["name"]] = value
    return result


def expand(text: str, variables: Mapping[str, str]) -> str:
    """`$(NAME)` replaced by the variable, as Kubernetes does it: unknown names stay, `$$` is a dollar sign."""

    def value(match: re.Match[str]) -> str:
        found = match[1]
        return "$" if found == "$" else variables.get(found[1:-1], match[0])

    return REFERENCE.sub(value, text)


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
