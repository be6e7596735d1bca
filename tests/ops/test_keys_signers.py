"""Where private keys are: files that only their owner reads, and clouds' KMS through their command lines."""

from __future__ import annotations

import base64
import json
import os
import runpy
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from ops.errors import OpsError
from ops.keys import signers, tokens
from ops.keys.signers import FileSigner

FAKES = runpy.run_path(str(Path(__file__).with_name("keys_fakes.py")))
GCP = "gcpkms:projects/p/locations/europe-west4/keyRings/llm/cryptoKeys/keys/cryptoKeyVersions/3"
ARN = "awskms:arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
CLOUDS = [GCP, ARN, "awskms:alias/llm-keys", "awskms:1234abcd-12ab-34cd-56ef-1234567890ab"]


def pem(key, encryption=None) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption())


@pytest.fixture
def file(tmp_path) -> Path:
    return tmp_path / "deep" / "er" / "key.pem"


@pytest.fixture
def kms(tmp_path, monkeypatch):
    """A key that only the fake clouds hold; what they were asked."""
    binaries = tmp_path / "bin"
    binaries.mkdir()
    FAKES["install"](binaries)
    key = ec.generate_private_key(ec.SECP256R1())
    (tmp_path / "kms.pem").write_bytes(pem(key))
    monkeypatch.setenv("PATH", f"{binaries}:/usr/bin:/bin")
    monkeypatch.setenv("FAKES_HOME", str(tmp_path))
    return key


def calls(tmp_path: Path) -> list[dict]:
    return [json.loads(line) for line in (tmp_path / "calls.jsonl").read_text().splitlines()]


# -- files -----------------------------------------------------------------------------------------


def test_a_made_file_signs_what_its_public_half_verifies(file):
    signer = FileSigner.parse(str(file))
    signer.create()
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.read_text().startswith("-----BEGIN PRIVATE KEY-----")
    assert {d.stat().st_mode & 0o777 for d in (file.parent, file.parent.parent)} == {0o700}
    signer.public().verify(signer.sign(b"text"), b"text", ec.ECDSA(hashes.SHA256()))


def test_a_file_is_private_whatever_the_umask(file):
    before = os.umask(0)
    try:
        FileSigner(file).create()
    finally:
        os.umask(before)
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("there", ["file", "link", "dangling"])
def test_nothing_is_ever_overwritten(tmp_path, there):
    file, target = tmp_path / "key.pem", tmp_path / "target"
    if there != "dangling":
        target.write_text("precious")
    file.write_text("precious") if there == "file" else file.symlink_to(target)
    with pytest.raises(OpsError, match="exists, and is never overwritten"):
        FileSigner(file).create()
    assert not target.exists() if there == "dangling" else target.read_text() == "precious"


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660, 0o601])
def test_a_file_that_others_can_read_is_refused(file, mode):
    FileSigner(file).create()
    file.chmod(mode)
    for use in (FileSigner(file).public, lambda: FileSigner(file).sign(b"")):
        with pytest.raises(OpsError, match=f"can be read by others .mode {mode:04o}.*chmod 600"):
            use()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"nonsense",
        pem(ec.generate_private_key(ec.SECP256R1()), BestAvailableEncryption(b"x")),
        pem(rsa.generate_private_key(65537, 2048)),
        pem(ec.generate_private_key(ec.SECP384R1())),
    ],
)
def test_a_file_that_holds_no_usable_key_is_named_without_its_content(tmp_path, content):
    file = tmp_path / "key.pem"
    file.touch(0o600)
    file.write_bytes(content)
    with pytest.raises(
        OpsError, match=r"key\.pem holds no|of type secp384r1, but the gateway verifies ES256"
    ) as refused:
        tokens.jwk_of(FileSigner(file).public())
    assert not any(line in str(refused.value) for line in content.decode().splitlines() if line)


def test_a_missing_file_names_what_to_do(tmp_path):
    with pytest.raises(OpsError, match="cannot be read .No such file.*--signer.*rotate"):
        FileSigner(tmp_path / "gone.pem").public()
    with pytest.raises(OpsError, match="is not a file|cannot be read"):
        FileSigner(tmp_path).public()


def test_a_key_in_a_work_tree_must_be_ignored_there(tmp_path):
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    (tmp_path / ".gitignore").write_text("/.rehearsal/\n")
    for name in ("key.pem", "keys/key.pem", ".rehearsal/../key.pem"):
        with pytest.raises(OpsError, match="a private key must never be committed"):
            FileSigner(tmp_path / name).create()
    assert sorted(p.name for p in tmp_path.iterdir()) == [".git", ".gitignore"]
    FileSigner(tmp_path / ".rehearsal/keys/dev.pem").create()


def test_a_link_into_a_work_tree_is_seen_through(tmp_path):
    tree = tmp_path / "tree"
    subprocess.run(["git", "init", "--quiet", str(tree)], check=True)
    (tmp_path / "elsewhere").symlink_to(tree)
    with pytest.raises(OpsError, match="must never be committed"):
        FileSigner(tmp_path / "elsewhere" / "key.pem").create()


def test_without_git_a_work_tree_is_refused_whole(tmp_path, monkeypatch):
    (tmp_path / ".git").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(OpsError, match="must never be committed"):
        FileSigner(tmp_path / "key.pem").create()


def test_a_reference_means_the_same_in_everybodys_home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    reference = FileSigner.parse("~/keys/dev.pem").reference
    assert reference == "file:~/keys/dev.pem"
    monkeypatch.setenv("HOME", "/somebody/else")
    assert signers.parse(reference).path == Path("/somebody/else/keys/dev.pem")


# -- clouds ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("reference", CLOUDS)
def test_a_kms_signs_what_its_public_half_verifies(kms, reference):
    signer = signers.parse(reference)
    assert signer.reference == reference
    assert tokens.jwk_of(signer.public()) == tokens.jwk_of(kms.public_key())
    key = tokens.issue({"sub": "acme"}, "kid", signer.public(), signer.sign)
    assert len(base64.urlsafe_b64decode(key.rsplit(".", 1)[1] + "==")) == 64


def test_the_clouds_are_asked_for_exactly_the_key_that_was_named(kms, tmp_path):
    for reference in (GCP, ARN):
        signers.parse(reference).public()
    google, amazon = (c["argv"][1:] for c in calls(tmp_path))
    assert google == [
        *("kms", "keys", "versions", "get-public-key", "3"),
        *("--project=p", "--location=europe-west4", "--keyring=llm", "--key=keys"),
    ]
    assert amazon == [
        *("kms", "get-public-key", f"--key-id={ARN.removeprefix('awskms:')}"),
        *("--output=json", "--region=eu-central-1"),
    ]


@pytest.mark.parametrize("reference", [GCP, ARN])
def test_what_is_signed_never_stands_in_arguments_or_environment(kms, tmp_path, reference):
    signers.parse(reference).sign(b"header.claims-of-a-key")
    (call,) = calls(tmp_path)
    assert "claims-of-a-key" not in json.dumps([call["argv"], call["environment"]])


def test_a_base64_signature_is_understood_as_well(kms, monkeypatch):
    signature = kms.sign(b"m", ec.ECDSA(hashes.SHA256()))
    monkeypatch.setattr(signers, "_run", lambda *_: base64.encodebytes(signature))
    assert signers.parse(GCP).sign(b"m") == signature


@pytest.mark.parametrize(("reference", "program"), [(GCP, "gcloud"), (ARN, "aws")])
def test_what_a_cloud_refuses_is_passed_on(kms, monkeypatch, reference, program):
    monkeypatch.setenv("FAKE_KMS_ERROR", "PERMISSION_DENIED: cloudkms.cryptoKeyVersions.useToSign")
    for use in (signers.parse(reference).public, lambda: signers.parse(reference).sign(b"")):
        with pytest.raises(OpsError, match=rf"`{program} kms .* failed:\nPERMISSION_DENIED"):
            use()


@pytest.mark.parametrize(("reference", "program"), [(GCP, "gcloud"), (ARN, "aws")])
def test_a_missing_command_line_is_named_with_where_to_get_it(monkeypatch, tmp_path, reference, program):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(OpsError, match=f"no `{program}` on PATH.*install it .https://"):
        signers.parse(reference).public()


@pytest.mark.parametrize("reference", [GCP, ARN])
@pytest.mark.parametrize(
    "answer", [b"", b"[]", b"{}", b"\xff\xfe", b'{"PublicKey": 5, "Signature": []}', b"<html>"]
)
def test_nonsense_from_a_cloud_is_refused(monkeypatch, reference, answer):
    monkeypatch.setattr(signers, "_run", lambda *_: answer)
    signer = signers.parse(reference)
    with pytest.raises(OpsError):
        tokens.jwk_of(signer.public())
    with pytest.raises(OpsError):
        tokens.issue({}, "kid", ec.generate_private_key(ec.SECP256R1()).public_key(), signer.sign)


def test_a_cloud_that_does_not_answer_is_given_up(kms, monkeypatch):
    def late(*_, **options):
        raise subprocess.TimeoutExpired("aws", options["timeout"])

    monkeypatch.setattr(signers.subprocess, "run", late)
    with pytest.raises(OpsError, match="no answer for 60 s"):
        signers.parse(ARN).public()


@pytest.mark.parametrize(
    "reference",
    [
        "",
        "key.pem",
        "/key.pem",
        "file:",
        "vault:x",
        "gcpkms:projects/p/locations/l/keyRings/r/cryptoKeys/k",
        "gcpkms:" + GCP,
        "gcpkms:projects/p/locations/l/keyRings/r/cryptoKeys/k/cryptoKeyVersions/x",
        "awskms:",
        "awskms:a b",
        "awskms:fileb://etc/passwd;x",
    ],
)
def test_what_is_no_signer_is_refused_with_the_forms_that_are(reference):
    with pytest.raises(OpsError, match="write "):
        signers.parse(reference)
