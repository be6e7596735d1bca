"""What a test or a user sets for the simulated project: quotas, offers, stock-outs, refusals, durations.

The file `cloud/settings.yaml` of the rehearsal is read at every look, so everything can be set and
lifted while a program runs:

    services: [compute.googleapis.com]    # APIs that are on from the start
    quotas:                               # the first that matches counts; without one there is plenty
    - {metric: TPUS_PER_TPU_FAMILY, region: europe-west4, limit: 8}   # chips
    offers:                               # over the catalogue's own answer
    - {machine: "n1-*", zone: "europe-west4-*", offered: false}
    stockOuts:                            # offered, but none is free now
    - {machine: "ct6e-*", zone: europe-west4-a, capacity: on-demand}
    refusals:                             # any operation, by shell patterns; `times` counts down
    - {kind: container/nodePool, name: "*", operation: create, status: 503, message: try later, times: 1}
    operations: {container/nodePool: 2}   # seconds that an operation takes
    propagation: {projects/service: 3}    # seconds until others see something new
    versions: ["1.34", "1.33"]            # GKE minors that are offered
    autoscaler: {idleSeconds: 15, nodeSeconds: 0, backoffSeconds: 5}
    certificates:                         # of Certificate Manager, which somebody else has made
    - {name: llm, region: europe-west4, domains: [llm.example.com]}
    secrets:                              # of the clouds' stores; a region is Amazon's, version and state Google's
    - {name: prod/hf-token, region: us-east-1, text: hf_example}
    gatewayClasses: 1                     # seconds from a cluster's start until Google's GatewayClasses are there
    account: {lacks: ["container.*"]}     # the caller and the project, for the REST API: rehearsal/cloud/google_api.py
    aws: {account: "123456789012"}        # Amazon's: see below
    web: {models: [{name: "meta-llama/*", gated: true}]}    # what others answer: rehearsal/cloud/web.py

`quotas`, `offers`, `stockOuts`, `refusals`, `operations`, `propagation` and `autoscaler` hold for Amazon as well, with
its own names: a quota is {metric: L-DB2E81BA, region: us-east-1, limit: 16} (vCPUs), a refusal has a code, such as
{kind: eks/nodeGroup, operation: create, code: ThrottlingException, message: slow down}. What is Amazon's alone:

    aws:
      account: "123456789012"             # whose credentials the provider has; else the first that it allows
      versions: ["1.33", "1.34", "1.35"]  # Kubernetes minors that EKS offers
      gpuSeconds: 1                       # from a node's start until the GPU operator has made its GPUs known
      balancerSeconds: 0                  # from a Service's creation until its load balancer has a name
      lacks: ["ec2:Describe*"]            # the caller and the account, for `aws`: rehearsal/cloud/aws_account.py
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Final

import yaml

from rehearsal.cloud.releases import RELEASES

PLENTY: Final = 1024
VERSIONS: Final = tuple(RELEASES)
GATEWAY_CLASS_SECONDS: Final = 1.0
EKS_VERSIONS: Final = ("1.33", "1.34", "1.35")
GPU_SECONDS: Final = 1.0
OWN_ADDRESS: Final = "192.0.2.10"
_SECTIONS: Final = frozenset(
    (
        "services", "quotas", "offers", "stockOuts", "refusals",
        "operations", "propagation", "versions", "autoscaler", "gatewayClasses",
        "account", "web", "aws",
        "certificates", "secrets",
    )
)  # fmt: skip


class BadSettings(Exception):
    """The settings file cannot mean what it says; the message names the file and the word."""


@dataclass(frozen=True)
class Pace:
    """Of the simulated autoscaler: seconds a node may idle, a new one takes, and a failed pool is left alone."""

    idle: float = 15.0
    node: float = 0.0
    backoff: float = 5.0


@dataclass(frozen=True)
class Settings:
    """The settings in force now; an absent file means that Google has plenty of everything."""

    file: Path

    @classmethod
    def of(cls, rehearsal: Path) -> Settings:
        """Those of the rehearsal in this directory."""
        return cls(rehearsal / "cloud" / "settings.yaml")

    @property
    def services(self) -> tuple[str, ...]:
        """APIs that are on without anybody having enabled them."""
        return tuple(self._read().get("services") or ())

    @property
    def versions(self) -> tuple[str, ...]:
        """GKE minors that are offered."""
        return tuple(str(v) for v in self._read().get("versions") or VERSIONS)

    @property
    def pace(self) -> Pace:
        """How fast the autoscaler acts."""
        given, default = self._read().get("autoscaler") or {}, Pace()
        return Pace(
            float(given.get("idleSeconds", default.idle)),
            float(given.get("nodeSeconds", default.node)),
            float(given.get("backoffSeconds", default.backoff)),
        )

    @property
    def aws_account(self) -> str:
        """The account whose credentials the simulated provider has; "" for whichever it allows."""
        return str(self.aws.get("account") or "")

    @property
    def eks_versions(self) -> tuple[str, ...]:
        """Kubernetes minors that EKS offers."""
        return tuple(str(v) for v in self.aws.get("versions") or EKS_VERSIONS)

    @property
    def gpu_seconds(self) -> float:
        """How long the GPU operator takes to make a new node's GPUs known."""
        return float(self.aws.get("gpuSeconds", GPU_SECONDS))

    @property
    def balancer_seconds(self) -> float:
        """How long a load balancer of Amazon's takes until it has a name."""
        return float(self.aws.get("balancerSeconds", 0.0))

    @property
    def aws(self) -> Mapping[str, Any]:
        """What is Amazon's alone; of the caller and the account see rehearsal/cloud/aws_account.py."""
        return self._read().get("aws") or {}

    def bucket(self, name: str) -> Mapping[str, Any]:
        """What is known of a bucket of S3; empty where it is there and has everything."""
        return next((entry for entry in self.aws.get("buckets") or () if _matches(entry, {"name": name})), {})

    @property
    def gateway_class_seconds(self) -> float:
        """How long Google's GatewayClasses take to appear; on a real cluster it can be most of an hour."""
        return float(self._read().get("gatewayClasses", GATEWAY_CLASS_SECONDS))

    def certificate(self, name: str, region: str) -> tuple[str, ...] | None:
        """The names in a certificate that somebody else has made; None where there is no such certificate."""
        found = next(self._matching("certificates", name=name, region=region), None)
        return None if found is None else tuple(found.get("domains") or ())

    def secret(self, name: str, **where: str) -> Mapping[str, Any] | None:
        """A secret that somebody keeps in a store of the cloud, with its `text`; None where there is none."""
        return next(self._matching("secrets", name=name, **where), None)

    @property
    def account(self) -> Mapping[str, Any]:
        """Of the caller and the project, as the REST API shows them."""
        return self._read().get("account") or {}

    def web(self, section: str, name: str) -> Mapping[str, Any]:
        """How Hugging Face (`models`) or a registry (`images`) answers for a name; empty where it just does."""
        entries = (self._read().get("web") or {}).get(section) or ()
        return next((entry for entry in entries if _matches(entry, {"name": name})), {})

    @property
    def own_address(self) -> str:
        """The address by which this machine is known on the internet."""
        return str((self._read().get("web") or {}).get("address") or OWN_ADDRESS)

    def quota(self, metric: str, region: str) -> int:
        """The limit of a metric in a region."""
        return next((int(q["limit"]) for q in self._matching("quotas", metric=metric, region=region)), PLENTY)

    def offered(self, machine: str, zone: str, otherwise: bool) -> bool:
        """Whether a zone has a machine type; `otherwise` is what the catalogue says."""
        return next(
            (bool(o["offered"]) for o in self._matching("offers", machine=machine, zone=zone)), otherwise
        )

    def stocked_out(self, machine: str, zone: str, capacity: str) -> bool:
        """Whether no machine of this type and kind of capacity is free now."""
        found = self._matching("stockOuts", machine=machine, zone=zone, capacity=capacity)
        return next(found, None) is not None

    def refusals(self, kind: str, name: str, operation: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """(key, entry) of every injected refusal that means this operation."""
        for index, entry in enumerate(self._entries("refusals")):
            if _matches(entry, {"kind": kind, "name": name, "operation": operation}):
                yield f"{index}:{entry.get('message', '')}", entry

    def seconds(self, kind: str) -> float:
        """How long an operation on this kind takes."""
        return float((self._read().get("operations") or {}).get(kind, 0.0))

    def propagation(self, kind: str) -> float:
        """How long others do not see a new resource of this kind."""
        return float((self._read().get("propagation") or {}).get(kind, 0.0))

    def _matching(self, section: str, **values: str) -> Iterator[Mapping[str, Any]]:
        return (entry for entry in self._entries(section) if _matches(entry, values))

    def _entries(self, section: str) -> list[dict[str, Any]]:
        return self._read().get(section) or []

    def _read(self) -> dict[str, Any]:
        try:
            document = yaml.safe_load(self.file.read_text()) or {}
        except FileNotFoundError:
            return {}
        if not isinstance(document, dict) or (unknown := document.keys() - _SECTIONS):
            what = "is no mapping" if not isinstance(document, dict) else f"has {', '.join(sorted(unknown))}"
            raise BadSettings(f"{self.file} {what}; there are: {', '.join(sorted(_SECTIONS))}")
        return document


def _matches(entry: Mapping[str, Any], values: Mapping[str, str]) -> bool:
    """Whether every pattern that the entry has matches; a missing one matches everything."""
    return all(fnmatch(value, str(entry.get(name, "*"))) for name, value in values.items())
