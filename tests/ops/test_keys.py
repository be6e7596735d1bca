"""`python -m ops keys` from making the signing key to its end, against a CLI that records what it was told."""

from __future__ import annotations

import base64
import json
import re
import runpy
import stat
import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from components.serving.manifests.access import AccessSpec, audience
from components.serving.manifests.chain import ChainSpec, chain
from ops import cli
from ops.keys import keyring, ledger, tokens
from ops.keys.ledger import Ledger
from stacks.config.access import Access

FAKES = runpy.run_path(str(Path(__file__).with_name("keys_fakes.py")))
PROJECT, STACK = "llm-platform", "dev"
ACCESS = {
    "tiers": {"free": {"tokensPerMinute": 200}},
    "tenants": {"acme": {"tier": "free"}, "umbrella": {"tier": "free"}},
    "keyDays": 30,
}
TABLES_URN = f"urn:pulumi:{STACK}::{PROJECT}::kubernetes:networking.istio.io/v1alpha3:EnvoyFilter::llm-gateway-chain-tables"


@dataclass
class Desk:
    """A project with a stack, and the commands run on it."""

    home: Path
    """What the fake programs know and wrote down."""
    project: Path
    config_home: Path
    said: Callable[[], Any]
    shown: list[str] = field(default_factory=list)
    """Everything that the commands printed."""

    def run(self, action: str, *arguments: str) -> tuple[int, str, str]:
        """Exit code, standard output and standard error of one command."""
        given = ["keys", action, "--stack", STACK, "--project", str(self.project), *arguments]
        code = cli.main(given)
        out, err = self.said()
        self.shown += [out, err]
        return code, out, err

    def done(self, action: str, *arguments: str) -> str:
        """Standard output of a command that has to succeed."""
        code, out, err = self.run(action, *arguments)
        assert code == cli.DONE, err
        return out.strip()

    def refused(self, action: str, *arguments: str) -> str:
        """Standard error of a command that has to fail, in one line."""
        code, out, err = self.run(action, *arguments)
        assert (code, out) == (cli.FAILED, "")
        return " ".join(err.split())

    @property
    def config(self) -> dict[str, Any]:
        return json.loads((self.home / "config.json").read_text())

    def configure(self, access: dict[str, Any] | None, **others: Any) -> None:
        values = {"access": access, **others} if access is not None else others
        (self.home / "config.json").write_text(json.dumps({f"{PROJECT}:{k}": v for k, v in values.items()}))

    @property
    def access(self) -> dict[str, Any]:
        return self.config[f"{PROJECT}:access"]

    def change(self, **access: Any) -> None:
        self.configure({**self.access, **access})

    def deploy(self, *kinds: str) -> None:
        """Let the state hold what an `up` would have made of the configuration."""
        access = AccessSpec(audience="a", public_keys=self.access["publicKeys"], measure="tokens")
        filters = chain(ChainSpec(gateway="g", namespace="n", access=access))
        made = {"type": TABLES_URN.split("::")[2]}
        found = {
            "filters": {**made, "urn": TABLES_URN.replace("-tables", "-filters"), "inputs": filters},
            "tables": {**made, "urn": TABLES_URN, "inputs": {}},
        }
        resources = [found[kind] for kind in kinds or found]
        (self.home / "state.json").write_text(
            json.dumps({"version": 3, "deployment": {"resources": resources}})
        )

    @property
    def calls(self) -> list[dict[str, Any]]:
        """Every start of a fake program so far."""
        file = self.home / "calls.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    @property
    def ups(self) -> list[list[str]]:
        return [c["argv"][1:] for c in self.calls if c["program"] == "pulumi" and c["argv"][1] == "up"]

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.project, STACK)

    @property
    def signing_key(self) -> Path:
        return self.config_home / "llm-platform" / PROJECT / STACK / "signing-key.pem"

    def kid(self) -> str:
        """The id of the only, or the newest, public key."""
        return list(self.access["publicKeys"])[-1]


class Clock:
    """The time that the commands see."""

    def __init__(self, monkeypatch):
        self.now = datetime(2026, 1, 1, 12, tzinfo=UTC)
        for module in (keyring, ledger):
            monkeypatch.setattr(module, "now", lambda: self.now)

    def sleep(self, **span: float) -> None:
        self.now += timedelta(**span)


@pytest.fixture
def clock(monkeypatch) -> Clock:
    return Clock(monkeypatch)


@pytest.fixture
def desk(tmp_path, monkeypatch, capsys, clock) -> Desk:
    home, project, binaries = (tmp_path / name for name in ("fakes", "project", "bin"))
    for directory in (home, project, binaries):
        directory.mkdir()
    FAKES["install"](binaries)
    (project / "Pulumi.yaml").write_text(f"name: {PROJECT}\nruntime: python\n")
    monkeypatch.setenv("PATH", f"{binaries}:/usr/bin:/bin")
    monkeypatch.setenv("FAKES_HOME", str(home))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("LLMP_UP_COMMAND", raising=False)
    made = Desk(home, project, tmp_path / "config", capsys.readouterr)
    made.configure(ACCESS)
    (home / "state.json").write_text(json.dumps({"version": 3, "deployment": {}}))
    return made


@pytest.fixture
def ready(desk) -> Desk:
    """A desk whose signing key is made and deployed."""
    desk.done("init")
    desk.deploy()
    return desk


def decoded(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def verified(key: str, access: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Header and claims of a key as a gateway reads it: with nothing but the configuration's public keys."""
    head, claims, signature = key.split(".")
    header = json.loads(decoded(head))
    public = access["publicKeys"][header["kid"]]
    x, y = (int.from_bytes(decoded(public[name]), "big") for name in ("x", "y"))
    raw = decoded(signature)
    assert len(raw) == 64
    r, s = (int.from_bytes(half, "big") for half in (raw[:32], raw[32:]))
    verifier = ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()
    verifier.verify(encode_dss_signature(r, s), f"{head}.{claims}".encode(), ec.ECDSA(hashes.SHA256()))
    return header, json.loads(decoded(claims))


# -- making the signing key ------------------------------------------------------------------------


def test_init_makes_a_private_file_and_publishes_only_its_public_half(desk):
    before = desk.access
    desk.done("init")
    assert stat.S_IMODE(desk.signing_key.stat().st_mode) == 0o600
    for directory in desk.signing_key.relative_to(desk.config_home).parents:
        assert stat.S_IMODE((desk.config_home / directory).stat().st_mode) == 0o700
    kid = desk.kid()
    public = desk.access["publicKeys"][kid]
    assert set(public) == {"x", "y"}
    assert tokens.thumbprint({"kty": "EC", "crv": "P-256", **public}) == kid
    assert Access.model_validate(desk.access).public_keys[kid].x == public["x"]
    assert {k: v for k, v in desk.access.items() if k != "publicKeys"} == before
    assert desk.ledger.signers == {kid: f"file:{desk.signing_key}"}


def test_a_key_id_is_the_rfc_7638_thumbprint():
    """The key of RFC 7515's appendix A.3; its thumbprint was computed with `openssl` from RFC 7638's rules."""
    jwk = {
        "kty": "EC",
        "crv": "P-256",
        "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
        "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
    }
    text = '{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}'.format(**jwk)
    digest = subprocess.run(
        ["openssl", "dgst", "-sha256", "-binary"], input=text.encode(), capture_output=True, check=True
    ).stdout
    assert decoded(tokens.thumbprint(jwk)) == digest


def test_a_second_init_changes_nothing(ready):
    before, key = ready.access, ready.signing_key.read_bytes()
    assert "rotate" in ready.refused("init")
    assert "rotate" in ready.refused("init", "--signer", f"file:{ready.home}/other.pem")
    assert (ready.access, ready.signing_key.read_bytes()) == (before, key)
    assert not (ready.home / "other.pem").exists()


def test_without_config_nothing_but_file_and_ledger_is_written_and_no_cli_is_needed(desk, monkeypatch):
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    file, before = desk.home / "keys" / "dev.pem", desk.config
    answer = json.loads(desk.done("init", "--no-config", "--json", "--signer", f"file:{file}"))
    assert (desk.config, desk.calls) == (before, [])
    assert answer["kid"] == tokens.thumbprint(answer["jwk"])
    assert file.stat().st_mode & 0o777 == 0o600
    again = json.loads(desk.done("init", "--no-config", "--json", "--signer", f"file:{file}", "--existing"))
    assert again == answer
    # What a rehearsal does with it: the printed key makes issued keys valid.
    desk.change(publicKeys={answer["kid"]: answer["jwk"]})
    monkeypatch.setenv("PATH", f"{desk.home.parent}/bin:/usr/bin:/bin")
    assert verified(desk.done("issue", "--tenant", "acme"), desk.access)[0]["kid"] == answer["kid"]


@pytest.mark.parametrize(
    ("access", "message"),
    [
        (None, "asks for no keys: add tiers and tenants"),
        ({**ACCESS, "keys": "opaque"}, "uses opaque keys"),
        ({**ACCESS, "tiers": {"Free": {}}}, 'access.tiers.Free: "Free" cannot name a tenant or tier'),
        ({**ACCESS, "revoked": "abcdefgh"}, "llm-platform:access.revoked"),
    ],
)
@pytest.mark.parametrize(
    "action", [("init",), ("issue", "--tenant", "acme"), ("revoke", "abcdefgh"), ("list",)]
)
def test_a_stack_without_usable_access_is_refused_with_the_reason(desk, access, message, action):
    desk.configure(access)
    assert message in desk.refused(*action)
    assert not desk.signing_key.exists()
    assert desk.ledger.entries == []


def test_something_wrong_elsewhere_in_the_configuration_does_not_stop_a_revocation(ready):
    key = ready.done("issue", "--tenant", "acme")
    identity = verified(key, ready.access)[1]["jti"]
    ready.configure(ready.access, models={"broken": {}}, cluster="nonsense")
    ready.done("revoke", identity)
    assert ready.access["revoked"] == [identity]


# -- issuing ---------------------------------------------------------------------------------------


def test_a_key_is_what_the_gateway_verifies_and_is_all_that_is_printed(ready, clock):
    code, out, err = ready.run("issue", "--tenant", "acme", "--note", "the batch job")
    assert code == cli.DONE
    key = out.removesuffix("\n")
    assert re.fullmatch(r"[\w-]+\.[\w-]+\.[\w-]{86}", key)
    assert key not in err
    header, claims = verified(key, ready.access)
    began = int(clock.now.timestamp())
    assert header == {"alg": "ES256", "typ": "JWT", "kid": ready.kid()}
    assert claims == {
        "iss": "llm-platform",
        "aud": audience(STACK, "llm-gateway", "llm-gateway"),
        "sub": "acme",
        "jti": claims["jti"],
        "iat": began,
        "exp": began + 30 * 86400,
    }
    assert len(decoded(claims["jti"])) == 16


def test_a_key_is_made_for_the_gateway_of_the_configuration(ready):
    ready.configure(ready.access, gateway={"namespace": "edge", "name": "door"})
    assert verified(ready.done("issue", "--tenant", "acme"), ready.access)[1]["aud"] == "dev/edge/door"


def test_the_ledger_knows_every_key_and_holds_none(ready):
    keys = [ready.done("issue", "--tenant", "acme", "--days", "7") for _ in range(3)]
    text = ready.ledger.path.read_text()
    entries = [json.loads(line) for line in text.splitlines()]
    for key, entry in zip(keys, entries[1:], strict=True):
        header, claims = verified(key, ready.access)
        assert (entry["event"], entry["jti"], entry["tenant"]) == ("issued", claims["jti"], "acme")
        assert entry["kid"] == header["kid"]
        assert datetime.fromisoformat(entry["exp"]).timestamp() == claims["exp"]
        assert "@" in entry["by"] and entry["at"].endswith("Z")
        assert not any(part in text for part in key.split(".")[1:])
    assert len({entry["jti"] for entry in entries[1:]}) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("--tenant", "acmee"),
            "no tenant 'acmee', so the gateway would answer 403 to the key: did you mean acme?",
        ),
        (("--tenant", "nobody"), "add it to llm-platform:access.tenants"),
        (("--tenant", 'a"]]\n'), "there is no tenant"),
        (("--tenant", "acme", "--days", "31"), "more than llm-platform:access.keyDays allows: 30"),
    ],
)
def test_a_key_that_would_be_refused_or_live_too_long_is_not_made(ready, arguments, message):
    assert message in ready.refused("issue", *arguments)
    assert ready.ledger.issued == {}


@pytest.mark.parametrize("days", ["0", "-1", "1.5", "367", "9" * 30, "١"])
def test_days_must_be_a_number_of_days(ready, days, capsys):
    with pytest.raises(SystemExit) as ended:
        ready.run("issue", "--tenant", "acme", f"--days={days}")
    assert ended.value.code == 2
    assert "is not a number of days from 1 to 366" in capsys.readouterr().err


def test_a_signer_whose_public_key_is_not_in_the_configuration_is_refused(ready):
    ready.change(publicKeys={})
    said = ready.refused("issue", "--tenant", "acme")
    assert "401 to every key that it signs" in said
    other = ready.home / "other.pem"
    ready.done("init", "--no-config", "--signer", f"file:{other}")
    assert "401" in ready.refused("issue", "--tenant", "acme", "--signer", f"file:{other}")
    assert ready.ledger.issued == {}


def test_a_stack_whose_ledger_is_lost_can_still_issue_with_the_signer_named(ready):
    ready.ledger.path.unlink()
    assert "run `python -m ops keys init`, or name the signer" in ready.refused("issue", "--tenant", "acme")
    key = ready.done("issue", "--tenant", "acme", "--signer", f"file:{ready.signing_key}")
    assert verified(key, ready.access)[1]["sub"] == "acme"


def test_a_key_that_no_gateway_knows_yet_comes_with_a_warning(desk):
    desk.done("init")
    assert "answers 401 until `pulumi up --stack dev` is done" in desk.run("issue", "--tenant", "acme")[2]
    desk.deploy()
    assert "warning" not in desk.run("issue", "--tenant", "acme")[2]


def test_a_signature_that_does_not_fit_is_never_handed_out(ready, monkeypatch):
    stranger = ec.generate_private_key(ec.SECP256R1())
    signature = stranger.sign(b"x", ec.ECDSA(hashes.SHA256()))
    monkeypatch.setattr("ops.keys.signers.FileSigner.sign", lambda *_: signature)
    assert "does not fit its public key" in ready.refused("issue", "--tenant", "acme")
    assert ready.ledger.issued == {}


def test_altering_a_key_makes_it_worthless(ready):
    head, claims, signature = ready.done("issue", "--tenant", "acme").split(".")
    other = tokens.encode(decoded(claims).replace(b"acme", b"umbr"))
    with pytest.raises(InvalidSignature):
        verified(f"{head}.{other}.{signature}", ready.access)


# -- listing ---------------------------------------------------------------------------------------


def test_list_says_what_the_gateway_makes_of_every_key(ready, clock):
    def issue(*arguments: str) -> str:
        return verified(ready.done("issue", "--tenant", *arguments), ready.access)[1]["jti"]

    valid, expired, revoked, moved = (
        issue("acme"),
        issue("acme", "--days", "1"),
        issue("acme"),
        issue("umbrella"),
    )
    ready.done("revoke", revoked)
    clock.sleep(days=2)
    ready.change(tenants={"acme": {"tier": "free"}})
    states = {k["id"]: k["state"] for k in json.loads(ready.done("list", "--all", "--json"))}
    assert states == {valid: "valid", expired: "expired", revoked: "revoked", moved: "unknown tenant"}
    shown = ready.done("list")
    assert valid in shown and moved in shown
    assert expired not in shown and revoked not in shown
    assert {k["id"] for k in json.loads(ready.done("list", "--all", "--json", "--tenant", "umbrella"))} == {
        moved
    }
    ready.change(publicKeys={})
    assert "signer gone" in ready.done("list")


def test_a_revocation_that_was_lost_from_the_configuration_is_shown(ready):
    identity = verified(ready.done("issue", "--tenant", "acme"), ready.access)[1]["jti"]
    ready.done("revoke", identity)
    ready.change(revoked=[])
    assert "VALID AGAIN" in ready.done("list")
    ready.done("revoke", identity)
    assert ready.access["revoked"] == [identity]
    assert [e["event"] for e in ready.ledger.entries].count("revoked") == 1


# -- revoking --------------------------------------------------------------------------------------


@pytest.fixture
def issued(ready) -> list[str]:
    """Ids of four keys."""
    return [verified(ready.done("issue", "--tenant", "acme"), ready.access)[1]["jti"] for _ in range(4)]


def test_revoking_ends_in_one_targeted_up_of_one_object(ready, issued):
    _, out, err = ready.run("revoke", issued[1], issued[3], issued[1])
    assert ready.access["revoked"] == [issued[1], issued[3]]
    assert ready.ledger.revoked == {issued[1], issued[3]}
    (up,) = ready.ups
    assert up == ["up", "--stack", STACK, "--yes", "--skip-preview", "--target", TABLES_URN]
    found = re.search(r"ended at (\S+); the gateways refuse the keys by (\S+)", err)
    ended, latest = map(datetime.fromisoformat, found.groups())
    assert latest - ended == timedelta(seconds=10)
    assert out == ""


def test_an_id_that_was_never_issued_is_refused_with_the_nearest(ready, issued):
    wrong = issued[2][:-1] + ("x" if issued[2][-1] != "x" else "y")
    said = ready.refused("revoke", issued[0], wrong)
    assert f"did you mean {issued[2]}?" in said
    assert "list --all" in ready.refused("revoke", "acme")
    assert "revoked" not in ready.access
    assert (ready.ledger.revoked, ready.ups) == (frozenset(), [])


def test_without_up_the_command_is_printed_and_nothing_deployed(ready, issued):
    printed = ready.done("revoke", "--no-up", issued[0])
    assert printed == f"pulumi up --stack {STACK} --yes --skip-preview --target {TABLES_URN}"
    assert (ready.access["revoked"], ready.ups) == ([issued[0]], [])


def test_expired_ids_leave_the_list_when_the_next_key_is_revoked(ready, issued, clock):
    """The list stays short; a clock that is slow by less than a day never brings a key back."""
    ready.done("revoke", *issued[:3])
    clock.sleep(days=29)
    late = verified(ready.done("issue", "--tenant", "acme"), ready.access)[1]["jti"]
    clock.sleep(days=1, hours=23)
    foreign = "a-foreign-id"
    ready.change(revoked=[*issued[:3], foreign])
    ready.done("revoke", late)
    assert ready.access["revoked"] == [*issued[:3], foreign, late]
    clock.sleep(hours=2)
    ready.done("revoke", late)
    assert ready.access["revoked"] == [foreign, late]


def test_at_no_moment_does_shortening_the_list_lose_an_id(ready, issued, clock):
    ready.done("revoke", *issued[:3])
    clock.sleep(days=32)
    late = [verified(ready.done("issue", "--tenant", "acme"), ready.access)[1]["jti"] for _ in range(2)]
    ready.change(revoked=[*issued[:3], late[0]])
    begun = len(ready.calls)
    ready.done("revoke", late[1])
    steps = [
        c["argv"][2] for c in ready.calls[begun:] if c["argv"][1] == "config" and c["argv"][2] != "--stack"
    ]
    assert steps == ["set-all", "rm", "rm"]
    assert ready.access["revoked"] == late


def test_a_failed_up_is_no_success_and_can_be_repeated(ready, issued, monkeypatch):
    monkeypatch.setenv("FAKE_UP_STATUS", "255")
    assert "still accepts the keys" in ready.refused("revoke", issued[0])
    monkeypatch.delenv("FAKE_UP_STATUS")
    ready.done("revoke", issued[0])
    assert ready.access["revoked"] == [issued[0]]
    assert len(ready.ups) == 2


def test_where_the_cli_cannot_run_the_program_another_command_brings_it_up(
    ready, issued, monkeypatch, tmp_path
):
    seen = tmp_path / "seen"
    script = tmp_path / "up it"
    script.write_text(f'#!/bin/sh\necho "$@" > {seen}\n')
    script.chmod(0o755)
    monkeypatch.setenv("LLMP_UP_COMMAND", f"'{script}' up dev")
    ready.done("revoke", issued[0])
    assert seen.read_text().split() == ["up", "dev", "--target", TABLES_URN]
    assert ready.ups == []
    monkeypatch.setenv("LLMP_UP_COMMAND", "/nowhere/up")
    assert "`/nowhere/up --target" in ready.refused("revoke", issued[0])


@pytest.mark.parametrize(("deployed", "code"), [((), cli.DONE), (("filters",), cli.UNDECIDED)])
def test_without_tables_in_the_state_the_whole_up_is_asked_for(ready, issued, deployed, code):
    ready.deploy(*deployed) if deployed else (ready.home / "state.json").write_text('{"deployment": {}}')
    found, _, err = ready.run("revoke", issued[0])
    assert (found, ready.ups) == (code, [])
    assert "`pulumi up --stack dev` makes this effective" in err


def test_two_revocations_at_a_time_do_not_lose_each_other(ready, issued, capsys):
    def revoke(identity: str) -> None:
        cli.main(["keys", "revoke", "--stack", STACK, "--project", str(ready.project), identity])

    threads = [threading.Thread(target=revoke, args=(identity,)) for identity in issued]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(ready.access["revoked"]) == sorted(issued)
    assert ready.ledger.revoked == set(issued)


# -- rotating --------------------------------------------------------------------------------------


def test_rotation_keeps_old_keys_valid_and_signs_new_ones_with_the_new_key(ready):
    old_kid, old = ready.kid(), ready.done("issue", "--tenant", "acme")
    first = ready.signing_key.read_bytes()
    ready.done("rotate")
    assert len(ready.access["publicKeys"]) == 2
    assert ready.signing_key.read_bytes() == first
    new = ready.done("issue", "--tenant", "acme")
    assert verified(old, ready.access)[0]["kid"] == old_kid
    assert verified(new, ready.access)[0]["kid"] == ready.kid() != old_kid


def test_a_rotation_ends_only_when_nobody_is_left_or_by_force(ready, clock):
    old = ready.kid()
    assert "run `python -m ops keys rotate --stack dev` first" in ready.refused("rotate", f"--finish={old}")
    for _ in range(2):
        ready.done("issue", "--tenant", "acme", "--days", "2")
    ready.done("rotate")
    said = ready.refused("rotate", f"--finish={old}")
    assert "2 keys signed by" in said and "2026-01-03T12:00:00Z" in said
    assert "is what keys are signed with" in ready.refused("rotate", f"--finish={ready.kid()}")
    assert "no signing key nonsense" in ready.refused("rotate", "--finish=nonsense")
    _, _, err = ready.run("rotate", f"--finish={old}", "--force")
    assert "2 keys end with it" in err
    assert list(ready.access["publicKeys"]) == [ready.kid()] != [old]


def test_expired_and_revoked_keys_do_not_hold_a_rotation_up(ready, clock):
    old = ready.kid()
    ready.done("issue", "--tenant", "acme", "--days", "1")
    revoked = verified(ready.done("issue", "--tenant", "acme"), ready.access)[1]["jti"]
    ready.done("revoke", revoked)
    ready.done("rotate")
    clock.sleep(days=2)
    ready.done("rotate", f"--finish={old}")
    assert old not in ready.access["publicKeys"]


def test_the_same_key_is_not_published_twice(ready):
    said = ready.refused("rotate", "--signer", f"file:{ready.signing_key}", "--existing")
    assert "already has" in said
    said = ready.refused("rotate", "--kid", ready.kid())
    assert "already has" in said and "--existing" in said
    assert len(ready.access["publicKeys"]) == 1


def test_rotation_before_there_is_a_key_names_init(desk):
    assert "keys init" in desk.refused("rotate")


# -- the ledger ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        "<<<<<<< HEAD",
        "[]",
        '"issued"',
        '{"event": "sold"}',
        '{"event": "issued", "jti": "a", "tenant": "b", "kid": "c", "exp": 5, "at": "2026-01-01T00:00:00Z"}',
        '{"event": "issued", "jti": "a", "tenant": "b", "kid": "c", "exp": "2026-01-01", "at": "2026-01-01T00:00:00Z"}',
        '{"event": "revoked"}',
        "[" * 100_000,
    ],
)
def test_a_ledger_that_cannot_be_read_stops_everything_and_names_the_line(ready, line):
    with ready.ledger.path.open("a") as file:
        file.write(line + "\n")
    for action in (("issue", "--tenant", "acme"), ("list",), ("revoke", "abcdefgh")):
        assert "line 2 of" in ready.refused(*action)


def test_a_write_that_was_cut_short_does_not_swallow_the_next_entry(ready):
    with ready.ledger.path.open("a") as file:
        file.write('{"event": "revoked", "jti": "ab')
    ready.ledger.append("revoked", jti="complete")
    lines = ready.ledger.path.read_text().splitlines()
    assert json.loads(lines[-1])["jti"] == "complete"


def test_notes_are_one_line(ready, capsys):
    for note in ("two\nlines", "x" * 201, "\x1b[31m"):
        with pytest.raises(SystemExit):
            ready.run("issue", "--tenant", "acme", "--note", note)
    assert "one line of at most 200 characters" in capsys.readouterr().err


def test_a_project_that_does_not_exist_is_named_and_not_made(desk, capsys):
    nowhere = desk.home / "nowhere"
    for more in ((), ("--no-config", "--signer", f"file:{desk.home}/k.pem")):
        assert cli.main(["keys", "init", "--stack", STACK, "--project", str(nowhere), *more]) == cli.FAILED
        assert "--project" in capsys.readouterr().err
    assert not nowhere.exists()


# -- the private key -------------------------------------------------------------------------------


def test_the_private_key_is_nowhere_but_in_its_file(ready, monkeypatch):
    """Every command runs; afterwards everything written, passed on or printed is searched for the key."""
    key = ready.done("issue", "--tenant", "acme", "--note", "n")
    identity = verified(key, ready.access)[1]["jti"]
    ready.done("rotate")
    issued = ready.done("issue", "--tenant", "umbrella")
    ready.done("list", "--all")
    ready.done("revoke", identity)
    ready.refused("rotate", "--signer", f"file:{ready.signing_key}")
    ready.done("rotate", f"--finish={next(iter(ready.access['publicKeys']))}", "--force")
    files = list(ready.signing_key.parent.iterdir())
    assert len(files) == 2
    needles = [needle for file in files for needle in _forms(file)]
    elsewhere = [p for p in ready.home.parent.rglob("*") if p.is_file() and p not in files]
    assert ready.home / "calls.jsonl" in elsewhere and ready.ledger.path in elsewhere
    haystacks = [*(path.read_text(errors="replace") for path in elsewhere), *ready.shown]
    assert not [text for text in haystacks for needle in needles if needle in text]
    # Nor are the issued keys anywhere but in what was printed for them.
    signatures = [k.rsplit(".", 1)[1] for k in (key, issued)]
    assert not [p for p in elsewhere for s in signatures if s in p.read_text(errors="replace")]


def _forms(file: Path) -> list[str]:
    """How a private key could show up: lines of the file, and the number itself as hex, decimal and base64url."""
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    secret = load_pem_private_key(file.read_bytes(), None).private_numbers().private_value
    raw = secret.to_bytes(32, "big")
    lines = [line for line in file.read_text().splitlines() if "-----" not in line]
    return [*lines, raw.hex(), str(secret), tokens.encode(raw), base64.b64encode(raw).decode(), "PRIVATE KEY"]


def test_an_error_of_the_cli_is_passed_on(ready):
    (ready.home / "config.json").write_text("broken")
    assert "`pulumi config --stack dev --json` failed: Traceback" in ready.refused("list")
