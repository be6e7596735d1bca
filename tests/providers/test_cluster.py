"""The provider's connection: kubeconfigs by path and by content, unreachable clusters, scopes of kinds."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest
import yaml

from rehearsal.providers.guard import OutsideRehearsal
from rehearsal.providers.kubernetes import kubeconfig
from rehearsal.providers.kubernetes.cluster import Cluster
from rehearsal.providers.kubernetes.kubeconfig import BadKubeconfig
from rehearsal.providers.kubernetes.settings import Settings

NOBODY_LISTENS = "https://127.0.0.1:1"


def document(server: str = NOBODY_LISTENS) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "one",
        "contexts": [
            {"name": "one", "context": {"cluster": "c", "user": "u", "namespace": "team"}},
            {"name": "two", "context": {"cluster": "c", "user": "u"}},
        ],
        "clusters": [{"name": "c", "cluster": {"server": server, "certificate-authority": "ca.crt"}}],
        "users": [{"name": "u", "user": {"token": "secret-token"}}],
    }


@pytest.fixture
def rehearsal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A rehearsal whose API server does not run."""
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "cluster").mkdir()
    (tmp_path / "cluster" / "ca.crt").write_text("the CA")
    (tmp_path / "cluster" / "kubeconfig").write_text(yaml.safe_dump(document()))
    return tmp_path


def own(rehearsal: Path) -> str:
    return str(rehearsal / "cluster" / "kubeconfig")


def test_a_kubeconfig_is_reduced_to_the_context_with_its_files_inside(rehearsal):
    target = kubeconfig.select(*kubeconfig.load(own(rehearsal)), "two")
    assert (target.server, target.authority, target.namespace) == (NOBODY_LISTENS, b"the CA", "default")
    assert kubeconfig.select(*kubeconfig.load(own(rehearsal))).namespace == "team"


@pytest.mark.parametrize(
    ("text", "context", "words"),
    [
        ("{broken", "", "cannot be read"),
        ("just words", "", "neither a file nor the content"),
        ("", "", "there is no kubeconfig"),
        (yaml.safe_dump(document()), "three", "one, two"),
        (yaml.safe_dump(document()), "", "certificate-authority"),
    ],
)
def test_a_kubeconfig_that_cannot_be_used_says_why(rehearsal, text, context, words):
    with pytest.raises(BadKubeconfig, match=words):
        kubeconfig.select(*kubeconfig.load(text), context)


def test_an_api_server_that_does_not_answer_is_unreachable_not_an_error(rehearsal):
    cluster = Cluster(Settings(kubeconfig=own(rehearsal)), rehearsal)
    assert "cannot be reached" in cluster.unreachable
    assert cluster.default_namespace == "team"
    assert not cluster.serves({"apiVersion": "v1", "kind": "ConfigMap"})


def test_a_missing_kubeconfig_is_unreachable_not_an_error(rehearsal):
    assert "there is no kubeconfig" in Cluster(Settings(), rehearsal).unreachable


def test_an_api_server_of_somebody_else_is_an_error(rehearsal):
    (rehearsal / "ca.crt").write_text("the CA")
    elsewhere = rehearsal / "other"
    elsewhere.write_text(yaml.safe_dump(document("https://127.0.0.1:2")))
    with pytest.raises(
        OutsideRehearsal, match=r"https://127.0.0.1:2 is not this rehearsal's \(https://127.0.0.1:1\)"
    ):
        Cluster(Settings(kubeconfig=str(elsewhere)), rehearsal)


def test_what_is_stored_for_helm_is_for_the_owner_only_and_stored_once(rehearsal):
    for _ in range(2):
        cluster = Cluster(Settings(kubeconfig=own(rehearsal)), rehearsal)
    assert [cluster.kubeconfig] == list((rehearsal / "run").iterdir())
    assert stat.S_IMODE(cluster.kubeconfig.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("api_version", "kind", "namespaced"),
    [
        ("v1", "ConfigMap", True),
        ("v1", "Namespace", False),
        ("rbac.authorization.k8s.io/v1", "ClusterRole", False),
        ("gateway.networking.k8s.io/v1", "GatewayClass", True),
        ("example.com/v1", "Learned", False),
    ],
)
def test_scopes_are_known_of_built_in_and_learned_kinds_and_else_taken_for_namespaced(
    rehearsal, api_version, kind, namespaced
):
    cluster = Cluster(Settings(), rehearsal)
    cluster.learn({"spec": {"group": "example.com", "names": {"kind": "Learned"}, "scope": "Cluster"}})
    assert cluster.namespaced({"apiVersion": api_version, "kind": kind}) is namespaced


def test_a_kubeconfig_without_an_authority_gets_that_of_its_own_server_and_no_other() -> None:
    """As Google's for a DNS endpoint, which a public authority vouches for."""

    def target(server: str) -> kubeconfig.Target:
        document = {"clusters": [{"name": "x", "cluster": {"server": server}}]}
        return kubeconfig.Target(document, server, b"", "default")

    mine = kubeconfig.trusting(target("https://127.0.0.1:1"), "https://127.0.0.1:1", b"CA")
    assert (mine.authority, mine.server) == (b"CA", "https://127.0.0.1:1")
    (cluster,) = mine.document["clusters"]
    assert cluster["cluster"]["certificate-authority-data"] == "Q0E="
    other = target("https://elsewhere:1")
    assert kubeconfig.trusting(other, "https://127.0.0.1:1", b"CA") is other
