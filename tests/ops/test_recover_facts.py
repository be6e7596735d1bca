"""What `recover` looks up in a cluster, and what it removes there."""

from __future__ import annotations

import pytest

from ops import helm
from ops.errors import OpsError
from ops.recover import facts

OURS = {"app.kubernetes.io/managed-by": "pulumi", "app.kubernetes.io/part-of": "llm-platform"}


def refs(*found):
    return [str(ref) for ref in found]


def test_the_live_objects_and_releases_of_pending_operations_are_looked_up(sample, fake_cluster):
    here, gone, release = sample.object(name="here"), sample.object(name="gone"), sample.release()
    state = sample.state([], [("creating", here), ("deleting", gone), ("creating", release)])
    cluster = fake_cluster(
        sample.live(here), sample.revision("superseded"), sample.revision("pending-upgrade", 2)
    )
    known = facts.gather(state, cluster, print)
    assert {str(ref): live is not None for ref, live in known.objects.items()} == {
        "ConfigMap llm/here": True,
        "ConfigMap llm/gone": False,
    }
    (revisions,) = known.releases.values()
    assert [(r.version, r.status, r.chart) for r in revisions] == [
        (1, "superseded", "cert-manager"),
        (2, "pending-upgrade", "cert-manager"),
    ]


def test_an_object_that_names_no_namespace_is_looked_up_in_the_default_one(sample, fake_cluster):
    entry = sample.object()
    del entry["inputs"]["metadata"]["namespace"]
    state = sample.state([], [("creating", entry)])
    known = facts.gather(state, fake_cluster(sample.live(entry, namespace="default")), print)
    assert all(known.objects.values())


def test_objects_on_their_way_out_are_waited_for_as_long_as_asked(sample, fake_cluster):
    entry = sample.object()
    state = sample.state([], [("deleting", entry)])
    cluster = fake_cluster(sample.live(entry, deletionTimestamp="2026-01-01T00:00:00Z"))
    said = []
    assert all(facts.gather(state, cluster, said.append, patience=0).objects.values())
    assert said == []

    def gone(text):
        said.append(text)
        cluster.objects.clear()

    assert not any(facts.gather(state, cluster, gone, patience=60).objects.values())
    assert "ConfigMap llm/web" in said[0]


def test_strays_are_what_this_program_made_and_the_state_does_not_know(sample, fake_cluster):
    known = sample.object(name="known")
    kinds = sample.object("kubernetes:apiextensions.k8s.io/v1:CustomResourceDefinition", "kind")
    stray = sample.live(sample.object(name="stray"), labels=OURS)
    cluster = fake_cluster(
        sample.live(known, labels=OURS),
        stray,
        sample.live(sample.object(name="theirs"), labels=OURS, manager="kubectl"),
        sample.live(sample.object(name="unlabelled")),
        sample.live(sample.object(name="child"), labels=OURS, ownerReferences=[{"name": "known"}]),
        sample.live(sample.object(kinds["type"], "shared"), labels=OURS),
    )
    assert refs(*facts.gather(sample.state([known, kinds]), cluster, print).strays) == ["ConfigMap llm/stray"]


def installed(kind, name, owner="cert-manager", **annotations):
    marks = {
        "meta.helm.sh/release-name": owner,
        "meta.helm.sh/release-namespace": "cert-manager",
        **annotations,
    }
    metadata = {"name": name, "namespace": "cert-manager", "annotations": marks}
    return {"apiVersion": "v1", "kind": kind, "metadata": metadata}


MANIFEST = """
apiVersion: v1
kind: ConfigMap
metadata: {name: ours}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: theirs}
---
# A template that rendered to nothing.
---
apiVersion: v1
kind: ConfigMap
metadata: {name: kept}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: never-made}
---
apiVersion: not.served/v1
kind: Unknown
metadata: {name: unknown}
"""
KEPT = {"helm.sh/resource-policy": "keep"}


def test_only_what_an_unfinished_release_made_is_uninstalled(sample, fake_cluster):
    kept = [installed("ConfigMap", "theirs", owner="other"), installed("ConfigMap", "kept", **KEPT)]
    others = sample.revision("deployed", name="other")
    cluster = fake_cluster(
        installed("ConfigMap", "ours"), *kept, others, sample.revision("pending-install", manifest=MANIFEST)
    )
    helm.uninstall(cluster, "cert-manager", "cert-manager", patience=0)
    assert cluster.objects == [*kept, others]


def test_an_uninstallation_that_a_finalizer_holds_can_be_repeated(sample, fake_cluster):
    held = installed("ConfigMap", "ours")
    held["metadata"]["finalizers"] = ["test/hold"]
    revision = sample.revision("pending-install", manifest=MANIFEST)
    cluster = fake_cluster(held, revision)
    with pytest.raises(OpsError, match="finalizers still hold ConfigMap ours"):
        helm.uninstall(cluster, "cert-manager", "cert-manager", patience=0)
    assert revision in cluster.objects
    del held["metadata"]["finalizers"]
    helm.uninstall(cluster, "cert-manager", "cert-manager", patience=0)
    assert cluster.objects == []
