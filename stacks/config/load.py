"""From a stack's raw values to a checked configuration. The only reader of `pulumi.Config`."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from stacks.config import rules
from stacks.config.describe import keys_of
from stacks.config.errors import PREFIX, ConfigError, Problem, choice, path_of
from stacks.config.faults import Place, problems_of
from stacks.config.kubeconfig import kubeconfig_problems
from stacks.config.root import StackConfig
from stacks.config.rules.draft import Draft, Parts
from stacks.config.rules.storage import s3_sources
from stacks.config.secrets import CONSEQUENCE, plain_secrets
from stacks.config.stack_file import check_stack_file, config_of, read_stack_file

if TYPE_CHECKING:
    import pulumi

# Keys whose values are text; all others arrive from Pulumi as JSON.
TEXT_KEYS = frozenset({"power"})
STORE_KEYS = ("s3AccessKeyId", "s3SecretAccessKey")
SECRET_KEYS = ("hfToken", "pullSecret", *STORE_KEYS)
# Maps whose entries stand on their own: a bad one is taken out, the others are still checked.
_ENTRIES = (
    ("models",),
    ("namespaces",),
    ("secrets",),
    ("cluster", "accelerators"),
    ("access", "tiers"),
    ("access", "tenants"),
)
# What an empty secret would lead to.
_EMPTY = {
    "hfToken": "no model with a licence could be downloaded",
    "pullSecret": "the nodes could not pull the images",
    **dict.fromkeys(STORE_KEYS, "the store would refuse the downloads"),
}
_STAND_IN = {"kind": "existing", "context": "unknown"}


@dataclass(frozen=True)
class Secrets:
    """Values that never touch the configuration: secret outputs, or None where they are not set."""

    hf_token: pulumi.Output[str] | None = None
    pull_secret: pulumi.Output[str] | None = None
    store_access_key: pulumi.Output[str] | None = None
    store_secret_key: pulumi.Output[str] | None = None


def load_config(raw: Mapping[str, Any]) -> StackConfig:
    """Checks the parsed values of a stack's keys, named without the project's prefix.

    Raises :class:`ConfigError` with every problem that was found.
    """
    draft, problems = inspect(raw)
    if problems or draft is None:
        raise ConfigError(problems)
    return draft.config


def load_stack_file(path: Path) -> StackConfig:
    """The configuration of a stack file; its secrets stay unread.

    Raises :class:`ConfigError`, as `load_config` does, for duplicated keys and broken syntax as well.
    """
    content, problems = read_stack_file(path)
    draft, found = inspect(config_of(content))
    if problems or found or draft is None:
        raise ConfigError([*problems, *(found if content else ())])
    return draft.config


def inspect(raw: Mapping[str, Any]) -> tuple[Draft | None, list[Problem]]:
    """What can be read of the configuration, and everything that is wrong with it."""
    leaks = plain_secrets(raw)
    draft, found = _salvage(raw)
    problems = found + (rules.check(draft) if draft else [])
    hidden = {leak.path for leak in leaks}
    # A message about the same value would print it.
    return draft, leaks + [problem for problem in problems if problem.path not in hidden]


def _salvage(raw: Mapping[str, Any]) -> tuple[Draft | None, list[Problem]]:
    """Validates, and takes out what cannot be read, so that the rules see all the rest."""
    values = copy.deepcopy(dict(raw))
    problems: list[Problem] = []
    removed: set[Parts] = set()
    while True:
        try:
            return Draft(StackConfig.model_validate(values), frozenset(removed)), problems
        except ValidationError as error:
            found = problems_of(StackConfig, error)
        if not removed:
            problems = [problem for _, _, problem in found]
        before = len(removed)
        for place, kind, _ in found:
            removed.add(_take_out(values, place, kind))
        if len(removed) == before:
            return None, problems


def _take_out(values: dict[str, Any], place: Place, kind: str) -> Parts:
    """Removes the smallest part that can be missing, and says which."""
    parts = place.parts if kind == "extra_forbidden" else _entry(place.parts)
    if parts == ("cluster",):
        values["cluster"] = dict(_STAND_IN)
        return parts
    container: Any = values
    for step in parts[:-1]:
        container = container[step] if isinstance(container, Mapping) and step in container else {}
    if isinstance(container, dict):
        container.pop(parts[-1], None)
    return parts


def _entry(parts: Parts) -> Parts:
    for prefix in _ENTRIES:
        if parts[: len(prefix)] == prefix and len(parts) > len(prefix):
            return parts[: len(prefix) + 1]
    return parts[:1]


def from_pulumi(config: pulumi.Config) -> tuple[StackConfig, Secrets]:
    """Reads the stack's configuration and secrets from the running Pulumi program.

    Raises :class:`ConfigError` with every problem: of the values, of keys that do not exist, of
    secrets that are missing or in the clear, of duplicates in the stack file, and of the
    kubeconfig of an existing cluster.
    """
    values = _namespace(config.name)
    secret = _secret_keys()
    raw, problems = _parse(values, {key for key in values if f"{config.name}:{key}" in secret})
    draft, found = inspect(raw)
    problems += found
    if draft is not None:
        problems += _missing_secrets(draft, values)
        problems += _given_twice(draft.config, values)
        problems += _idle_keys(draft, values)
        problems += kubeconfig_problems(draft.config.cluster) if draft.knows("cluster") else []
    stack_file = _stack_file()
    if stack_file is not None:
        problems += check_stack_file(stack_file)
    if problems or draft is None:
        raise ConfigError(problems)
    return draft.config, Secrets(*(config.get_secret(name) for name in SECRET_KEYS))


def _namespace(project: str) -> dict[str, str]:
    """Every key of the project as Pulumi hands it over: set by the engine's host, or in the environment."""
    from pulumi.runtime import config as runtime

    everything = {**runtime.get_config_env(), **runtime.CONFIG.get()}
    prefix = f"{project}:"
    return {name.removeprefix(prefix): value for name, value in everything.items() if name.startswith(prefix)}


def _secret_keys() -> frozenset[str]:
    """Full names of the keys that the stack file holds encrypted."""
    from pulumi.runtime import config as runtime

    # The command line's host passes them by environment, the Automation API in the process.
    return frozenset(runtime.get_config_secret_keys_env()) | frozenset(runtime._SECRET_KEYS.get())


def _parse(values: Mapping[str, str], secret: set[str]) -> tuple[dict[str, Any], list[Problem]]:
    """The plain keys, parsed, and what is wrong with keys before anything is validated."""
    known = list(keys_of(StackConfig))
    raw: dict[str, Any] = {}
    problems: list[Problem] = []
    for name, value in values.items():
        if name in SECRET_KEYS:
            problems += _secret_problems(name, value, name in secret)
        elif name not in known:
            problems.append(_unknown(name, known))
            problems += plain_secrets({} if name in secret else {name: value})
        elif name in secret:
            problems.append(_encrypted(name))
        elif name in TEXT_KEYS:
            raw[name] = value
        else:
            raw[name] = _json(value)
    return raw, problems


def _json(value: str) -> Any:
    try:
        return json.loads(value)
    except json.JSONDecodeError:
        return value  # plain text where a map belongs: the model says so


def _unknown(name: str, known: list[str]) -> Problem:
    return Problem(
        path_of(name),
        "there is no such key",
        "it would be ignored, and what it was meant to do would not happen",
        choice(name, (*known, *SECRET_KEYS), prefix=PREFIX),
    )


def _encrypted(name: str) -> Problem:
    return Problem(
        path_of(name),
        "holds an encrypted value",
        "Pulumi hands structured values over in the clear, so it would end up in objects and messages",
        f"keep secrets in {', '.join(PREFIX + key for key in SECRET_KEYS)} only",
    )


def _secret_problems(name: str, value: str, encrypted: bool) -> list[Problem]:
    command = f"run: pulumi config set --secret {PREFIX}{name}"
    if not encrypted:
        return [
            Problem(path_of(name), "is written in plain text", CONSEQUENCE, f"withdraw it, then {command}")
        ]
    if not value.strip():
        return [Problem(path_of(name), "is empty", _EMPTY[name], command)]
    if name == "pullSecret" and not is_docker_config(value):
        wrong = "is not a Docker config JSON with auths"
        return [
            Problem(path_of(name), wrong, "the nodes could not pull the images", f"{command} < config.json")
        ]
    return []


def is_docker_config(value: str) -> bool:
    """Whether a registry login has the form that nodes read."""
    try:
        content = json.loads(value)
    except json.JSONDecodeError:
        return False
    return isinstance(content, dict) and isinstance(content.get("auths"), dict)


def wanted_secrets(config: StackConfig) -> dict[str, str]:
    """The secrets that a stack asks for and does not refer to elsewhere, with the reason."""
    gated = [name for name, model in config.models.items() if model.gated]
    own = config.storage is not None and config.storage.s3.existing_secret is None
    # Without weights in the store no Secret is made; that it is described at all is refused by a rule.
    stored = own and bool(s3_sources(config))
    wanted = {
        "hfToken": f"the weights of {', '.join(gated)} need a licence (gated)" if gated else "",
        "pullSecret": "platform.imagePullSecret is true" if config.platform.image_pull_secret else "",
        **dict.fromkeys(STORE_KEYS, "storage.s3 is set" if stored else ""),
    }
    referred = config.secrets.given()
    return {name: reason for name, reason in wanted.items() if reason and name not in referred}


def _missing_secrets(draft: Draft, values: Mapping[str, str]) -> list[Problem]:
    return [
        Problem(
            path_of(name),
            f"is missing, but {reason}",
            "downloads would be refused and the pods never start",
            f"run: pulumi config set --secret {PREFIX}{name}{_or_refer(name)}",
        )
        for name, reason in wanted_secrets(draft.config).items()
        if name not in values and draft.knows("secrets", name) and draft.knows("storage")
    ]


def _or_refer(name: str) -> str:
    if name in STORE_KEYS:
        return f", or name a Secret in {path_of('storage', 's3', 'existingSecret')}"
    return f", or refer to it in {path_of('secrets', name)}"


def _idle_keys(draft: Draft, values: Mapping[str, str]) -> list[Problem]:
    """The access key of a store that nobody would show."""
    if not draft.knows("storage"):
        return []
    storage, keys = draft.config.storage, STORE_KEYS
    why, fix = "there is no storage.s3", "add storage.s3"
    if storage is not None:
        # A store that nothing is in is refused itself, and with it goes the question for its keys.
        keys = STORE_KEYS if storage.s3.existing_secret else ()
        why, fix = "storage.s3 names an existingSecret", "remove existingSecret"
    return [
        Problem(
            path_of(name),
            f"is set, but {why}",
            "no download would use it",
            f"{fix}, or run: pulumi config rm {PREFIX}{name}",
        )
        for name in keys
        if name in values
    ]


def _given_twice(config: StackConfig, values: Mapping[str, str]) -> list[Problem]:
    return [
        Problem(
            path_of("secrets", name),
            f"it refers to {source}, and {PREFIX}{name} is set as well",
            "it could not be told which of the two the models use",
            f"remove the reference, or run: pulumi config rm {PREFIX}{name}",
        )
        for name, source in config.secrets.given().items()
        if name in values
    ]


def _stack_file() -> Path | None:
    """The stack file beside Pulumi.yaml, when the program runs where it is."""
    import pulumi

    stack = pulumi.get_stack()
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "Pulumi.yaml").is_file():
            return folder / f"Pulumi.{stack.rsplit('/', 1)[-1]}.yaml"
    return None
