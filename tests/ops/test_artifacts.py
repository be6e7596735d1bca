"""`python -m ops artifacts` against a chart repository and a registry on this machine."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self
from urllib.parse import parse_qs, urlsplit

import pytest

from components.platform.lock import LOCK_FILE
from ops import cli
from ops.artifacts.lockfile import fill, parse
from ops.artifacts.sources import split_reference
from ops.errors import OpsError

CHART, OTHER_CHART, MANIFEST = b"a chart", b"an OCI chart", b"kind: ConfigMap\n"
IMAGE = json.dumps({"schemaVersion": 2, "manifests": []}).encode()
INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
LAYER = "application/vnd.cncf.helm.chart.content.v1.tar+gzip"


def digest(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


class Web:
    """A chart repository, an OCI registry that wants tokens, and a file; `answers` maps paths to content."""

    def __init__(self) -> None:
        web = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                web.answer(self)

            def log_message(self, *_: object) -> None:
                """Silent."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self._server.server_port}"
        layers = [
            {"mediaType": "text/plain", "digest": "sha256:0"},
            {"mediaType": LAYER, "digest": digest(OTHER_CHART)},
        ]
        self.index = {"entries": {"demo": [self.version("0.9.0", b"old"), self.version("1.0.0", CHART)]}}
        self.answers: dict[str, bytes | int] = {
            "/charts/index.yaml": b"",
            "/charts/files/demo-1.0.0.tgz": CHART,
            "/v2/team/charts/other/manifests/v2.0.0_1": json.dumps({"layers": layers}).encode(),
            "/blob": OTHER_CHART,
            "/v2/team/engine/manifests/v3": IMAGE,
            "/crds.yaml": MANIFEST,
        }
        self.redirects = {f"/v2/team/charts/other/blobs/{digest(OTHER_CHART)}": "/blob"}
        self.stated: dict[str, str] = {}

    @staticmethod
    def version(version: str, content: bytes) -> dict:
        return {"version": version, "urls": [f"files/demo-{version}.tgz"], "digest": digest(content)[7:]}

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        path, query = urlsplit(request.path).path, parse_qs(urlsplit(request.path).query)
        if path == "/token":
            self._send(request, 200, json.dumps({"token": query["scope"][0]}).encode())
        elif path.startswith("/v2/") and request.headers["Authorization"] != f"Bearer {self._scope(path)}":
            challenge = (
                f'Bearer realm="http://{self.address}/token",service="test",scope="{self._scope(path)}"'
            )
            self._send(request, 401, b"", {"WWW-Authenticate": challenge})
        elif "/manifests/" in path and INDEX_TYPE not in request.headers["Accept"]:
            self._send(request, 406, b"")
        elif path in self.redirects:
            self._send(request, 307, b"", {"Location": self.redirects[path]})
        else:
            content = self.answers.get(path, 404)
            content = (
                json.dumps(self.index).encode()
                if path == "/charts/index.yaml" and content == b""
                else content
            )
            headers = {"Docker-Content-Digest": self.stated[path]} if path in self.stated else {}
            status, body = (content, b"") if isinstance(content, int) else (200, content)
            self._send(request, status, body, headers)

    @staticmethod
    def _scope(path: str) -> str:
        return (
            "repository:"
            + path.removeprefix("/v2/").partition("/manifests")[0].partition("/blobs")[0]
            + ":pull"
        )

    @staticmethod
    def _send(request: BaseHTTPRequestHandler, status: int, body: bytes, headers: dict | None = None) -> None:
        request.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            request.send_header(key, value)
        request.end_headers()
        request.wfile.write(body)

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def web() -> Iterator[Web]:
    with Web() as running:
        yield running


LOCK = """# What we install.
charts:
  # why this version
  - {{name: first, chart: demo, repository: "http://{web}/charts", version: 1.0.0, digest: null}}  # kept
  - name: second
    chart: other
    repository: oci://{web}/team/charts
    digest:
    version: v2.0.0+1
manifests:
  - {{name: crds, digest: null, url: "http://{web}/crds.yaml", version: v1}}
images:
  - {{name: engine, reference: "{web}/team/engine:v3", digest: ~}}
"""
PINNED = {"first": CHART, "second": OTHER_CHART, "crds": MANIFEST, "engine": IMAGE}


@pytest.fixture
def lock(web, tmp_path):
    file = tmp_path / "lock.yaml"
    file.write_text(LOCK.format(web=web.address))
    return file


@pytest.fixture
def run(lock, capsys):
    """Runs the command on the test's lock file; its exit code and what it said, in one line."""

    def command(action: str, *arguments: str) -> tuple[int, str]:
        code = cli.main(["artifacts", action, "--lock", str(lock), *arguments])
        said = capsys.readouterr()
        return code, " ".join((said.out + said.err).split())

    return command


def locked(file):
    return {entry.name: entry.locked.digest for entry in parse(file.read_text())}


def test_pin_fills_in_every_digest_and_changes_nothing_else(run, lock, web):
    before = lock.read_text().splitlines()
    code, _ = run("pin")
    assert (code, locked(lock)) == (cli.DONE, {name: digest(content) for name, content in PINNED.items()})
    for old, new in zip(before, lock.read_text().splitlines(), strict=True):
        kept = old.replace("digest: null", "digest:").replace("digest: ~", "digest:")
        for content in PINNED.values():
            new = new.replace(f' "{digest(content)}"', "")
        assert new == kept
    assert run("check")[0] == cli.DONE
    assert run("pin")[1].count("unchanged") == len(PINNED)


def test_what_cannot_be_reached_is_named_and_stays_unpinned(run, lock, web):
    web.answers["/crds.yaml"] = 503
    web.answers["/v2/team/engine/manifests/v3"] = 404
    lock.write_text(lock.read_text().replace("oci://127.0.0.1", "oci://localhost:1/x"))
    code, said = run("pin")
    assert code == cli.FAILED
    assert "crds.yaml answers 503" in said
    assert "manifests/v3 answers 404" in said
    assert "localhost:1 cannot be reached: Connection refused" in said
    assert locked(lock) == {"first": digest(CHART), "second": None, "crds": None, "engine": None}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("version: 1.0.0", "has no demo 1.0.1"),
        ("chart: demo", "has no demo2 1.0.0"),
    ],
)
def test_a_chart_that_its_repository_does_not_have_is_named(run, lock, wrong, said):
    lock.write_text(lock.read_text().replace(wrong, wrong[:-1] + "1" if wrong[-1] == "0" else wrong + "2"))
    assert said in run("pin", "--only", "first")[1]


def test_content_that_is_not_what_its_own_source_states_is_never_pinned(run, lock, web):
    web.answers["/charts/files/demo-1.0.0.tgz"] = b"altered"
    web.answers["/blob"] = b"altered"
    web.stated["/v2/team/engine/manifests/v3"] = digest(b"something else")
    code, said = run("pin")
    assert code == cli.FAILED
    assert said.count("is not what its source says") == 3
    assert [name for name, value in locked(lock).items() if value] == ["crds"]


def test_a_locked_digest_is_only_replaced_on_request(run, lock, web):
    run("pin")
    web.answers["/crds.yaml"] = b"moved"
    for action in ("pin", "check"):
        code, said = run(action)
        assert code == cli.FAILED
        assert digest(b"moved") in said
        assert digest(MANIFEST) in said
    assert locked(lock)["crds"] == digest(MANIFEST)
    assert run("pin", "--accept", "crds")[0] == cli.DONE
    assert locked(lock)["crds"] == digest(b"moved")


def test_check_lists_what_is_not_pinned_without_looking_it_up(run, lock, web):
    run("pin", "--only", "first")
    web.answers.pop("/crds.yaml")
    code, said = run("check")
    assert code == cli.UNDECIDED
    assert said.count("not pinned") == len(PINNED) - 1


def test_a_directory_is_filled_and_checked_against_the_lock(run, lock, tmp_path):
    run("pin")
    directory = tmp_path / "artifacts"
    assert run("fetch", "--directory", str(directory))[0] == cli.DONE
    files = {str(f.relative_to(directory)): f.read_bytes() for f in directory.rglob("*") if f.is_file()}
    assert files == {
        "charts/demo-1.0.0.tgz": CHART,
        "charts/other-v2.0.0+1.tgz": OTHER_CHART,
        "manifests/crds-v1.yaml": MANIFEST,
    }
    assert run("check", "--directory", str(directory))[0] == cli.DONE
    (directory / "charts/demo-1.0.0.tgz").write_bytes(b"altered")
    (directory / "manifests/crds-v1.yaml").unlink()
    code, said = run("check", "--directory", str(directory))
    assert code == cli.FAILED
    assert "it is not what was reviewed" in said
    assert "crds-v1.yaml is not there" in said


def test_an_altered_file_is_not_fetched(run, lock, web, tmp_path):
    run("pin")
    web.answers["/crds.yaml"] = b"moved"
    assert run("fetch", "--directory", str(tmp_path / "artifacts"))[0] == cli.FAILED
    assert not (tmp_path / "artifacts/manifests").exists()


def test_nothing_is_fetched_without_tls_from_elsewhere(run, lock):
    lock.write_text(lock.read_text().replace("http://127.0.0.1", "http://example.com"))
    assert "is not https" in run("pin", "--only", "crds")[1]


def test_a_login_page_is_not_taken_for_an_answer(run, web):
    web.answers["/charts/index.yaml"] = b"<html>please log in</html>"
    assert "wants a login" in run("pin", "--only", "first")[1]


def test_an_unknown_name_is_refused_with_the_known_ones(run):
    code, said = run("pin", "--only", "secnd")
    assert code == cli.FAILED
    assert "has no secnd; it has crds, engine, first, second" in said


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ("charts: [{name: a, chart: a, repository: r, version: v}]", r"charts\[0\] \(a\): .*digest"),
        ("images: [{name: a, reference: b, digest: null, tag: c}]", r"images\[0\] \(a\): .*tag"),
        ("charts: [", "is not YAML"),
    ],
)
def test_a_lock_file_that_is_wrong_says_where(broken, message):
    with pytest.raises(OpsError, match=message):
        parse(broken)


def test_the_platforms_own_lock_file_can_be_pinned():
    text = LOCK_FILE.read_text()
    entries = parse(text)
    filled = fill(text, {entry.span: digest(entry.label.encode()) for entry in entries})
    assert {e.name: e.locked.digest for e in parse(filled)} == {
        e.name: digest(e.label.encode()) for e in entries
    }


@pytest.mark.parametrize(
    ("reference", "parts"),
    [
        ("ghcr.io/llm-d/llm-d-cuda:v0.8.0", ("ghcr.io", "llm-d/llm-d-cuda", "v0.8.0")),
        ("vllm/vllm-tpu:v0.22.0", ("registry-1.docker.io", "vllm/vllm-tpu", "v0.22.0")),
        ("redis:7.4", ("registry-1.docker.io", "library/redis", "7.4")),
        ("docker.io/library/redis:7.4", ("registry-1.docker.io", "library/redis", "7.4")),
        ("localhost:5000/a/b:1", ("localhost:5000", "a/b", "1")),
    ],
)
def test_references_are_read_as_docker_reads_them(reference, parts):
    assert split_reference(reference) == parts
