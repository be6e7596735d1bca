"""Packaging charts with Helm, in such a way that equal content gives equal bytes."""

from __future__ import annotations

import gzip
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

from rehearsal.toolchain.errors import ToolchainError

UNAVAILABLE = "rehearsal.llm-platform.dev/unavailable"
"""Annotation of a stand-in's Chart.yaml: the reason why the chart is not there."""

STAND_IN = """\
apiVersion: v2
name: {name}
version: {version}
description: Stands in for {name} {version}, which this rehearsal cannot provide.
annotations:
  {annotation}: "{reason}"
"""


def copy(source: Path, target: Path, edits: Sequence[tuple[str, str]]) -> None:
    """Copy a chart, replacing whole lines of its values.yaml; each old line must be there exactly once."""
    shutil.copytree(source, target)
    for path in (target, *target.rglob("*")):
        path.chmod(path.stat().st_mode | 0o200)  # a module's files are read-only
    if not edits:
        return
    values = target / "values.yaml"
    lines = values.read_text().splitlines()
    for old, new in edits:
        if lines.count(old) != 1:
            raise ToolchainError(
                f"values.yaml of {source} has {lines.count(old)} lines {old.strip()!r} where one is expected. "
                "Adapt its edits in rehearsal/toolchain/sources.py to the new version."
            )
        lines[lines.index(old)] = new
    values.write_text("\n".join(lines) + "\n")


def stand_in(target: Path, version: str, reason: str) -> None:
    """Write an empty chart that carries the reason for its emptiness."""
    target.mkdir()
    text = STAND_IN.format(name=target.name, version=version, annotation=UNAVAILABLE, reason=reason)
    (target / "Chart.yaml").write_text(text)


def package(helm: Path, chart: Path, version: str, app_version: str | None, target: Path) -> None:
    """Make the archive `target` from a chart directory, whose own version is overridden."""
    with tempfile.TemporaryDirectory() as home:
        command = [str(helm), "package", str(chart), "--version", version, "--destination", home]
        command += ["--app-version", app_version] if app_version else []
        result = subprocess.run(
            command,
            env={"PATH": os.defpath, "HOME": home},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if result.returncode != 0:
            raise ToolchainError(f"Helm refuses the chart {chart.name} {version}: {result.stderr.strip()}")
        archive = Path(home) / target.name
        if not archive.exists():
            raise ToolchainError(f"{target.name} is wanted, but the chart in the module has another name.")
        _normalise(archive, target)


def _normalise(source: Path, target: Path) -> None:
    """Write `source` anew without the times and owners that Helm records."""
    with (
        tarfile.open(source) as old,
        target.open("wb") as file,
        gzip.GzipFile(filename="", fileobj=file, mode="wb", mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.USTAR_FORMAT) as new,
    ):
        for member in sorted(old.getmembers(), key=lambda m: m.name):
            plain = tarfile.TarInfo(member.name)
            plain.size, plain.mode = member.size, 0o644
            new.addfile(plain, old.extractfile(member))
