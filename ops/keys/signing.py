"""`keys init` and `keys rotate`: the stack's signing keys."""

from __future__ import annotations

import json
import os
from argparse import Namespace
from collections.abc import Mapping
from itertools import count
from pathlib import Path

import yaml

from ops import cli
from ops.errors import OpsError
from ops.keys import publish, settings, signers, tokens
from ops.keys.keyring import LIVE, counted, kid_of, opened, say, state_of
from ops.keys.ledger import Ledger, stamp
from ops.keys.signers import FileSigner, Signer
from ops.pulumi import Pulumi
from stacks.config.access import Access
from stacks.config.errors import choice


def run_init(arguments: Namespace) -> int:
    """Make the stack's first signing key, or take over a KMS's."""
    if arguments.no_config:
        ledger = Ledger(arguments.project, arguments.stack)
        _project(arguments)
        with ledger.alone():
            return _add_signer(arguments, ledger, None, None)
    stack, ledger = opened(arguments)
    with ledger.alone():
        access = settings.read(stack).signed
        if access.public_keys:
            raise OpsError(
                f"stack {arguments.stack} has a signing key already ({', '.join(access.public_keys)}): "
                "change it with `python -m ops keys rotate`"
            )
        return _add_signer(arguments, ledger, stack, access)


def run_rotate(arguments: Namespace) -> int:
    """Add a signing key beside the old one, or remove the old one."""
    stack, ledger = opened(arguments)
    with ledger.alone():
        access = settings.read(stack).signed
        if arguments.finish:
            return _finish(arguments, stack, access, ledger)
        if not access.public_keys:
            raise OpsError("there is no signing key to change yet: run `python -m ops keys init`")
        return _add_signer(arguments, ledger, stack, access)


def _add_signer(arguments: Namespace, ledger: Ledger, stack: Pulumi | None, access: Access | None) -> int:
    """Make or take over a key, publish its public half in the configuration, and remember the signer."""
    signer = _new_signer(arguments)
    jwk = tokens.jwk_of(signer.public())
    kid = arguments.kid or tokens.thumbprint(jwk)
    if stack is not None and access is not None:
        try:
            _refuse_known(access, kid, jwk)
            publish.add_public_key(stack, kid, jwk)
        except OpsError as error:
            again = f"--signer {signer.reference} --existing"
            raise OpsError(
                f"{error}\nNothing uses the key yet; to do so, run this again with {again}"
            ) from None
    ledger.append("signer", kid=kid, signer=signer.reference)
    if arguments.json:
        print(json.dumps({"kid": kid, "jwk": jwk}))
    say(_signer_text(arguments, signer, kid, jwk))
    return cli.DONE


def _new_signer(arguments: Namespace) -> Signer:
    """The signer that was asked for; a file that is not there yet is made."""
    signer = signers.parse(arguments.signer) if arguments.signer else FileSigner(_default_file(arguments))
    if isinstance(signer, FileSigner) and not arguments.existing:
        signer.create()
    return signer


def _default_file(arguments: Namespace) -> Path:
    """A file of the user's own configuration directory; each rotation takes the next free name."""
    home = Path(os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config"))
    directory = home / "llm-platform" / _project(arguments) / arguments.stack.rsplit("/", 1)[-1]
    first = directory / "signing-key.pem"
    if arguments.action == "init" or arguments.existing or not first.exists():
        return first
    others = (directory / f"signing-key-{number}.pem" for number in count(2))
    return next(file for file in others if not file.exists())


def _project(arguments: Namespace) -> str:
    """The project's name, without asking the CLI, which may not be there yet."""
    file = arguments.project / "Pulumi.yaml"
    try:
        return str(yaml.safe_load(file.read_text())["name"])
    except (OSError, yaml.YAMLError, KeyError, TypeError):
        raise OpsError(f"there is no project in {file}: name its directory with --project") from None


def _refuse_known(access: Access, kid: str, jwk: Mapping[str, str]) -> None:
    same = kid_of(access, jwk)
    if same or kid in access.public_keys:
        raise OpsError(f"the configuration already has {same or kid}: choose another signing key or --kid")


def _signer_text(arguments: Namespace, signer: Signer, kid: str, jwk: Mapping[str, str]) -> str:
    lines = [f"signing key {kid}: {signer.reference}"]
    if isinstance(signer, FileSigner):
        lines.append(
            "Keep a copy of this file in a safe place; whoever has it can make keys for every tenant."
        )
    up = f"pulumi up --stack {arguments.stack}"
    if arguments.no_config:
        entry = json.dumps({kid: dict(jwk)})
        lines.append(f"The configuration was left alone; llm-platform:access.publicKeys needs: {entry}")
    elif arguments.action == "init":
        lines.append(
            f"Its public half is in the configuration of {arguments.stack}. Next: `{up}`, then\n"
            f"`python -m ops keys issue --stack {arguments.stack} --tenant NAME`"
        )
    else:
        lines.append(
            f"New keys are signed with it; those of before stay valid. Next: `{up}`, and only then `issue`.\n"
            "When the keys of the old one have been replaced: `python -m ops keys rotate "
            f"--stack {arguments.stack} --finish=OLD-KID`"
        )
    return "\n".join(lines)


def _finish(arguments: Namespace, stack: Pulumi, access: Access, ledger: Ledger) -> int:
    """Remove an old public key, unless that ends keys that are still in use."""
    old = arguments.finish
    if old not in access.public_keys:
        known = list(access.public_keys)
        raise OpsError(
            f"the configuration has no signing key {old}" + (f": {choice(old, known)}" if known else "")
        )
    current = [kid for kid in ledger.signers if kid in access.public_keys]
    if len(access.public_keys) == 1 or current[-1:] == [old]:
        raise OpsError(
            f"{old} is what keys are signed with: run `python -m ops keys rotate --stack {arguments.stack}` first"
        )
    ending = [k for k in ledger.issued.values() if k.kid == old and state_of(k, access, ledger) in LIVE]
    if ending and not arguments.force:
        last = stamp(max(key.expires for key in ending))
        raise OpsError(
            f"{counted(ending)} signed by {old} would end, the last of which expires at {last}: replace them "
            f"(`python -m ops keys list --stack {arguments.stack}`), wait, or use --force"
        )
    publish.remove_public_key(stack, old)
    say(
        f"{old} is out of the configuration; {counted(ending)} end with it when "
        f"`pulumi up --stack {arguments.stack}` is done"
    )
    return cli.DONE
