"""What a cluster has of Google's own with the Gateway API on, and which GKE versions there are."""

from __future__ import annotations

import pytest

from rehearsal.cloud import releases
from rehearsal.providers.server import Refusal
from tests.support.simulated_google import Google, cluster_inputs, outputs


@pytest.fixture
def google(tmp_path):
    return Google(tmp_path)


ON, OFF = ({"gatewayApiConfig": {"channel": f"CHANNEL_{c}"}} for c in ("STANDARD", "DISABLED"))


def definitions(google) -> set[str]:
    return {
        d["metadata"]["name"] for d in google.kube.list("apiextensions.k8s.io/v1", "CustomResourceDefinition")
    }


def test_with_the_gateway_api_come_googles_definitions_and_with_the_cluster_they_go(google):
    network, subnet = google.make_network()
    inputs = cluster_inputs(network, subnet)
    cluster = google.create("cluster", "c", **inputs, **OFF)
    assert definitions(google) == set()
    cluster = google.update(cluster, **inputs, **ON)
    assert definitions(google) == {f"{n}.1.34" for n in ("gateways", "healthcheckpolicies", "pools")}
    # Switched off again, they stay: Google only no longer looks after them.
    cluster = google.update(cluster, **inputs, **OFF)
    assert "gateways.1.34" in definitions(google)
    google.delete(cluster)
    assert definitions(google) == set()


def test_an_older_gke_has_an_older_gateway_api_and_no_pools(google):
    google.make_cluster(minMasterVersion="1.33", **ON)
    assert definitions(google) == {"gateways.1.33", "healthcheckpolicies.1.33"}


@pytest.mark.parametrize(
    ("version", "pools"),
    [
        ("1.34.0-gke.1625999", False),
        ("1.34.0-gke.1626000", True),
        ("1.33.9-gke.9999999", False),
        ("1.40.0-gke.1", True),
    ],
)
def test_pools_come_from_one_version_on(version, pools):
    assert releases.has_pools(version) is pools


@pytest.mark.parametrize("version", ["1.34", "1.34.1", "1.34.1-gke.1822000"])
def test_a_version_may_be_given_in_part(google, version):
    assert outputs(google.make_cluster(minMasterVersion=version))["masterVersion"] == "1.34.1-gke.1822000"


def test_a_version_that_nobody_offers_is_refused(google):
    with pytest.raises(Refusal, match="unsupported"):
        google.make_cluster(minMasterVersion="1.34.1-gke.1000000")
