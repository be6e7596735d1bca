"""The way in: the Gateway's address, its name, its certificate, and what plain HTTP gets."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Collection, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from ops.kube import Manifest
from ops.status import judge
from ops.verify.bench import Bench
from ops.verify.client import Answer, Client, Door, certificate
from ops.verify.verdicts import Result, Verdict, failed, inapplicable, passed, unchecked

GATEWAY = "gateway.networking.k8s.io/v1", "Gateway"
SUBJECT = "gateway"
VITAL = ("certificate", "answers")
"""Checks without which nothing else can be asked for, and no key may be sent."""
_SHORT = timedelta(days=7)
"""What a certificate should have left: cert-manager renews a month before the end."""


def look(bench: Bench) -> Iterator[Result]:
    """Everything about the way in, in the order in which a client meets it."""
    gateway = bench.config.gateway
    yield Result(SUBJECT, "programmed", judge_gateway(_gateway(bench)))
    door = bench.gateway.door
    yield Result(SUBJECT, "name", _name(bench, door))
    if gateway.encrypted:
        yield Result(SUBJECT, "certificate", _certificate(door, gateway.exposure == "public"))
        yield Result(SUBJECT, "redirect", _redirect(bench.plain, door))
    else:
        yield Result(SUBJECT, "certificate", inapplicable("the gateway speaks plain HTTP, as configured"))
    answer = bench.gateway.ask("GET", "/v1/models")
    yield Result(SUBJECT, "answers", judge_answer(answer, door, gateway.exposure == "public"))


def _gateway(bench: Bench) -> Manifest | None:
    gateway = bench.config.gateway
    return bench.cluster.get(*GATEWAY, gateway.name, gateway.namespace)


def judge_gateway(live: Manifest | None) -> Verdict:
    """Whether the Gateway's own status says that it works."""
    if live is None:
        return failed("there is no Gateway", "run `pulumi up`")
    problems = judge.problems(live)
    found = ", ".join(addresses(live))
    if problems:
        return failed("; ".join(problems), "`python -m ops status` says what it waits for")
    return passed(f"Accepted and Programmed, at {found}") if found else failed(
        "it is Programmed but has no address", "look at the events of its Service: is there a load balancer?"
    )  # fmt: skip


def addresses(live: Manifest | None) -> list[str]:
    """The addresses that a Gateway's status names."""
    return [a["value"] for a in ((live or {}).get("status") or {}).get("addresses") or ()]


def _name(bench: Bench, door: Door) -> Verdict:
    if bench.config.gateway.host is None:
        return inapplicable("no host name is configured")
    if bench.elsewhere:
        return inapplicable(f"asked at {door.where}, as you said; DNS is not used")
    return judge_name(door.host, resolved(door.host), resolved(door.address))


def resolved(name: str) -> set[str]:
    """The IP addresses of a name, or of an address itself; none where DNS has none."""
    try:
        return {str(found[4][0]) for found in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)}
    except OSError:
        return set()


def judge_name(host: str, found: Collection[str], wanted: Collection[str]) -> Verdict:
    """Whether DNS leads clients to the gateway."""
    at = ", ".join(sorted(wanted))
    fix = f"point the name at {at} (A record, or CNAME where that is a name)"
    if not found:
        return unchecked(f"{host} has no address in DNS yet; asked at {at} instead", fix)
    if not set(found) & set(wanted):
        return failed(f"{host} is at {', '.join(sorted(found))}, the gateway at {at}", fix)
    return passed(f"{host} is at {', '.join(sorted(found))}")


def _certificate(door: Door, public: bool) -> Verdict:
    try:
        return judge_certificate(certificate(door), datetime.now(UTC), door.host)
    except ssl.SSLCertVerificationError as error:
        return failed(
            f"not valid for {door.host}: {error.verify_message or error.reason}",
            "look at the Certificate (`kubectl describe certificate -A`); an authority of your own is named with --ca. "
            "No key is sent to a gateway that cannot prove its name",
        )
    except ssl.SSLError as error:
        return failed(
            f"{door.where} shows none: {error.reason}", "look whether the Secret of the listener exists"
        )
    except OSError as error:
        return unreachable(door, str(error), public)


def judge_certificate(shown: Mapping[str, Any], now: datetime, host: str) -> Verdict:
    """How long a certificate that was verified still lasts."""
    ends = datetime.fromtimestamp(ssl.cert_time_to_seconds(shown["notAfter"]), UTC)
    issuer = {key: value for part in shown.get("issuer") or () for key, value in part}
    by = issuer.get("organizationName") or issuer.get("commonName") or "an unnamed authority"
    said = f"valid for {host}, by {by}, {(ends - now).days} days left"
    if ends - now < _SHORT:
        return failed(said, "it should have been renewed: look at the Certificate's conditions")
    return passed(said)


def _redirect(plain: Client | None, door: Door) -> Verdict:
    if plain is None:
        return unchecked(
            "where the HTTP listener answers is not known", f"name it with --connect-to {door.host}:80:…"
        )
    return judge_redirect(plain.ask("GET", "/v1/models"), door.host)


def judge_redirect(answer: Answer, host: str) -> Verdict:
    """Whether plain HTTP is sent to HTTPS."""
    target = answer.headers.get("location", "")
    if answer.status in (301, 308) and target.startswith(f"https://{host}"):
        return passed(f"HTTP {answer.status} to https://{host}")
    return failed(
        f"plain HTTP gets {answer}" + (f" to {target}" if target else ""),
        "keys would travel in the clear: look at the HTTPRoute of the redirect",
    )


def judge_answer(answer: Answer, door: Door, public: bool) -> Verdict:
    """Whether anybody answers at all; what, is for other checks."""
    if answer.status >= 500:
        return failed(f"{door.where}: {answer}", "`python -m ops status` says what is not ready")
    if answer.status:
        return passed(f"HTTP {answer.status} after {answer.seconds * 1000:.0f} ms at {door.where}")
    return unreachable(door, answer.error, public)


def unreachable(door: Door, why: str, public: bool) -> Verdict:
    """Nobody answers at the gateway's address: wrong where everybody should be able to ask."""
    if public:
        return failed(f"{door.where}: {why}", "look at the load balancer and its firewall rules")
    return unchecked(
        f"the gateway is internal, and {door.where} cannot be reached from here ({why})",
        "run it inside the network, or forward a port (`kubectl port-forward`) and name it with --connect-to",
    )
