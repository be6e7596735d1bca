"""What each model needs of its chips' memory, in words. Pure."""

from __future__ import annotations

from stacks.config import StackConfig
from stacks.config.rules.memory import outcome

UNKNOWN = "not checked: the model's numbers are not known here; architecture states them"


def memory(config: StackConfig) -> dict[str, str]:
    """The arithmetic of each model, by name; one that does not fit is refused before."""
    found = {
        name: outcome(model, config.cluster.accelerators[model.accelerator].shape())
        for name, model in sorted(config.models.items())
    }
    return {name: fit.explanation if fit else UNKNOWN for name, fit in found.items()}


def announcement(config: StackConfig) -> str:
    """The same for a preview, a line for each model."""
    return "\n".join(f"memory of {name}: {says}" for name, says in memory(config).items())
