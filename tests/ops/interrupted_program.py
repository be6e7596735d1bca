"""A Pulumi program of any resources, and an engine of its own for it that can be killed.

    python interrupted_program.py up|destroy RESOURCES.json

RESOURCES.json maps a logical name to `[type token, properties]`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pulumi
from pulumi import automation

SETTINGS = {"context": "rehearsal", "enableConfigMapMutable": True}


def declare(resources: dict[str, list]) -> None:
    """The program."""
    cluster = pulumi.ProviderResource("kubernetes", "cluster", SETTINGS)
    for name, (token, properties) in resources.items():
        pulumi.CustomResource(token, name, properties, pulumi.ResourceOptions(provider=cluster))


def main() -> None:
    operation, file = sys.argv[1:]
    resources = json.loads(Path(file).read_text())
    options = automation.LocalWorkspaceOptions(work_dir=str(Path(file).parent))
    stack = automation.select_stack("dev", "llm-platform", lambda: declare(resources), opts=options)
    getattr(stack, operation)(on_output=lambda line: print(line, flush=True), color="never")


if __name__ == "__main__":
    main()
