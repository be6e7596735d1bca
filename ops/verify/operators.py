"""What models rest on, before there is any: operators' pods, their definitions, and webhooks that answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from components.core.services import SERVICE_KINDS
from components.platform.platform import releases_of
from ops import helm
from ops.kube import ApiError, Kube, Manifest
from ops.status import judge
from ops.verify.bench import Bench
from ops.verify.verdicts import Result, Verdict, failed, inapplicable, passed, unchecked
from stacks import translate

WORKLOADS = (("apps/v1", "Deployment"), ("apps/v1", "StatefulSet"), ("apps/v1", "DaemonSet"))
NAMESPACE, NAME = "default", "llmp-verify"
_HELM = "app.kubernetes.io/managed-by=Helm"
_OWNER = "meta.helm.sh/release-namespace", "meta.helm.sh/release-name"
_STATUS = "`python -m ops status` says what it waits for"


def _object(api_version: str, kind: str, **spec: object) -> Manifest:
    return {
        "apiVersion": api_version,
        "kind": kind,
        "metadata": {"name": NAME, "namespace": NAMESPACE},
        "spec": spec,
    }


_POD = {"containers": [{"name": "main", "image": "example.invalid/none:0"}]}


@dataclass(frozen=True)
class Operator:
    """What an operator serves: kinds by apiVersion, and an object that its webhooks see in a dry run."""

    kinds: tuple[tuple[str, str], ...]
    question: Manifest | None = None


OPERATORS: Mapping[str, Operator] = {
    "cert-manager": Operator(
        (("cert-manager.io/v1", "Certificate"), ("cert-manager.io/v1", "Issuer")),
        _object(
            "cert-manager.io/v1",
            "Certificate",
            secretName=NAME,
            dnsNames=["verify.example.com"],
            issuerRef={"name": NAME, "kind": "Issuer"},
        ),
    ),
    "istio": Operator(
        (
            ("networking.istio.io/v1", "DestinationRule"),
            ("networking.istio.io/v1alpha3", "EnvoyFilter"),
            ("security.istio.io/v1", "AuthorizationPolicy"),
        ),
        _object("networking.istio.io/v1", "DestinationRule", host="verify.example.com"),
    ),
    "gateway-api": Operator(
        (("gateway.networking.k8s.io/v1", "Gateway"), ("gateway.networking.k8s.io/v1", "HTTPRoute"))
    ),
    "inference-extension": Operator((("inference.networking.k8s.io/v1", "InferencePool"),)),
    "kserve": Operator(
        tuple((kind.api_version, kind.kind) for kind in SERVICE_KINDS.values()),
        _object(
            "serving.kserve.io/v1alpha2",
            "LLMInferenceService",
            model={"uri": "hf://llm-platform/verify"},
            replicas=0,
        ),
    ),
    "leader-worker-set": Operator(
        (("leaderworkerset.x-k8s.io/v1", "LeaderWorkerSet"),),
        _object(
            "leaderworkerset.x-k8s.io/v1",
            "LeaderWorkerSet",
            replicas=0,
            leaderWorkerTemplate={"size": 1, "workerTemplate": {"spec": _POD}},
        ),
    ),
}


def look(bench: Bench) -> Iterator[Result]:
    """Every operator that the stack installs or counts on."""
    managed, _ = translate.operators(bench.config)
    installed = _installed(bench.cluster)
    for name, operator in OPERATORS.items():
        if name == "istio" and bench.config.gateway.kind != "istio":
            continue
        bench.say(f"  {name}")
        subject = f"operator {name}"
        yield Result(subject, "pods", _pods(bench, name, installed) if name in managed else _foreign())
        yield Result(subject, "definitions", _definitions(bench.cluster, operator))
        yield Result(subject, "webhooks", _webhooks(bench.cluster, operator))


def _foreign() -> Verdict:
    return inapplicable("this stack does not install it; somebody else looks after its pods")


def _installed(kube: Kube) -> dict[tuple[str, str], list[Manifest]]:
    """Workloads by namespace and name of the Helm release that installed them."""
    found: dict[tuple[str, str], list[Manifest]] = {}
    for kind in WORKLOADS:
        for live in kube.list(*kind, selector=_HELM):
            marks = live["metadata"].get("annotations") or {}
            found.setdefault((marks.get(_OWNER[0], ""), marks.get(_OWNER[1], "")), []).append(live)
    return found


def _pods(bench: Bench, name: str, installed: Mapping[tuple[str, str], list[Manifest]]) -> Verdict:
    wanted = {spec.name for spec in releases_of([name], translate.kserve_args(bench.config))}
    releases = [r for r in bench.state.releases if r.release[1] in wanted]
    if not releases and wanted:
        return failed("it is not installed", "run `pulumi up`")
    last = {r.release[1]: helm.revisions(bench.cluster, *r.release)[-1:] for r in releases}
    broken = [f"Helm release {n} is {e[0].status if e else 'gone'}" for n, e in last.items() if not _done(e)]
    return judge_pods(broken, [live for r in releases for live in installed.get(r.release, ())])


def _done(revisions: Sequence[helm.Revision]) -> bool:
    return bool(revisions) and revisions[0].status == "deployed"


def judge_pods(broken: Sequence[str], workloads: Sequence[Manifest]) -> Verdict:
    """Whether an operator's releases are deployed and its workloads complete."""
    problems = [f"{live['metadata']['name']}: {said}" for live in workloads for said in judge.problems(live)]
    if broken or problems:
        return failed("; ".join((*broken, *problems)), _STATUS)
    if not workloads:
        return passed("installed; it runs nothing of its own")
    names = ", ".join(sorted(live["metadata"]["name"] for live in workloads))
    return passed(f"complete: {names}")


def _definitions(kube: Kube, operator: Operator) -> Verdict:
    missing = []
    for api_version, kind in operator.kinds:
        try:
            kube.kind(api_version, kind)
        except ApiError as error:
            missing.append(error.message)
    if missing:
        return failed("; ".join(missing), "install its definitions: `pulumi up`, or whoever looks after it")
    return passed(", ".join(f"{kind} ({version})" for version, kind in operator.kinds))


def _webhooks(kube: Kube, operator: Operator) -> Verdict:
    if operator.question is None:
        return inapplicable("it has none")
    try:
        kube.create(operator.question, dryRun="All")
    except ApiError as error:
        return judge_refusal(error)
    return passed(f"took a {operator.question['kind']} in a dry run")


def judge_refusal(error: ApiError) -> Verdict:
    """What it means that a question was refused: a webhook that does not answer, or one that did."""
    said = judge.shortened(error.message)
    if error.code == 403 and "admission webhook" not in error.message:
        return unchecked(said, "you may not create such objects: ask with an account that may")
    if error.code in (400, 403, 422):
        return failed(
            f"a webhook refuses what it should take: {said}", "do its version and ours fit together?"
        )
    return failed(said, f"the API server does not reach the webhook: are firewall rules in place? {_STATUS}")
