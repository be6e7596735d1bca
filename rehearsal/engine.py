"""The Pulumi engine of a rehearsal: its environment, its plugins, its private copy of the stack.

    python -m rehearsal.engine up|preview|destroy|refresh STACK

runs one operation. It is started by `rehearsal.rehearsal` with an environment that
holds nothing of the user's: no kubeconfig, cloud credentials or Pulumi tokens.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import runpy
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pulumi import automation

from rehearsal.paths import CHECKOUT, Paths, stack_file
from stacks.config import load_stack_file
from stacks.config.load import wanted_secrets

PROJECT = "llm-platform"
PASSPHRASE = "rehearsal"
# Secrets whose form is checked.
PLACEHOLDERS = {"pullSecret": '{"auths": {}}'}
LAUNCHER = """#!/bin/sh
PYTHONPATH="{checkout}" exec "{python}" -m {module} "$@"
"""
# What runs in pods for programs that cannot be had, or not as they come in their images.
COMMANDS = {
    "vllm": "rehearsal.model_server",
    "ray": "rehearsal.model_server.ray",
    "proxyv2": "rehearsal.gateway",
    "pod-python": "rehearsal.stand_ins.pod_python",
    "pod-fetcher": "rehearsal.storage_initializer",
    "gcloud": "rehearsal.cloud.gcloud",
    "gke-gcloud-auth-plugin": "rehearsal.cloud.auth_plugin",
    "aws": "rehearsal.cloud.aws_cli",
}
# Simulated provider plugins, under the version of the SDK that asks for them.
PLUGINS = ("aws", "gcp", "kubernetes", "random")


def environment(paths: Paths) -> dict[str, str]:
    """The variables that tie the engine, its plugins and the program to this rehearsal alone."""
    return {
        "LLMP_REHEARSAL": str(paths.root),
        "REHEARSAL_DIR": str(paths.root),
        "KUBECONFIG": str(paths.kubeconfig),
        "PULUMI_HOME": str(paths.pulumi_home),
        "PULUMI_BACKEND_URL": f"file://{paths.state}",
        "PULUMI_CONFIG_PASSPHRASE": PASSPHRASE,
        "PULUMI_SKIP_UPDATE_CHECK": "true",
        "PULUMI_AUTOMATION_API_SKIP_VERSION_CHECK": "true",
        "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
        "PYTHONPATH": str(CHECKOUT),
        "PYTHONUNBUFFERED": "1",
        # The embedded cluster's authority stands for the public ones: one of those signs for Google's DNS endpoint.
        "SSL_CERT_FILE": str(paths.cluster / "pki" / "ca.crt"),
    }


def install_commands(paths: Paths) -> None:
    """Put launchers of the simulated providers and of pods' programs where the engine and pods find them."""
    for command, module in COMMANDS.items():
        _launcher(paths.bin / command, module)
    for plugin in PLUGINS:
        version = importlib.metadata.version(f"pulumi-{plugin}")
        directory = paths.pulumi_home / "plugins" / f"resource-{plugin}-v{version}"
        _launcher(directory / f"pulumi-resource-{plugin}", f"rehearsal.providers.{plugin}")


def _launcher(file: Path, module: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(LAUNCHER.format(checkout=CHECKOUT, python=sys.executable, module=module))
    file.chmod(0o755)


def copy_stack(paths: Paths, stack: str, artifacts: Path) -> dict[str, Any]:
    """Copy the project and stack files to the private work directory; returns the stack's config.

    The copy differs in one point: charts and manifests come from `artifacts`, as
    for any site without internet. It keeps the secrets that were set in it. `overrides.yaml` beside it, if a test or a user
    put one there, is laid over the stack's config.
    """
    shutil.copy(CHECKOUT / "Pulumi.yaml", paths.work / "Pulumi.yaml")
    settings = yaml.safe_load(stack_file(stack).read_text())
    config = settings["config"]
    overrides = paths.work / "overrides.yaml"
    if overrides.exists():
        config |= yaml.safe_load(overrides.read_text()) or {}
    platform = config.setdefault(f"{PROJECT}:platform", {})
    platform["artifacts"] = {"directory": str(artifacts), "verifyDigests": False}
    target = paths.work / f"Pulumi.{stack}.yaml"
    # The engine keeps the salt of its encryption in this file; a new copy must not lose it.
    kept = yaml.safe_load(target.read_text()) if target.exists() else {}
    salt = {k: v for k, v in kept.items() if k == "encryptionsalt"}
    config |= {k: v for k, v in kept.get("config", {}).items() if isinstance(v, dict) and "secure" in v}
    target.write_text(yaml.safe_dump({**settings, **salt}))
    return config


def run(operation: str, stack_name: str, events: Path | None, arguments: Mapping[str, Any]) -> None:
    """Run one engine operation on the stack, its output going to ours and its steps to `events`."""
    paths = Paths.of_checkout()
    stack = automation.create_or_select_stack(
        stack_name=stack_name,
        project_name=PROJECT,
        program=lambda: runpy.run_path(str(CHECKOUT / "__main__.py"), run_name="__main__"),
        opts=automation.LocalWorkspaceOptions(work_dir=str(paths.work)),
    )
    for key, value in missing_secrets(paths, stack_name).items():
        stack.set_config(key, automation.ConfigValue(value=value, secret=True))
    if events is not None:
        arguments = {**arguments, "on_event": lambda event: record(event, events)}
    getattr(stack, operation)(on_output=lambda line: print(line, flush=True), color="never", **arguments)


def missing_secrets(paths: Paths, stack: str) -> dict[str, str]:
    """The secrets, by config key, that the private copy of a stack wants and that nobody has set in it.

    Each has a value that opens every door here and none elsewhere, so that a rehearsal sets it as a user would.
    """
    file = paths.work / f"Pulumi.{stack}.yaml"
    there = yaml.safe_load(file.read_text())["config"]
    values = {
        f"{PROJECT}:{name}": PLACEHOLDERS.get(name, "rehearsal")
        for name in wanted_secrets(load_stack_file(file))
    }
    return {key: value for key, value in values.items() if key not in there}


def record(event: automation.events.EngineEvent, file: Path) -> None:
    """Append a resource step as a line of JSON: its operation, type, name and what differs."""
    if step := event.resource_pre_event:
        meta = step.metadata
        line = {
            "op": str(meta.op.value),
            "type": meta.type,
            "urn": meta.urn,
            "diff": sorted(meta.detailed_diff or {}),
        }
        with file.open("a") as out:
            out.write(json.dumps(line) + "\n")


def main() -> int:
    """Run the operation named on the command line; 1 when the engine reports a failure."""
    parser = argparse.ArgumentParser(prog="python -m rehearsal.engine")
    parser.add_argument("operation", choices=("up", "preview", "destroy", "refresh"))
    parser.add_argument("stack")
    parser.add_argument("--expect-no-changes", action="store_true")
    parser.add_argument("--target", action="append", default=[], help="only this URN; may be repeated")
    parser.add_argument("--events", type=Path, help="append every resource step to this file, as JSON lines")
    options = parser.parse_args()
    os.chdir(CHECKOUT)
    given = {"expect_no_changes": options.expect_no_changes, "target": options.target}
    arguments = {name: value for name, value in given.items() if value}
    try:
        run(options.operation, options.stack, options.events, arguments)
    except automation.CommandError:
        # The engine has said why, line by line.
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
