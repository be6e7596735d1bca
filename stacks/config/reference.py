"""The configuration reference, written from the models."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from components.core.accelerators import ACCELERATORS
from components.core.models import KNOWN_MODELS
from stacks.config.describe import describe, schema_of
from stacks.config.errors import PREFIX
from stacks.config.machines import (
    GPU_MACHINES,
    REGIONS_WITHOUT_N1,
    TPU_MACHINES,
    V6E_ZONES,
    hosts,
    topologies_of,
)
from stacks.config.model import MAX_MODEL_NAME, OWNED_ARGS
from stacks.config.root import StackConfig

_INTRODUCTION = """\
# Configuration

<!-- Written from the models by `python -m stacks.config reference`; change them, not this page. -->

A stack is one file, `Pulumi.<stack>.yaml`. Everything is checked before the first resource: unknown keys,
values of another type, combinations that cannot work, models that do not fit. All problems are reported at
once, each with its place in the file, what it would lead to and the fix.

The smallest stack serves one model on a cluster that is already there:

```yaml
config:
  llm-platform:cluster:
    kind: existing
    context: my-cluster
    accelerators:
      l4: {type: nvidia-l4, maxNodes: 1}
  llm-platform:models:
    qwen3-0-6b:
      uri: hf://Qwen/Qwen3-0.6B
      accelerator: l4
      maxModelLen: 8192
```

Editors complete and check the file as you type when its first line is
`# yaml-language-server: $schema=./config.schema.json`. `python -m stacks.config check Pulumi.<stack>.yaml`
applies every rule without Pulumi.

Numbers and switches are written without quotes; times, dates and host names are text. `null` means the same
as leaving a key out. Where the default is in *italics* it depends on other keys.
"""

_SECRETS = """\
## Secrets

Secrets are never part of the file's plain values; values that look like credentials are refused. They are
keys of their own, encrypted by Pulumi:

| Key | Needed by | Set with |
| --- | --- | --- |
| `llm-platform:hfToken` | `gated: true` | `pulumi config set --secret llm-platform:hfToken` |
| `llm-platform:pullSecret` | `imagePullSecret: true` | `pulumi config set --secret llm-platform:pullSecret` |
| `llm-platform:s3AccessKeyId` | `storage.s3` | `pulumi config set --secret llm-platform:s3AccessKeyId` |
| `llm-platform:s3SecretAccessKey` | `storage.s3` | `pulumi config set --secret llm-platform:s3SecretAccessKey` |

The commands ask for the value or read it from standard input, so that it stays out of the shell's history. The first
two can be kept in a store of the cloud or by somebody else instead: [references](namespaces.md#secrets-by-reference).
"""


def render() -> str:
    """The text of `docs/configuration.md`."""
    schema = schema_of(StackConfig)
    parts = [_INTRODUCTION, "## Keys of a stack\n\n" + _table(schema, prefix=PREFIX)]
    parts += [_section(name, schema["$defs"][name]) for name in _in_order(schema)]
    parts += [_SECRETS, _accelerators(), _machines(), _known_models(), _arguments()]
    return "\n".join(part.rstrip() + "\n" for part in parts)


def _in_order(schema: dict[str, Any]) -> list[str]:
    """Every model, in the order in which a reader meets it."""
    names: dict[str, None] = {}

    def visit(node: Any) -> None:
        for name in _references(node.get("properties", {})):
            if name not in names:
                names[name] = None
                visit(schema["$defs"][name])

    visit(schema)
    return list(names)


def _references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if "$ref" in node:
            yield node["$ref"].rsplit("/", 1)[1]
        for child in node.values():
            yield from _references(child)
    elif isinstance(node, list):
        for child in node:
            yield from _references(child)


def _section(name: str, schema: dict[str, Any]) -> str:
    return f"## {name}\n\n{schema['description']}\n\n{_table(schema)}"


def _table(schema: dict[str, Any], prefix: str = "") -> str:
    required = schema.get("required", ())
    rows = [
        (
            f"`{prefix}{name}`",
            _type(key),
            _default(name, key, required),
            key.get("unit", ""),
            key["description"],
        )
        for name, key in schema["properties"].items()
    ]
    return markdown_table(("Key", "Type", "Default", "Unit", "Meaning"), rows)


def _type(key: dict[str, Any]) -> str:
    words = describe(key)
    for name in dict.fromkeys(_references(key)):
        words = words.replace(name, f"[{name}](#{name.lower()})")
    return words


def _default(name: str, key: dict[str, Any], required: Sequence[str]) -> str:
    if name in required:
        return "**required**"
    if "derived" in key:
        return f"*{key['derived']}*"
    value = key.get("default")
    if value is None and "default" in key:
        return "none"
    if isinstance(value, dict) or "default" not in key:
        return "empty" if not value and "$ref" not in key else "as below" if not value else _inline(value)
    if isinstance(value, list):
        return ", ".join(f"`{item}`" for item in value) or "empty"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _inline(value: dict[str, Any]) -> str:
    return "`{" + ", ".join(f"{key}: {item}" for key, item in value.items() if item is not None) + "}`"


def _accelerators() -> str:
    rows = [
        (
            f"`{row.name}`",
            f"`{row.resource}`",
            f"{row.memory_gib:.2f}",
            f"{row.startup_budget_seconds}",
            _labels(row.node_selector),
        )
        for row in ACCELERATORS.values()
    ]
    head = ("Type", "Resource", "GiB per chip", "Least load budget (s)", "Node labels on an existing cluster")
    return "## Accelerators\n\n" + markdown_table(head, rows)


def _labels(selector: Any) -> str:
    return ", ".join(f"`{name}={value}`" for name, value in selector.items())


def _machines() -> str:
    tpu = [
        (f"`{name}`", machine.chips, machine.vcpus, machine.memory_gib, _shapes(name))
        for name, machine in TPU_MACHINES.items()
    ]
    gpu = [
        (f"`{name}`", machine.gpus, machine.vcpus, machine.memory_gib, machine.nvme_gb)
        for name, machine in GPU_MACHINES.items()
    ]
    return "\n".join(
        (
            "## Machine types\n\nTPU v6e on GKE. A slice of several machines exists whole or not at all.\n",
            markdown_table(("Machine type", "Chips", "vCPUs", "GiB", "Topologies (machines)"), tpu),
            f"\nZones that are known to have TPU v6e: {', '.join(V6E_ZONES)}.",
            f"Regions among them without n1 machines: {', '.join(REGIONS_WITHOUT_N1)}.",
            "\nNVIDIA L4 on EKS.\n",
            markdown_table(("Instance type", "GPUs", "vCPUs", "GiB", "NVMe GB"), gpu),
        )
    )


def _shapes(machine_type: str) -> str:
    return ", ".join(f"{shape} ({hosts(machine_type, shape)})" for shape in topologies_of(machine_type))


def _known_models() -> str:
    rows = [
        (f"`hf://{name}`", numbers.parameters_billions, numbers.context or "unknown", numbers.kv_heads)
        for name, numbers in KNOWN_MODELS.items()
    ]
    head = ("Model", "Parameters (10^9)", "Longest context (tokens)", "KV heads")
    text = "## Known models\n\nTheir memory is checked without `architecture`; give it for any other.\n\n"
    return text + markdown_table(head, rows)


def _arguments() -> str:
    rows = [(f"`{flag}`", advice) for flag, advice in OWNED_ARGS.items()]
    text = (
        "## Arguments that are refused\n\n"
        f"A model's name has {MAX_MODEL_NAME} characters at most, because other names are derived from it. "
        "These arguments of the engine have a key of their own, or follow from the accelerator:\n\n"
    )
    return text + markdown_table(("Argument", "Instead"), rows)


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A Markdown table; `|` inside a cell is escaped."""
    lines = [head, ["---"] * len(head), *rows]
    return (
        "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)
        + "\n"
    )
