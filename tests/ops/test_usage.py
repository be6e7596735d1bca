"""`python -m ops usage`: sums that are exact, of lines that may be anything."""

from __future__ import annotations

import io
import json
import random
import sys
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from components.serving.manifests.chain import ACCESS_LOG
from ops import cli
from ops.errors import OpsError
from ops.kube import ApiError, ResourceKind
from ops.usage import command, logs, records
from ops.usage.records import Sum, summed

BY = ("tenant", "model")


def entry(**fields) -> str:
    """A line of the access log: one request of a tenant that was answered with 10 + 20 tokens."""
    line = dict.fromkeys(ACCESS_LOG)
    line |= {
        "time": "2026-01-01T12:00:00.123Z",
        "request_id": "r",
        "tenant": "acme",
        "tier": "free",
        "model": "llm/m",
    }
    line |= {
        "key": "k1",
        "prompt": 10,
        "completion": 20,
        "total": 30,
        "cost": 30,
        "source": "usage",
        "status": 200,
    }
    return json.dumps(line | fields)


REFUSED = dict.fromkeys(("prompt", "completion", "total", "cost", "source"))


def test_the_fields_that_are_summed_are_those_that_the_gateway_writes():
    assert {*records.KEYS, *records.COUNTED, *records._OURS, "source", "time"} <= ACCESS_LOG.keys()


def test_requests_and_tokens_are_summed_per_tenant_and_model():
    lines = [
        *[entry()] * 3,
        entry(model="llm/big", cost=75, source="estimate"),
        entry(tenant="umbrella", prompt=1, completion=0, total=1, cost=1),
    ]
    usage = summed(lines, BY)
    assert usage.groups[("acme", "llm/m")] == Sum(3, 30, 60, 90, 90)
    assert usage.groups[("acme", "llm/big")] == Sum(1, 10, 20, 30, 75, estimated=30)
    assert usage.groups[("umbrella", "llm/m")] == Sum(1, 1, 0, 1, 1)
    assert usage.total == Sum(5, 41, 80, 121, 166, estimated=30)
    assert usage.groups[("acme", "llm/big")].estimated_share == 1.0
    assert (usage.skipped, usage.damaged) == (0, 0)


def test_sums_are_exact_whatever_the_spelling_and_size_of_numbers():
    shapes = (int, float, str, "{}.0".format, lambda n: f"{n}.000")
    pick = random.Random(1)
    numbers = [pick.randrange(2**53) for _ in range(1000)]
    lines = [entry(total=pick.choice(shapes)(n), cost=pick.choice(shapes)(n)) for n in numbers]
    usage = summed(lines, BY)
    assert (usage.total.total, usage.total.cost, usage.damaged) == (sum(numbers), sum(numbers), 0)


def test_refusals_are_counted_by_kind_and_cost_nothing():
    lines = [
        entry(status=status, **REFUSED) for status in (401, 403, 429, 429, 500, 503, 599, 400, 404, "429")
    ]
    total = summed(lines, BY).total
    assert total.refused == {"401": 1, "403": 1, "429": 3, "5xx": 3}
    assert (total.requests, total.total, total.cost) == (10, 0, 0)


def test_requests_of_nobody_have_a_group_of_their_own():
    usage = summed([entry(tenant=None, model=None, status=401, **REFUSED), entry(tenant="-", model="")], BY)
    assert list(usage.groups) == [("-", "-")]


def test_what_verification_asked_for_is_nobodys_use_unless_it_is_asked_for():
    lines = [entry(), entry(tenant="llmp-verify-load")]
    assert summed(lines, BY).total.requests == 1
    assert summed(lines, BY, everybody=True).total.requests == 2
    assert summed(lines, BY, "llmp-verify-load").total.requests == 1


@pytest.mark.parametrize(
    "line",
    [
        "",
        "   \n",
    ],
)
def test_empty_lines_are_nothing(line):
    assert summed([line], BY).skipped == 0


@pytest.mark.parametrize(
    "line",
    [
        "2026-01-01T00:00:00Z\tinfo\tenvoy\tall dependencies initialized",
        '{"level":"info","msg":"started"}',
        "[1, 2]",
        "17",
        "null",
        '{"tenant": "acme", "status": 200, "request_id": "r"',
        "[" * 100_000,
        '{"tenant":"a","status":200,"request_id":"r","total":' + "1" * 5000 + "}",
        "\x00\ufffd\ud800",
    ],
)
def test_what_is_no_entry_is_skipped_and_counted(line):
    usage = summed([line, entry()], BY)
    assert (usage.skipped, usage.total.requests) == (1, 1)


@pytest.mark.parametrize(
    "number",
    [
        -1,
        "-1",
        1.5,
        "1e3",
        "0x10",
        "abc",
        True,
        [],
        {},
        float("nan"),
        float("inf"),
        1e300,
        2**53 + 1,
        "9" * 400,
        "١٢",
    ],
)
def test_a_number_that_is_none_counts_as_nothing_and_is_told(number):
    usage = summed([entry(cost=number), entry(status=number), entry()], BY)
    assert usage.damaged == 2
    assert (usage.total.requests, usage.total.cost, usage.total.total) == (3, 60, 90)


@pytest.mark.parametrize("value", [5, ["a"], {"a": 1}, True, None, ""])
def test_a_name_that_is_none_is_nobody(value):
    assert list(summed([entry(tenant=value, model=value)], BY).groups) == [("-", "-")]


def test_what_clients_wrote_cannot_drive_the_terminal():
    ((model,),) = summed([entry(model="a\x1b[31m\n\u202eb" + "x" * 9999)], ("model",)).groups
    assert model.isprintable()
    assert len(model) == 256


def test_only_one_tenant_and_only_since_then():
    now = datetime(2026, 1, 1, 13, tzinfo=UTC)
    lines = [
        entry(),
        entry(tenant="umbrella"),
        entry(time="2026-01-01T11:59:59Z"),
        entry(time="soon"),
        entry(time=5),
    ]
    assert summed(lines, BY, "umbrella").total.requests == 1
    usage = summed(lines, BY, since=now - timedelta(hours=1))
    assert (usage.total.requests, usage.damaged) == (2, 2)
    assert summed(lines, BY).total.requests == 5


# -- the command -----------------------------------------------------------------------------------


@pytest.fixture
def run(capsys):
    def command(*arguments: str) -> tuple[str, str]:
        assert cli.main(["usage", "--stack", "dev", *arguments]) == cli.DONE
        return capsys.readouterr()

    return command


@pytest.fixture
def file(tmp_path):
    file = tmp_path / "gateway.log"
    file.write_bytes(
        b"\xff\xfe not text\n" + "\n".join([entry(), entry(cost=-1), entry(model="llm/b")]).encode()
    )
    return str(file)


def test_files_need_neither_a_stack_nor_a_cluster(run, file, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    out, err = run("--file", file, "--json")
    answer = json.loads(out)
    found = [
        (row["tenant"], row["model"], row["requests"], row["total"], row["cost"]) for row in answer["rows"]
    ]
    assert found == [("acme", "llm/m", 2, 60, 30), ("acme", "llm/b", 1, 30, 30)]
    assert answer["total"]["total"] == 90
    assert (answer["skipped"], answer["damaged"]) == (1, 1)
    assert "1 lines are no entries" in err and "1 entries carry a number" in err


def test_standard_input_is_a_file_too(run, file, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(f"{entry()}\n\xff\n".encode("latin-1"))))
    assert json.loads(run("--file", "-", "--file", file, "--json")[0])["total"]["requests"] == 4


def test_the_table_ends_with_the_sum_of_everything(run, file):
    out, _ = run("--file", file)
    head, *rows, last = (line.split() for line in out.splitlines())
    assert head == [
        "TENANT",
        "MODEL",
        "REQUESTS",
        "PROMPT",
        "COMPLETION",
        "TOTAL",
        "COST",
        "ESTIMATED",
        *("401", "403", "429", "5XX"),
    ]
    assert len(rows) == 2
    assert last == ["all", "3", "30", "60", "90", "60", "0.0%", "0", "0", "0", "0"]
    assert run("--file", file, "--by", "tier")[0].splitlines()[1].split()[:2] == ["free", "3"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("--since", "1w"),
        ("--since=-1h",),
        ("--since", "0s"),
        ("--since", "9999999d"),
        ("--by", "path"),
        ("--by", ""),
    ],
)
def test_wrong_usage_is_refused(run, arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        run(*arguments)
    assert ended.value.code == 2
    assert "is not a" in capsys.readouterr().err


def test_a_file_that_is_not_there_is_named(capsys, tmp_path):
    assert cli.main(["usage", "--stack", "dev", "--file", str(tmp_path / "none")]) == cli.FAILED
    assert "none cannot be read: No such file" in capsys.readouterr().err


# -- pods ------------------------------------------------------------------------------------------


def pod(name: str, *containers: str, restarts: int = 0) -> dict:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "edge", "labels": {logs.GATEWAY_LABEL: "door"}},
        "spec": {"containers": [{"name": c} for c in containers]},
        "status": {"containerStatuses": [{"name": c, "restartCount": restarts} for c in containers]},
    }


@pytest.fixture
def kube(fake_cluster):
    """A cluster whose answers to requests are set by path, and which notes what it was asked."""

    class WithLogs(fake_cluster):
        def __init__(self, *objects):
            super().__init__(*objects)
            self.answers, self.asked = {}, []

        def kind(self, api_version, kind):
            return ResourceKind(api_version, kind, "pods", True)

        def request(self, method, path, query, timeout):
            self.asked.append((method, path, query))
            answer = self.answers[path.split("/")[-2], query.get("previous", "")]
            if isinstance(answer, Exception):
                raise answer
            return answer

    return WithLogs


def test_every_pod_of_the_gateway_counts_and_no_other(kube):
    other = pod("other", "istio-proxy")
    other["metadata"]["labels"] = {}
    cluster = kube(pod("a", "sidecar", "istio-proxy"), pod("b", "envoy"), other)
    # A log of one line arrives decoded, as the client does with JSON.
    cluster.answers = {("a", ""): f"{entry()}\n{entry()}\n", ("b", ""): json.loads(entry())}
    assert summed(logs.of_pods(cluster, "edge", "door", 90), BY).total.requests == 3
    assert cluster.asked == [
        ("GET", "/api/v1/namespaces/edge/pods/a/log", {"container": "istio-proxy", "sinceSeconds": "90"}),
        ("GET", "/api/v1/namespaces/edge/pods/b/log", {"container": "envoy", "sinceSeconds": "90"}),
    ]


def test_what_a_container_said_before_its_restart_counts_too(kube):
    cluster = kube(pod("a", "istio-proxy", restarts=2))
    cluster.answers = {("a", ""): entry() + "\n", ("a", "true"): f"{entry()}\n{entry()}\n"}
    assert summed(logs.of_pods(cluster, "edge", "door", None), BY).total.requests == 3


def test_a_log_that_cannot_be_read_is_told_and_the_others_count(kube, capsys):
    waiting = ApiError(400, "BadRequest", "container is waiting to start")
    cluster = kube(pod("a", "istio-proxy"), pod("b", "istio-proxy"))
    cluster.answers = {("a", ""): waiting, ("b", ""): entry() + "\n"}
    assert summed(logs.of_pods(cluster, "edge", "door", None), BY).total.requests == 1
    assert "not counted: a: container is waiting to start" in capsys.readouterr().err
    cluster.answers["b", ""] = waiting
    with pytest.raises(OpsError, match="no log of the gateway's pods can be read"):
        list(logs.of_pods(cluster, "edge", "door", None))


def test_a_gateway_without_pods_is_no_empty_bill(kube):
    with pytest.raises(OpsError, match="edge/door has no pods"):
        list(logs.of_pods(kube(), "edge", "door", None))


def test_the_stack_says_which_gateway(kube, monkeypatch, run):
    gateway = SimpleNamespace(namespace="edge", name="door")
    cluster = kube(pod("a", "istio-proxy"))
    cluster.answers = {("a", ""): entry(time=datetime.now(UTC).isoformat()) + "\n" + entry() + "\n"}
    stack = SimpleNamespace(stack="dev", deployed=lambda: {"deployment": {}})
    monkeypatch.setattr(command, "Pulumi", lambda *_: stack)
    monkeypatch.setattr(command.settings, "read", lambda _: SimpleNamespace(gateway=gateway))
    monkeypatch.setattr(command.cluster, "connect", lambda *_: cluster)
    assert json.loads(run("--since", "1h", "--json")[0])["total"]["requests"] == 1
    assert cluster.asked[0][2]["sinceSeconds"] == "3600"
