"""The real Helm, one command per operation; values go in by standard input, so secrets are in no file and no argument."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

Record = dict[str, Any]

# Release inputs that are a plain switch of the command, for install and for upgrade.
_INSTALL = {
    "atomic": "--atomic", "createNamespace": "--create-namespace", "dependencyUpdate": "--dependency-update",
    "devel": "--devel", "disableOpenapiValidation": "--disable-openapi-validation", "disableWebhooks": "--no-hooks",
    "renderSubchartNotes": "--render-subchart-notes", "replace": "--replace", "skipCrds": "--skip-crds",
}  # fmt: skip
_UPGRADE = {
    "atomic": "--atomic", "cleanupOnFail": "--cleanup-on-fail", "dependencyUpdate": "--dependency-update",
    "devel": "--devel", "disableCRDHooks": "--no-hooks", "forceUpdate": "--force",
    "renderSubchartNotes": "--render-subchart-notes", "resetValues": "--reset-values", "reuseValues": "--reuse-values",
}  # fmt: skip
DEFAULT_SECONDS = 300


class HelmError(Exception):
    """Helm refused or failed; the text is Helm's own, without the name of the command."""


class Helm:
    """Runs `helm` from PATH against one cluster; `stopping` interrupts it as a user would."""

    def __init__(
        self, kubeconfig: Path | None, stopping: threading.Event, say: Callable[[str], None] = lambda _: None
    ):
        self._kubeconfig, self._stopping, self._say = kubeconfig, stopping, say

    def chart(self, release: Record) -> Record:
        """The chart's own metadata (Chart.yaml); HelmError if the chart cannot be found or read."""
        return yaml.safe_load(self._run(["show", "chart", *_source(release)], cluster=False))

    def install(self, release: Record) -> Record:
        """Install; the release's record."""
        switches = [switch for field, switch in _INSTALL.items() if release.get(field)]
        return json.loads(self._change("install", release, switches, release["namespace"]))

    def upgrade(self, release: Record, namespace: str) -> Record:
        """Upgrade the release in the namespace that it is in; its new record."""
        switches = [switch for field, switch in _UPGRADE.items() if release.get(field)]
        switches += ["--history-max", str(release.get("maxHistory") or 0)]
        return json.loads(self._change("upgrade", release, switches, namespace))

    def uninstall(self, release: Record) -> None:
        """Uninstall; waits for the objects to go unless neither atomic nor awaited."""
        wait = (
            ["--wait", "--timeout", _seconds(release)]
            if release.get("atomic") or not release.get("skipAwait")
            else []
        )
        self._run(["uninstall", release["name"], "--namespace", release["namespace"], *wait])

    def status(self, name: str, namespace: str) -> Record | None:
        """The newest record of a release, None if there is none."""
        try:
            return json.loads(self._run(["status", name, "--namespace", namespace, "--output", "json"]))
        except HelmError as error:
            if "release: not found" in str(error):
                return None
            raise

    def _change(self, verb: str, release: Record, switches: list[str], namespace: str) -> str:
        if not release.get("skipAwait"):
            switches = [*switches, "--wait", *(["--wait-for-jobs"] if release.get("waitForJobs") else [])]
        if release.get("description"):
            switches = [*switches, "--description", release["description"]]
        where = [
            "--namespace",
            namespace,
            "--timeout",
            _seconds(release),
            "--values",
            "-",
            "--output",
            "json",
        ]
        command = [verb, release["name"], *_source(release), *where, *switches]
        return self._run(command, json.dumps(release.get("values") or {}))

    def _run(self, arguments: list[str], stdin: str = "", cluster: bool = True) -> str:
        where = ["--kubeconfig", str(self._kubeconfig)] if cluster else []
        process = subprocess.Popen(
            ["helm", *arguments, *where],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started, interrupted = time.monotonic(), False
        unsent: str | None = stdin
        while True:
            try:
                out, problems = process.communicate(unsent, timeout=1)
                break
            except subprocess.TimeoutExpired:
                unsent = None
                self._say(f"helm {arguments[0]} {arguments[1]}: {time.monotonic() - started:.0f} s")
                if self._stopping.is_set() and not interrupted:
                    # Helm then records the release as failed, or undoes it where it is atomic.
                    process.send_signal(2)
                    interrupted = True
        if process.returncode:
            raise HelmError(_reason(problems))
        return out


def _source(release: Record) -> list[str]:
    """Chart reference and where it comes from, as the official provider reads `chart` and `repositoryOpts`."""
    chart, repository = release["chart"].strip(), (release.get("repositoryOpts") or {}).get("repo") or ""
    version = release.get("version") or (">0.0.0-0" if release.get("devel") else "")
    options = ["--version", version.strip()] if version else []
    if repository and not chart.startswith("oci://"):
        if urlsplit(repository).scheme:
            options += ["--repo", repository]
        elif "/" not in chart:
            chart = f"{repository}/{chart}"
    return [chart, *options]


def _seconds(release: Record) -> str:
    return f"{release.get('timeout') or DEFAULT_SECONDS}s"


def _reason(problems: str) -> str:
    text = problems[problems.find("Error: ") + len("Error: ") :] if "Error: " in problems else problems
    for prefix in ("INSTALLATION FAILED: ", "UPGRADE FAILED: "):
        text = text.removeprefix(prefix)
    return text.strip()
