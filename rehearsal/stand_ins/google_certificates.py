"""Stands in for the certificates that Certificate Manager keeps: no key of theirs ever leaves Google.

An authority of the rehearsal signs them, as a public one would.
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from rehearsal.cluster import certificates
from rehearsal.cluster.certificates import KeyPair

# No certificate can have this name, which has a dot.
AUTHORITY = "public.authority"


def directory(root: Path) -> Path:
    """Where a rehearsal keeps them."""
    return root / "cloud" / "certificates"


def authority_file(root: Path) -> Path:
    """What proves them to clients here."""
    return directory(root) / f"{AUTHORITY}.crt"


def ensure(place: Path, name: str, domains: tuple[str, ...]) -> None:
    """Issue a certificate for some names unless it is there; a name serves as the common name."""
    if (place / f"{name}.crt").exists():
        return
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not (place / f"{AUTHORITY}.crt").exists():
        _write(place, AUTHORITY, certificates.authority("Simulated public authority"))
    authority = KeyPair(*((place / f"{AUTHORITY}.{part}").read_bytes() for part in ("crt", "key")))
    _write(place, name, certificates.issue(authority, (*domains, name)[0], names=domains))


def secret(place: Path, name: str) -> dict[str, Any]:
    """A certificate as a Secret would hold it."""
    pair = {part: (place / f"{name}.{part}").read_bytes() for part in ("crt", "key")}
    return {"data": {f"tls.{part}": base64.b64encode(content).decode() for part, content in pair.items()}}


def _write(place: Path, name: str, pair: KeyPair) -> None:
    # The certificate last: it says that both are there.
    for part, content in (("key", pair.key), ("crt", pair.certificate)):
        file = place / f"{name}.{part}"
        file.touch(mode=0o600)
        file.write_bytes(content)
