"""`python -m ops keys`: init, issue, list, revoke, rotate."""

from __future__ import annotations

import re
from argparse import ArgumentParser, ArgumentTypeError

from ops import pulumi
from ops.keys import keyring, signing

EXPLANATION = """
A key is a signed token that the gateway verifies by itself: it is issued without a deployment, shown once and
stored nowhere. docs/keys.md says how keys, rotation and revocation work.
"""
_KID = re.compile(r"[A-Za-z0-9_-]{8,64}")
_NOTE = 200
_SIGNER_HELP = "file:PATH, gcpkms:KEY-VERSION-RESOURCE or awskms:KEY-ID-OR-ARN"


def configure(parser: ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.description = (parser.description or "") + EXPLANATION
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, (add, run, text) in _ACTIONS.items():
        action = actions.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        pulumi.add_arguments(action)
        add(action)
        action.set_defaults(run=run)


def _init_arguments(parser: ArgumentParser) -> None:
    _signer_arguments(parser)
    parser.add_argument("--no-config", action="store_true", help="leave the stack's configuration alone")
    parser.add_argument("--json", action="store_true", help="print the key id and the public key as JSON")


def _signer_arguments(parser: ArgumentParser) -> None:
    text = f"{_SIGNER_HELP} (default: a new file in your configuration directory)"
    parser.add_argument("--signer", metavar="SIGNER", help=text)
    parser.add_argument(
        "--existing", action="store_true", help="use the key that the signer's file already holds"
    )
    parser.add_argument(
        "--kid", type=_key_id, metavar="ID", help="key id (default: the key's RFC 7638 thumbprint)"
    )


def _issue_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--tenant", required=True, metavar="NAME", help="who the key is for")
    parser.add_argument("--days", type=_days, metavar="N", help="life of the key (default: access.keyDays)")
    parser.add_argument(
        "--note", type=_note, default="", metavar="TEXT", help="what the key is for; kept in the ledger"
    )
    text = f"{_SIGNER_HELP} (default: the newest that the ledger knows)"
    parser.add_argument("--signer", metavar="SIGNER", help=text)


def _list_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--tenant", metavar="NAME", help="only the keys of one tenant")
    parser.add_argument("--all", action="store_true", help="expired and revoked keys as well")
    parser.add_argument("--json", action="store_true", help="one JSON array for programs instead of a table")


def _revoke_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("ids", nargs="+", metavar="ID", help="id of a key, as `list` shows it")
    parser.add_argument(
        "--no-up", action="store_true", help="print the command that makes it effective, do not run it"
    )


def _rotate_arguments(parser: ArgumentParser) -> None:
    _signer_arguments(parser)
    parser.add_argument("--finish", metavar="KID", help="end the change: remove the old signing key KID")
    parser.add_argument(
        "--force", action="store_true", help="with --finish: although keys that it signed are valid"
    )
    parser.set_defaults(no_config=False, json=False)


def _key_id(text: str) -> str:
    if not _KID.fullmatch(text):
        raise ArgumentTypeError(f"{text!r} is not 8 to 64 letters, digits, hyphens and underscores")
    return text


def _days(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 < int(text[:9]) <= 366:
        raise ArgumentTypeError(f"{text!r} is not a number of days from 1 to 366")
    return int(text)


def _note(text: str) -> str:
    if len(text) > _NOTE or not text.isprintable():
        raise ArgumentTypeError(f"a note is one line of at most {_NOTE} characters")
    return text


_ACTIONS = {
    "init": (
        _init_arguments,
        signing.run_init,
        "make the signing key, and put its public half into the configuration",
    ),
    "issue": (_issue_arguments, keyring.run_issue, "sign a key for a tenant, and print it once"),
    "list": (_list_arguments, keyring.run_list, "list the keys that were issued, and their state"),
    "revoke": (_revoke_arguments, keyring.run_revoke, "end keys before they expire, by their ids"),
    "rotate": (
        _rotate_arguments,
        signing.run_rotate,
        "change the signing key while keys of the old one stay valid",
    ),
}
