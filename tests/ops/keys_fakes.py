"""Programs on PATH for tests of keys: a CLI with just what they use, and two clouds' that sign with a local key.

Each is started as a program, and writes down its arguments, its environment
and, where it reads one, its input.
"""

from __future__ import annotations

import base64
import json
import os
import re
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

HOME = Path(os.environ.get("FAKES_HOME", "."))
"""Where a fake keeps what it knows; the tests set the variable."""


def record(program: str, given: bytes = b"") -> None:
    entry = {
        "program": program,
        "argv": sys.argv,
        "environment": dict(os.environ),
        "input": given.decode("latin-1"),
    }
    with (HOME / "calls.jsonl").open("a") as file:
        file.write(json.dumps(entry) + "\n")


def pulumi() -> int:
    """`config --json|set-all|rm`, `stack export` and `up`, over config.json and state.json."""
    record("pulumi")
    words = [a for a in sys.argv[1:] if a not in ("--non-interactive", "--color", "never")]
    config_file = HOME / "config.json"
    config = json.loads(config_file.read_text())
    if words[:2] == ["config", "set-all"]:
        for place, value in (a.split("=", 1) for a in words if "=" in a):
            _set(config, _steps(place), int(value) if value.isdigit() else value)
        config_file.write_text(json.dumps(config))
    elif words[:2] == ["config", "rm"]:
        *steps, last = _steps(words[-1])
        container = config
        for step in steps:
            container = container[step]
        del container[last]
        config_file.write_text(json.dumps(config))
    elif words[0] == "config":
        print(json.dumps({k: {"value": json.dumps(v), "secret": False} for k, v in config.items()}))
    elif words[0] == "stack":
        print((HOME / "state.json").read_text())
    elif words[0] == "up":
        print("updating")
        return int(os.environ.get("FAKE_UP_STATUS", "0"))
    return 0


def _steps(place: str) -> list[str | int]:
    """`project:a.b[0]` as the CLI takes it apart."""
    return [
        int(part[1:-1]) if part.startswith("[") else part for part in re.findall(r"\[\d+\]|[^.\[\]]+", place)
    ]


def _set(container: Any, steps: list[str | int], value: Any) -> None:
    for step, following in pairwise(steps):
        container = container.setdefault(step, [] if isinstance(following, int) else {})
    if isinstance(container, list) and steps[-1] == len(container):
        container.append(value)
    else:
        container[steps[-1]] = value


def _kms() -> Any:
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    return load_pem_private_key((HOME / "kms.pem").read_bytes(), None)


def _flag(name: str) -> str:
    return next(a.split("=", 1)[1] for a in sys.argv if a.startswith(f"--{name}="))


def gcloud() -> int:
    """`kms asymmetric-sign` and `kms keys versions get-public-key`."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    signing = "asymmetric-sign" in sys.argv
    given = Path(_flag("input-file")).read_bytes() if signing else b""
    record("gcloud", given)
    _fail_if_asked()
    if signing:
        assert _flag("digest-algorithm") == "sha256" and _flag("signature-file") == "-"
        sys.stdout.buffer.write(_kms().sign(given, ec.ECDSA(hashes.SHA256())))
    else:
        public = _kms().public_key()
        sys.stdout.buffer.write(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return 0


def aws() -> int:
    """`kms sign` of a digest and `kms get-public-key`."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    signing = sys.argv[2] == "sign"
    given = Path(_flag("message").removeprefix("fileb://")).read_bytes() if signing else b""
    record("aws", given)
    _fail_if_asked()
    if signing:
        assert (_flag("message-type"), _flag("signing-algorithm")) == ("DIGEST", "ECDSA_SHA_256")
        signature = _kms().sign(given, ec.ECDSA(Prehashed(hashes.SHA256())))
        answer = {"Signature": base64.b64encode(signature).decode()}
    else:
        public = _kms().public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        answer = {"PublicKey": base64.b64encode(public).decode(), "KeySpec": "ECC_NIST_P256"}
    print(json.dumps(answer))
    return 0


def _fail_if_asked() -> None:
    if message := os.environ.get("FAKE_KMS_ERROR"):
        print(message, file=sys.stderr)
        sys.exit(1)


PROGRAMS = {"pulumi": pulumi, "gcloud": gcloud, "aws": aws}


def install(directory: Path) -> None:
    """Put a launcher of each program into a directory."""
    for name in PROGRAMS:
        lines = (
            # Without site-packages a start takes half the time; only what signs needs them.
            f"#!{sys.executable}" + (" -SE" if name == "pulumi" else ""),
            "import sys",
            f"sys.path.insert(0, {str(Path(__file__).parent)!r})",
            "import keys_fakes",
            f"sys.exit(keys_fakes.PROGRAMS[{name!r}]())",
        )
        launcher = directory / name
        launcher.write_text("\n".join(lines) + "\n")
        launcher.chmod(0o755)
