"""`keys issue`, `keys list` and `keys revoke`: the keys of tenants."""

from __future__ import annotations

import json
import shlex
import sys
from argparse import Namespace
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from difflib import get_close_matches
from typing import Any

from components.serving.manifests.access import ISSUER
from ops import cli
from ops.errors import OpsError
from ops.keys import publish, settings, signers, tokens
from ops.keys.ledger import Issued, Ledger, now, stamp
from ops.keys.settings import Settings
from ops.keys.signers import Signer
from ops.pulumi import Pulumi
from ops.report import table
from ops.state import State
from stacks.config.access import Access

_SKEW = timedelta(days=1)
"""How long an expired id stays revoked: no clock of a gateway is further behind than that."""

VALID, EXPIRED, REVOKED = "valid", "expired", "revoked"
AGAIN = "VALID AGAIN: revoked once, but not in access.revoked now"
LIVE = (VALID, AGAIN)
"""States in which the gateway accepts a key."""


def say(text: str) -> None:
    """Standard output is for what programs read; everything for people goes to standard error."""
    print(text, file=sys.stderr)


def counted(keys: Sequence[Issued]) -> str:
    """`1 key`, `2 keys`."""
    return "1 key" if len(keys) == 1 else f"{len(keys)} keys"


def kid_of(access: Access, jwk: Mapping[str, str]) -> str | None:
    """The id under which the configuration has a public key."""
    found = (k for k, public in access.public_keys.items() if (public.x, public.y) == (jwk["x"], jwk["y"]))
    return next(found, None)


def opened(arguments: Namespace) -> tuple[Pulumi, Ledger]:
    """The stack that the arguments name, and its ledger."""
    return Pulumi(arguments.stack, arguments.project), Ledger(arguments.project, arguments.stack)


def run_issue(arguments: Namespace) -> int:
    """Sign a key, remember that it exists, and print it: the only time that it is seen."""
    stack, ledger = opened(arguments)
    found = settings.read(stack)
    access = found.signed
    _refuse_unknown_tenant(arguments.tenant, access)
    days = arguments.days or access.key_days
    if days > access.key_days:
        raise OpsError(f"--days {days} is more than llm-platform:access.keyDays allows: {access.key_days}")
    kid, public, signer = current_signer(arguments.signer, access, ledger)
    known = publish.deployed(State.parse(stack.export()), kid)
    began = now()
    ends = began + timedelta(days=days)
    identity = tokens.new_id()
    key = tokens.issue(_claims(found, arguments.tenant, identity, began, ends), kid, public, signer.sign)
    fields = {"jti": identity, "tenant": arguments.tenant, "kid": kid, "exp": stamp(ends)}
    # Before it is shown: no key exists that the ledger does not know.
    ledger.append("issued", **fields, **({"note": arguments.note} if arguments.note else {}))
    say(f"key {identity} for {arguments.tenant}, until {stamp(ends)}; it is shown only now")
    if not known:
        up = f"`pulumi up --stack {arguments.stack}`"
        say(f"warning: the gateway does not know signing key {kid} yet and answers 401 until {up} is done")
    print(key, flush=True)
    return cli.DONE


def _claims(found: Settings, tenant: str, identity: str, began: datetime, ends: datetime) -> dict[str, Any]:
    return {
        "iss": ISSUER,
        "aud": found.audience,
        "sub": tenant,
        "jti": identity,
        "iat": int(began.timestamp()),
        "exp": int(ends.timestamp()),
    }


def _refuse_unknown_tenant(tenant: str, access: Access) -> None:
    if tenant not in access.tenants:
        near = get_close_matches(tenant, access.tenants, 3)
        fix = f"did you mean {' or '.join(near)}?" if near else "add it to llm-platform:access.tenants"
        raise OpsError(f"there is no tenant {tenant!r}, so the gateway would answer 403 to the key: {fix}")


def current_signer(reference: str | None, access: Access, ledger: Ledger) -> tuple[str, Any, Signer]:
    """Key id, public key and signer to use: the one named by `reference`, else the newest that the ledger knows.

    :class:`OpsError` where there is none, or the gateway would refuse what it signs.
    """
    if reference is None:
        known = [signer for kid, signer in ledger.signers.items() if kid in access.public_keys]
        reference = (known or list(ledger.signers.values()) or [None])[-1]
    if reference is None:
        raise OpsError(
            "the ledger knows no signing key: run `python -m ops keys init`, or name the signer with --signer"
        )
    signer = signers.parse(reference)
    public = signer.public()
    jwk = tokens.jwk_of(public)
    kid = kid_of(access, jwk)
    if kid is None:
        raise OpsError(
            f"the public half of {reference} is not in llm-platform:access.publicKeys, so the gateway would answer "
            f"401 to every key that it signs: add it under {tokens.thumbprint(jwk)} with "
            f"{json.dumps(jwk)}, and run `pulumi up`"
        )
    return kid, public, signer


def state_of(key: Issued, access: Access, ledger: Ledger) -> str:
    """What the gateway makes of a key once the configuration is deployed."""
    rules = (
        (key.jti in access.revoked, REVOKED),
        (key.expires <= now(), REVOKED if key.jti in ledger.revoked else EXPIRED),
        (key.kid not in access.public_keys, "signer gone"),
        (key.tenant not in access.tenants, "unknown tenant"),
        (key.jti in ledger.revoked, AGAIN),
    )
    return next((state for applies, state in rules if applies), VALID)


def run_list(arguments: Namespace) -> int:
    """The keys that were issued, and what the gateway makes of them."""
    stack, ledger = opened(arguments)
    access = settings.read(stack).signed
    keys = [k for k in ledger.issued.values() if arguments.tenant in (None, k.tenant)]
    found = [(key, state_of(key, access, ledger)) for key in keys]
    shown = [(k, state) for k, state in found if arguments.all or state not in (EXPIRED, REVOKED)]
    if arguments.json:
        print(json.dumps([_as_json(key, state) for key, state in shown]))
        return cli.DONE
    rows = [(k.jti, k.tenant, stamp(k.issued), stamp(k.expires), state, k.note) for k, state in shown]
    print(table(("ID", "TENANT", "ISSUED", "EXPIRES", "STATE", "NOTE"), rows))
    if len(shown) < len(found):
        say(f"{len(found) - len(shown)} expired or revoked are not shown: --all")
    return cli.DONE


def _as_json(key: Issued, state: str) -> dict[str, str]:
    times = {"issued": stamp(key.issued), "expires": stamp(key.expires)}
    return {
        "id": key.jti,
        "tenant": key.tenant,
        "kid": key.kid,
        **times,
        "state": state,
        "by": key.by,
        "note": key.note,
    }


def run_revoke(arguments: Namespace) -> int:
    """Put ids into the configuration, and bring the one object that carries them up to date."""
    stack, ledger = opened(arguments)
    with ledger.alone():
        access = settings.read(stack).signed
        ids = list(dict.fromkeys(arguments.ids))
        _refuse_never_issued(ids, ledger)
        keys = [ledger.issued[identity] for identity in ids]
        wanted = _wanted(access.revoked, keys, ledger)
        if wanted != list(access.revoked):
            publish.set_revoked(stack, access.revoked, wanted)
        for identity in ids:
            if identity not in ledger.revoked:
                ledger.append("revoked", jti=identity)
        say(f"{counted(keys)} revoked in the configuration: {', '.join(ids)}")
        return _spread(arguments, stack)


def _refuse_never_issued(ids: Sequence[str], ledger: Ledger) -> None:
    known = list(ledger.issued)
    for identity in ids:
        if identity not in ledger.issued:
            near = get_close_matches(identity, known, 1)
            hint = f"did you mean {near[0]}?" if near else "`keys list --all` shows those that were"
            raise OpsError(f"no key with the id {identity!r} was ever issued, so nothing was revoked: {hint}")


def _wanted(before: Iterable[str], keys: Iterable[Issued], ledger: Ledger) -> list[str]:
    """The ids that must be in the configuration: an expired key needs no revocation, an unknown one keeps it."""
    issued, latest = ledger.issued, now() - _SKEW
    ids = dict.fromkeys([*before, *(key.jti for key in keys)])
    return [i for i in ids if i not in issued or issued[i].expires > latest]


def _spread(arguments: Namespace, stack: Pulumi) -> int:
    """Run the targeted `up`, or say how, and until when a key may still be accepted."""
    state = State.parse(stack.export())
    urns = publish.targets(state)
    command = publish.up_command(stack, urns)
    if not urns:
        say(
            f"the gateway's tables are not deployed yet: `pulumi up --stack {stack.stack}` makes this effective"
        )
        return cli.UNDECIDED if state.resources else cli.DONE
    if arguments.no_up:
        say("the gateway accepts them until this has run:")
        print(shlex.join(command))
        return cli.DONE
    say(f"running {shlex.join(command)}")
    ended = publish.up(stack, command)
    say(
        f"`up` ended at {stamp(ended)}; the gateways refuse the keys by {stamp(ended + publish.SPREADING)} at the "
        "latest, as long as istiod keeps up. Answers that had begun before are not cut off"
    )
    return cli.DONE
