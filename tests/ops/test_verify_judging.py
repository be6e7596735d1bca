"""`python -m ops verify`: what each observation means, where the gateway is looked for, and what is left behind."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
import threading
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from ops import cli
from ops.errors import OpsError
from ops.google import Backend
from ops.kube import ApiError
from ops.state import State
from ops.verify import access, address, backends, checks, command, cost, doors, isolation, models, operators
from ops.verify.bench import Bench, Wishes
from ops.verify.client import Answer, Client, Door, Stream, certificate
from ops.verify.isolation import Aim, Attempt, Reached
from ops.verify.passes import Passes, identity
from ops.verify.routing import Sent, judge
from ops.verify.verdicts import Outcome, Result, Verdict, exit_code, failed, inapplicable, passed, unchecked
from rehearsal import toolchain
from rehearsal.cluster import certificates
from stacks.config import load_config
from tests.support.stacks import raw_stack

PASSED, FAILED, UNCHECKED, INAPPLICABLE = Outcome
NOW = datetime(2026, 6, 1, tzinfo=UTC)


def bench_of(stack: str = "dev", **changes: Any) -> Bench:
    config = load_config(raw_stack(stack))
    return Bench(**{"config": config, "passes": Passes("a/b/c"), "say": lambda text: None, **changes})


# -- what all of it means -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("verdicts", "code"),
    [
        ([passed("x"), inapplicable("y")], cli.DONE),
        ([passed("x"), unchecked("y", "z")], cli.UNDECIDED),
        ([unchecked("y", "z"), failed("x", "z"), passed("x")], cli.FAILED),
    ],
)
def test_the_worst_verdict_decides_the_exit_code(verdicts: list[Verdict], code: int) -> None:
    assert exit_code([Result("a", "b", verdict) for verdict in verdicts]) == code


def test_what_rests_on_a_gateway_that_does_not_answer_is_not_asked() -> None:
    door = Door(scheme="http", host="127.0.0.1", address="127.0.0.1", port=closed_port())
    answers = {"get": GATEWAY, "list": [], "kind": None, "create": None}
    kube = SimpleNamespace(
        **{name: lambda *_, _answer=answer, **__: _answer for name, answer in answers.items()}
    )
    found = list(checks.results(bench_of(client=Client(door), kube=kube)))
    by_group = {r.subject: r.verdict.outcome for r in found}
    assert {by_group[group] for group in ("models", "throughput", "keys", "tiers")} == {UNCHECKED}
    assert exit_code(found) != cli.DONE


def test_without_a_cluster_everything_that_needs_one_says_so() -> None:
    found = list(checks.results(bench_of(lacking="the cluster is away"), operators_only=True))
    assert [(r.subject, r.verdict.outcome) for r in found] == [("operators", UNCHECKED)]
    assert "the cluster is away" in found[0].verdict.evidence


def test_the_table_and_the_json_say_how_to_put_things_right() -> None:
    found = [Result("model m", "chat", failed("HTTP 500", "look at its log"))]
    assert "HTTP 500 -> look at its log" in command.as_table(found)
    (row,) = command.as_json("dev", found)["checks"]
    assert (row["outcome"], row["fix"]) == ("failed", "look at its log")


# -- the way in -----------------------------------------------------------------------------------------------------

GATEWAY = {
    "kind": "Gateway",
    "metadata": {"name": "g"},
    "status": {
        "addresses": [{"value": "192.0.2.7"}],
        "conditions": [{"type": "Accepted", "status": "True"}, {"type": "Programmed", "status": "True"}],
    },
}


def test_a_gateway_must_be_programmed_and_have_an_address() -> None:
    assert address.judge_gateway(GATEWAY).outcome is PASSED
    assert address.judge_gateway(None).outcome is FAILED
    bare = {**GATEWAY, "status": {**GATEWAY["status"], "addresses": []}}
    waiting = {**GATEWAY, "status": {"conditions": []}}
    assert {address.judge_gateway(live).outcome for live in (bare, waiting)} == {FAILED}


@pytest.mark.parametrize(
    ("found", "outcome"), [({"192.0.2.7"}, PASSED), ({"192.0.2.8"}, FAILED), (set(), UNCHECKED)]
)
def test_dns_leads_to_the_gateway(found: set[str], outcome: Outcome) -> None:
    verdict = address.judge_name("llm.example.com", found, {"192.0.2.7"})
    assert verdict.outcome is outcome
    assert outcome is PASSED or "192.0.2.7" in verdict.fix


@pytest.mark.parametrize(("days", "outcome"), [(60, PASSED), (3, FAILED)])
def test_a_certificate_has_time_left(days: int, outcome: Outcome) -> None:
    ends = (NOW + timedelta(days=days)).strftime("%b %d %H:%M:%S %Y GMT")
    shown = {"notAfter": ends, "issuer": ((("organizationName", "Test"),),)}
    verdict = address.judge_certificate(shown, NOW, "llm.example.com")
    assert verdict.outcome is outcome and f"{days} days left" in verdict.evidence


@pytest.mark.parametrize(
    ("status", "location", "outcome"),
    [
        (301, "https://llm.example.com/v1/models", PASSED),
        (301, "https://elsewhere.example.com/", FAILED),
        (200, "", FAILED),
        (404, "", FAILED),
    ],
)
def test_plain_http_is_sent_to_https(status: int, location: str, outcome: Outcome) -> None:
    answer = Answer(status, {"location": location} if location else {})
    assert address.judge_redirect(answer, "llm.example.com").outcome is outcome


@pytest.mark.parametrize(("public", "outcome"), [(True, FAILED), (False, UNCHECKED)])
def test_only_a_public_gateway_must_answer_from_anywhere(public: bool, outcome: Outcome) -> None:
    door = Door(scheme="http", host="h", address="127.0.0.1", port=closed_port())
    answer = Client(door).ask("GET", "/v1/models")
    verdict = address.judge_answer(answer, door, public)
    assert verdict.outcome is outcome and "refused" in verdict.evidence


@contextmanager
def secure_server(tmp_path, name: str) -> Iterator[tuple[int, str]]:
    """A TLS server with a certificate for `name`: its port, and the file of its authority."""
    authority = certificates.authority("test")
    pair = certificates.issue(authority, name)
    for file, content in (("crt", pair.certificate), ("key", pair.key), ("ca", authority.certificate)):
        (tmp_path / file).write_bytes(content)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "crt", tmp_path / "key")
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            try:
                with context.wrap_socket(server.accept()[0], server_side=True) as secure:
                    secure.recv(1)
            except OSError:
                pass

        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()[1], str(tmp_path / "ca")
        thread.join()


@pytest.mark.parametrize(
    ("host", "trusted", "good"),
    [("localhost", True, True), ("other.example.com", True, False), ("localhost", False, False)],
)
def test_a_certificate_counts_for_its_name_and_authority_only(
    tmp_path, host: str, trusted: bool, good: bool
) -> None:
    with secure_server(tmp_path, "localhost") as (port, ca):
        door = Door(
            scheme="https", host=host, address="127.0.0.1", port=port, ca_file=ca if trusted else None
        )
        if good:
            assert certificate(door)["notAfter"]
        else:
            with pytest.raises(ssl.SSLCertVerificationError):
                certificate(door)


# -- where the gateway answers --------------------------------------------------------------------------------------


def parsed(*arguments: str) -> Namespace:
    parser = ArgumentParser()
    doors.add_arguments(parser)
    return parser.parse_args(arguments)


def found(*arguments: str, stack: str = "tpu") -> dict[str, Any]:
    kube = SimpleNamespace(get=lambda *_: GATEWAY)
    return doors.find(load_config(raw_stack(stack)).gateway, kube, State(), parsed(*arguments), 4)


def test_the_gateways_own_address_is_asked_under_the_hosts_name() -> None:
    clients = found()
    door, plain = clients["client"].door, clients["plain"].door
    assert (door.url, door.where) == ("https://llm.example.com", "192.0.2.7:443")
    assert (plain.url, plain.where) == ("http://llm.example.com", "192.0.2.7:80")
    assert not clients["elsewhere"]


@pytest.mark.parametrize(
    ("arguments", "where", "plain"),
    [
        (("--resolve", "llm.example.com:443:198.51.100.1"), "198.51.100.1:443", "192.0.2.7:80"),
        (("--connect-to", "llm.example.com:443:localhost:8443"), "localhost:8443", "192.0.2.7:80"),
        (("--connect-to", "::127.0.0.9:", "--resolve", "a.b:1:c"), "127.0.0.9:443", "127.0.0.9:80"),
        (("--resolve", "other.example.com:443:198.51.100.1"), "192.0.2.7:443", "192.0.2.7:80"),
    ],
)
def test_detours_are_curls(arguments: tuple[str, ...], where: str, plain: str) -> None:
    clients = found(*arguments)
    assert (clients["client"].door.where, clients["plain"].door.where) == (where, plain)
    assert clients["elsewhere"] == (where != "192.0.2.7:443")


@pytest.mark.parametrize("words", [("--resolve", "a:b"), ("--connect-to", "a:1:b"), ("--resolve", "a:x:b")])
def test_a_detour_that_is_none_is_refused(words: tuple[str, str], capsys) -> None:
    with pytest.raises(SystemExit):
        parsed(*words)
    assert words[1] in capsys.readouterr().err


def test_an_authority_that_is_not_there_is_named() -> None:
    with pytest.raises(OpsError, match="/nowhere"):
        found("--ca", "/nowhere")


def test_without_an_address_the_stacks_own_output_is_taken() -> None:
    gateway = load_config(raw_stack("dev")).gateway
    outputs = {"urn": "urn:pulumi:dev::p::pulumi:pulumi:Stack::p-dev", "type": "pulumi:pulumi:Stack"}
    state = State.parse({"deployment": {"resources": [{**outputs, "outputs": {"gateway_address": "g.svc"}}]}})
    clients = doors.find(gateway, None, state, parsed(), 1)
    assert clients["client"].door.where == "g.svc:80"
    assert "no address" in doors.find(gateway, None, State(), parsed(), 1)["undoored"]


# -- answers --------------------------------------------------------------------------------------------------------


def part(when: float, **data: Any) -> tuple[float, dict[str, Any]]:
    return when, {"choices": [{}], **data}


USED = {"usage": {"total_tokens": 20}}


@pytest.mark.parametrize(
    ("events", "ended", "outcome", "said"),
    [
        ((part(0.1), part(0.5), part(0.9, **USED)), True, PASSED, "20 tokens"),
        ((part(0.9), part(0.9), part(0.9001, **USED)), True, FAILED, "at once"),
        ((part(0.1), part(0.9, **USED)), False, FAILED, "broke off"),
        ((part(0.1), part(0.9)), True, FAILED, "what it cost"),
        ((), True, FAILED, "broke off"),
    ],
)
def test_a_stream_comes_bit_by_bit_to_its_end(
    events: tuple[Any, ...], ended: bool, outcome: Outcome, said: str
) -> None:
    verdict = models.judge_stream(Stream(Answer(200), events, ended))
    assert verdict.outcome is outcome and said in verdict.evidence


def test_a_model_without_a_chat_template_need_not_chat() -> None:
    answer = Answer(400, body=b'{"message": "default chat template is no longer allowed"}')
    assert models._no_template(answer) == inapplicable("the model has no chat template")
    assert models._no_template(Answer(400, body=b"{}")) is None


def test_evidence_holds_no_more_of_an_answer_than_its_reason() -> None:
    answer = Answer(400, body=json.dumps({"error": {"message": "no\nsuch " + "x" * 999}}).encode())
    assert str(answer).startswith("HTTP 400 (no such xxx") and len(str(answer)) < 250
    assert str(Answer(502, body=b"secret")) == "HTTP 502"


def routed(*replicas: str) -> list[Sent]:
    return [Sent(n % 2, Answer(200, seconds=0.1), replica) for n, replica in enumerate(replicas)]


@pytest.mark.parametrize(
    ("replicas", "outcome"),
    [
        ("ab" * 10, PASSED),
        ("aa" * 10, PASSED),
        ("ab" * 9 + "bb", PASSED),
        ("abba" * 5, FAILED),
        ("ab" * 5 + "ba" * 5, FAILED),
    ],
)
def test_repeats_stay_where_their_beginning_is(replicas: str, outcome: Outcome) -> None:
    assert judge(routed(*replicas), 2).outcome is outcome


# -- budgets --------------------------------------------------------------------------------------------------------

TARGET = bench_of().targets()[0]
TIER = access.Tier(name="t", budget=100, measure="tokens", shadow=False, target=TARGET)


def attempts(*costs: int, last: int = 429, wait: str = "30") -> list[access.Attempt]:
    answered = [access.Attempt(Answer(200), cost) for cost in costs]
    return [*answered, access.Attempt(Answer(last, {"retry-after": wait}), 0)]


@pytest.mark.parametrize(
    ("tried", "outcome", "said"),
    [
        (attempts(60, 40), PASSED, "100 of 100"),
        (attempts(60, 39), FAILED, "already"),
        (attempts(60, 40, last=200), FAILED, "still answered"),
        (attempts(60, 40, wait="3600"), FAILED, "retry-after"),
        (attempts(60, 40, wait=""), FAILED, "retry-after"),
        (attempts(60, last=503), FAILED, "503"),
    ],
)
def test_the_boundary_of_a_budget_is_exact(tried: list[access.Attempt], outcome: Outcome, said: str) -> None:
    verdict = access.judge_boundary(TIER, tried)
    assert verdict.outcome is outcome and said in verdict.evidence


def test_what_trying_budgets_takes_is_bounded_and_told() -> None:
    bench = bench_of()
    tiers = access.tiers(bench)
    assert [tier.budget for tier in tiers] == [200, 1000, 5000]
    assert list(access.within(tiers, 20_000).values()) == [True, True, True]
    assert list(access.within(tiers, 2000).values()) == [True, True, False]
    few, many = (cost.tokens(bench_of(wishes=Wishes(max_tokens=n))) for n in (0, 20_000))
    assert 6200 <= many - few <= 2 * 6200
    assert cost.tokens(bench_of(wishes=Wishes(requests=100))) > many


def test_a_key_of_somebody_elses_is_refused_by_name() -> None:
    with pytest.raises(OpsError, match="not one of this platform"):
        identity("sk-1234")


# -- operators and backends -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (ApiError(500, "InternalError", "failed calling webhook: connection refused"), FAILED),
        (ApiError(403, "Forbidden", "User cannot create resource"), UNCHECKED),
        (ApiError(403, "Forbidden", 'admission webhook "w" denied the request'), FAILED),
        (ApiError(422, "Invalid", "spec.model is required"), FAILED),
    ],
)
def test_a_webhook_that_does_not_answer_is_told_from_one_that_refuses(
    error: ApiError, outcome: Outcome
) -> None:
    assert operators.judge_refusal(error).outcome is outcome


def test_an_operator_is_complete_when_its_release_and_workloads_are() -> None:
    ready = {
        "kind": "Deployment",
        "metadata": {"name": "istiod", "generation": 1},
        "spec": {"replicas": 1},
        "status": {"observedGeneration": 1, "updatedReplicas": 1, "availableReplicas": 1, "replicas": 1},
    }
    broken = {**ready, "status": {**ready["status"], "availableReplicas": 0}}
    assert operators.judge_pods([], [ready]).outcome is PASSED
    assert "0 of 1 replicas" in operators.judge_pods([], [ready, broken]).evidence
    assert operators.judge_pods(["Helm release istiod is failed"], [ready]).outcome is FAILED


def test_one_unhealthy_endpoint_is_named() -> None:
    good, bad = (
        Backend("s", "g", ip, state) for ip, state in (("10.0.0.1", "HEALTHY"), ("10.0.0.2", "UNHEALTHY"))
    )
    assert backends.judge([good]).outcome is PASSED
    verdict = backends.judge([good, bad])
    assert verdict.outcome is FAILED and "10.0.0.2 is UNHEALTHY" in verdict.evidence


# -- isolation ------------------------------------------------------------------------------------------------------


def closed_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        return int(server.getsockname()[1])


@contextmanager
def talker(answer: bytes) -> Iterator[int]:
    """A server that says the same to everybody, nothing if there is nothing to say; its port."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        held = []

        def serve() -> None:
            try:
                while True:
                    connection, _ = server.accept()
                    connection.recv(65536)
                    if answer:
                        connection.sendall(answer)
                        connection.close()
                    held.append(connection)
            except OSError:
                pass

        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        thread.join()
        for connection in held:
            connection.close()


HTTP_ANSWERS = {
    "an answer": b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}",
    "no such path": b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n",
    "who are you": b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n",
    "a server that is ill": b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n",
    "another protocol": b"-ERR wrong number of arguments\r\n",
    "gRPC's first frame": b"\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x05\x00\x00@\x00",
}


def tried(scheme: str, port: int) -> Attempt:
    """What the real kubectl says of an address, and what we make of it."""
    kubectl = toolchain.ensure(only=("kubectl",)).binary("kubectl")
    ended = subprocess.run(
        [kubectl, *isolation.arguments(Aim("a", "a", scheme, "127.0.0.1", port))],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    return isolation.outcome(ended.returncode, ended.stdout + ended.stderr)


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("answer", HTTP_ANSWERS)
def test_kubectls_words_for_whoever_answers_are_understood(scheme: str, answer: str) -> None:
    with talker(HTTP_ANSWERS[answer]) as port:
        attempt = tried(scheme, port)
    assert attempt.reached is Reached.YES, attempt


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_kubectls_words_for_nobody_are_understood(scheme: str, monkeypatch) -> None:
    assert tried(scheme, closed_port()).reached is Reached.NO
    monkeypatch.setattr(isolation, "_PATIENCE", "1s")
    with talker(b"") as port:
        assert tried(scheme, port).reached is Reached.NO


def test_words_that_nobody_knows_are_left_open() -> None:
    assert isolation.outcome(1, "error: unknown flag").reached is Reached.UNCLEAR


YES, NO = Attempt(Reached.YES), Attempt(Reached.NO)


@pytest.mark.parametrize(
    ("opened", "closed", "enforced", "outcome"),
    [
        (YES, NO, False, None),
        (YES, YES, False, UNCHECKED),
        (YES, YES, True, FAILED),
        (NO, NO, True, UNCHECKED),
    ],
)
def test_the_probes_own_pods_say_whether_anything_can_be_concluded(
    opened: Attempt, closed: Attempt, enforced: bool, outcome: Outcome | None
) -> None:
    verdict = isolation.judge_network({"open": opened, "closed": closed}, enforced)
    assert (verdict and verdict.outcome) is outcome


@pytest.mark.parametrize(
    ("reached", "outcome"), [(Reached.YES, FAILED), (Reached.NO, PASSED), (Reached.UNCLEAR, UNCHECKED)]
)
def test_a_pod_that_was_reached_is_not_isolated(reached: Reached, outcome: Outcome) -> None:
    assert isolation.judge(Attempt(reached, "words")).outcome is outcome


class Cluster:
    """A cluster that notes what is made and deleted, and refuses pods."""

    def __init__(self) -> None:
        self.spaces: set[str] = set()

    def create(self, manifest: dict[str, Any]) -> None:
        if manifest["kind"] == "Pod":
            raise ApiError(403, "Forbidden", "exceeded quota")
        if manifest["kind"] == "Namespace":
            self.spaces.add(manifest["metadata"]["name"])

    def delete(self, api_version: str, kind: str, name: str) -> None:
        self.spaces.discard(name)


def test_the_probes_namespace_goes_whatever_happens() -> None:
    cluster = Cluster()
    with pytest.raises(ApiError, match="exceeded quota"):
        isolation.attempts(cluster, [])  # type: ignore[arg-type]
    assert cluster.spaces == set()


def test_probes_have_no_privilege_and_no_token() -> None:
    for pod in (
        isolation.listener("open", "n"),
        isolation.probe("p", "n", Aim("a", "a", "https", "10.0.0.1", 8000)),
    ):
        spec = pod["spec"]
        assert spec["automountServiceAccountToken"] is False and spec["securityContext"]["runAsNonRoot"]
        (container,) = spec["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        }
