"""What a caller may have to do in the project, per resource type of this program. Pure data.

Two roles follow from it: `deploy` runs `up` and `destroy`, `preview` only reads. Access to the state's bucket and to
the key of its secrets is given on these themselves (docs/bootstrap-gcp.md), so it is in no role of the project.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import yaml

from ops.preflight.google_needs import google_needs
from ops.preflight.site import Site

_CRUD = ("create", "delete", "get", "update")
_WHOLE = (*_CRUD, "list")
# A new rule, route or subnet is a change of its network.
_NETWORK = "compute.networks.updatePolicy"


def _of(resource: str, verbs: Iterable[str] = _CRUD) -> tuple[str, ...]:
    return tuple(f"{resource}.{verb}" for verb in verbs)


# By the type of a resource that `up` registers; a test compares the types with those of the stacks.
BY_TYPE: Mapping[str, tuple[str, ...]] = {
    "gcp:projects/service:Service": (
        "serviceusage.services.enable",
        *_of("serviceusage.services", ("get", "list", "use")),
    ),
    "gcp:projects/iAMMember:IAMMember": _of(
        "resourcemanager.projects", ("get", "getIamPolicy", "setIamPolicy")
    ),
    "gcp:serviceaccount/account:Account": (
        *_of("iam.serviceAccounts"),
        # Whoever gives nodes an account acts as it.
        "iam.serviceAccounts.actAs",
    ),
    "gcp:compute/network:Network": (*_of("compute.networks"), _NETWORK, "compute.globalOperations.get"),
    "gcp:compute/subnetwork:Subnetwork": (
        *_of("compute.subnetworks"),
        "compute.subnetworks.expandIpCidrRange",
        _NETWORK,
        "compute.regionOperations.get",
    ),
    "gcp:compute/router:Router": (*_of("compute.routers"), _NETWORK, "compute.regionOperations.get"),
    "gcp:compute/routerNat:RouterNat": _of("compute.routers", ("get", "update")),
    "gcp:compute/firewall:Firewall": (*_of("compute.firewalls"), _NETWORK, "compute.globalOperations.get"),
    "gcp:container/cluster:Cluster": (
        *_of("container.clusters", _WHOLE),
        # The API server by its DNS name asks for this one.
        "container.clusters.connect",
        "container.operations.get",
        # The provider reads the sizes of pools where they are.
        "compute.instanceGroupManagers.get",
    ),
    "gcp:container/nodePool:NodePool": (
        *_of("container.clusters", ("get", "update")),
        "container.operations.get",
        "compute.instanceGroupManagers.get",
    ),
}
# Objects inside the cluster: GKE asks IAM where Kubernetes' own roles do not allow it. Charts bring roles that
# allow more than a caller has, hence `bind` and `escalate`.
_OBJECTS = (
    "clusterRoles", "clusterRoleBindings", "configMaps", "cronJobs", "customResourceDefinitions", "deployments",
    "horizontalPodAutoscalers", "jobs", "mutatingWebhookConfigurations", "namespaces", "networkPolicies",
    "podDisruptionBudgets", "roleBindings", "roles", "secrets", "serviceAccounts", "services", "statefulSets",
    "thirdPartyObjects", "validatingWebhookConfigurations",
)  # fmt: skip
_LOOKED_AT = (
    "daemonSets",
    "endpointSlices",
    "events",
    "nodes",
    "persistentVolumeClaims",
    "pods",
    "replicaSets",
)
IN_CLUSTER: tuple[str, ...] = (
    *(p for kind in _OBJECTS for p in _of(f"container.{kind}", _WHOLE)),
    *(p for kind in _LOOKED_AT for p in _of(f"container.{kind}", ("get", "list"))),
    *(p for kind in ("clusterRoles", "roles") for p in _of(f"container.{kind}", ("bind", "escalate"))),
    "container.apiServices.list",
    "container.pods.getLogs",
)
# What preflight itself asks, beyond the above.
ASKED = (
    "cloudquotas.quotas.get",
    "compute.machineTypes.get",
    "compute.projects.get",
    "compute.regions.get",
    "compute.reservations.get",
    "compute.subnetworks.list",
    "compute.zones.get",
    "container.clusters.list",
    "resourcemanager.projects.get",
)
READING = (".get", ".list", ".getIamPolicy", ".getLogs", ".connect", ".use")

# What the gateway's health tells, where it is Google's: `ops verify` and `ops doctor` ask.
GATEWAY = _of("compute.backendServices", ("get", "list"))
# Of secrets that are kept in the project: `up` reads the value, this command looks whether there is one.
KEPT_SECRETS = _of("secretmanager.versions", ("access", "get"))


def deploy(google_gateway: bool, own_secrets: bool = False) -> tuple[str, ...]:
    """What `up` and `destroy` need in the project, which `own_secrets` says keeps secrets of the stack."""
    more = [*(GATEWAY if google_gateway else ()), *(KEPT_SECRETS if own_secrets else ())]
    rows = [*BY_TYPE.values(), IN_CLUSTER, ASKED, more]
    return tuple(sorted({permission for row in rows for permission in row}))


def preview(google_gateway: bool, own_secrets: bool = False) -> tuple[str, ...]:
    """What a preview and this command need: only to read. The values of Secrets are not read."""
    return tuple(
        p
        for p in deploy(google_gateway, own_secrets)
        if p.endswith(READING) and not p.startswith("container.secrets")
    )


ROLES = {"deploy": deploy, "preview": preview}
_TITLES = {"deploy": "LLM platform deployer", "preview": "LLM platform preview"}


def role(name: str, site: Site) -> str:
    """The role of a stack, as `gcloud iam roles create --file` takes it."""
    needs = google_needs(site.config)
    return role_file(name, needs.google_gateway, needs.own_secrets)


def role_file(name: str, google_gateway: bool, own_secrets: bool = False) -> str:
    """A custom role as `gcloud iam roles create --file` takes it."""
    content: dict[str, Any] = {
        "title": _TITLES[name],
        "description": f"Made by `python -m ops preflight --print-role {name}`.",
        "stage": "GA",
        "includedPermissions": list(ROLES[name](google_gateway, own_secrets)),
    }
    return yaml.safe_dump(content, sort_keys=False)
