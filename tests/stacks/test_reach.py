"""The warning of a preview: given when nothing listens, kept back when that cannot be known."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import yaml

from stacks.config import ExistingCluster
from stacks.config.kubeconfig import server_of
from stacks.reach import reachable


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.delenv(name, raising=False)


def test_a_listening_server_is_reachable_and_a_closed_port_is_not() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        server = f"https://127.0.0.1:{listener.getsockname()[1]}"
        assert reachable(server)
    assert not reachable(server)


def test_a_proxy_in_between_keeps_the_warning_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example.com")
    assert reachable("https://127.0.0.1:1") and reachable(None)


@pytest.mark.parametrize(("more", "server"), [({}, "https://b"), ({"proxy-url": "http://p"}, None)])
def test_the_server_is_that_of_the_stacks_context(
    tmp_path: Path, more: dict[str, str], server: str | None
) -> None:
    one = {"clusters": [{"name": "a", "cluster": {"server": "https://a"}}], "current-context": "other"}
    two = {
        "clusters": [{"name": "b", "cluster": {"server": "https://b", **more}}],
        "contexts": [
            {"name": "other", "context": {"cluster": "a"}},
            {"name": "mine", "context": {"cluster": "b"}},
        ],
    }
    files = [tmp_path / name for name in ("one", "two")]
    for file, content in zip(files, (one, two), strict=True):
        file.write_text(yaml.safe_dump(content))
    cluster = ExistingCluster.model_validate({"kind": "existing", "context": "mine"})
    assert server_of(cluster, {"KUBECONFIG": ":".join(map(str, files))}) == server
