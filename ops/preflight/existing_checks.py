"""What an existing cluster's answers mean for a stack's first `up`. Pure: needs and facts in, findings out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from components.clusters.handle import AcceleratorPool
from components.core import labels
from components.platform.platform import BUNDLES
from ops.preflight.existing_facts import Definition, Needs, Node, Version
from ops.preflight.verdicts import Check, Finding, advice, failed, passed, unseen
from ops.references import Reference

# What cert-manager 1.21 and KServe 0.20 support (components/platform/lock.yaml).
OLDEST, NEWEST = (1, 33), (1, 36)
# The API groups by which an operator is known, and its key in the configuration.
GROUPS = {
    "cert-manager": (("cert-manager.io", "acme.cert-manager.io"), "certManager"),
    "istio": (("networking.istio.io", "security.istio.io"), "istio"),
    "gateway-api": (("gateway.networking.k8s.io",), "gatewayApi"),
    "inference-extension": (("inference.networking.k8s.io",), "inferenceExtension"),
    "kserve": (("serving.kserve.io",), "kserve"),
    "leader-worker-set": (("leaderworkerset.x-k8s.io",), "leaderWorkerSet"),
    "gpu-operator": (("nvidia.com",), "gpuOperator"),
}


def reachable(found: Version) -> Iterator[Finding]:
    here = (found.major, found.minor)
    if OLDEST <= here <= NEWEST:
        yield passed(f"{found.full} at {found.server}")
        return
    supported = " to ".join(f"{major}.{minor}" for major, minor in (OLDEST, NEWEST))
    way = "upgrade the cluster" if here < OLDEST else "use newer operators once this program has them"
    yield advice(
        f"{found.full} at {found.server}; the pinned operators support {supported}",
        f"{way}, or try it on a cluster that nobody needs",
    )


def operators(
    needs: Needs, definitions: tuple[Definition, ...], namespaces: Mapping[str, bool]
) -> Iterator[Finding]:
    for name in sorted(needs.managed):
        yield _managed(name, needs, definitions, namespaces)
    for name in needs.provided:
        yield from _provided(name, definitions)


def _managed(
    name: str, needs: Needs, definitions: tuple[Definition, ...], namespaces: Mapping[str, bool]
) -> Finding:
    groups, key = GROUPS[name]
    theirs = f"set platform.{key} to provided, and it is used as it is; or remove it from the cluster"
    here = [one for one in definitions if one.group in groups]
    if name in BUNDLES:
        return _bundle(name, needs.bundles[BUNDLES[name]], here, theirs)
    releases = needs.releases[name]
    taken = sorted(
        {r.partition("/")[0] for r in releases} & {n for n, ours in namespaces.items() if not ours}
    )
    if taken:
        return failed(f"the namespace {', '.join(taken)} is there, and somebody else's", theirs, name)
    foreign = [one for one in here if one.release not in releases]
    if foreign:
        owner = f"the Helm release {foreign[0].release}" if foreign[0].release else "somebody else"
        return failed(f"{foreign[0].name} is there already, by {owner}: Helm refuses it", theirs, name)
    return passed("installed by `up`" + (", its definitions are here from before" if here else ""), name)


def _bundle(name: str, ours: str, here: list[Definition], theirs: str) -> Finding:
    """Definitions that many share: `up` brings them to the pinned version, but never back."""
    newer = [one for one in here if one.bundle and _numbers(one.bundle) > _numbers(ours)]
    if newer:
        return failed(f"{newer[0].bundle} is here, and `up` would go back to {ours}", theirs, name)
    return passed(f"{ours}, by `up`" + (f"; {here[0].bundle or 'some'} is here" if here else ""), name)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.removeprefix("v").split("-")[0].split(".") if part.isdecimal())


def _provided(name: str, definitions: tuple[Definition, ...]) -> Iterator[Finding]:
    groups, key = GROUPS[name]
    if name == "gpu-operator":
        return  # Drivers and device plugins can come with the nodes.
    missing = [group for group in groups if not any(one.group == group for one in definitions)]
    if missing:
        yield failed(
            f"it is not on the cluster: no definition of {', '.join(missing)}",
            f"install it, or remove platform.{key}: provided",
            name,
        )
    else:
        yield passed("on the cluster, and left alone", name)


def accelerators(needs: Needs, nodes: tuple[Node, ...]) -> Iterator[Finding]:
    for name, pool in sorted(needs.pools.items()):
        yield _pool(name, pool, needs.wanted.get(name, 0), nodes)


def _pool(name: str, pool: AcceleratorPool, wanted: int, nodes: tuple[Node, ...]) -> Finding:
    selector = ",".join(f"{key}={value}" for key, value in sorted(pool.node_selector.items()))
    found = [node for node in nodes if pool.node_selector.items() <= node.labels.items() and node.ready]
    resource = pool.accelerator.resource
    able = [node for node in found if int(node.allocatable.get(resource, 0)) >= pool.chips_per_node]
    if found and not able:
        return failed(
            f"{len(found)} nodes with {selector}, none with {pool.chips_per_node} {resource}",
            "see to drivers and device plugin, or correct perNode",
            name,
        )
    said = f"{len(able)} nodes with {selector} and {pool.chips_per_node} {resource}, {wanted} needed"
    if len(able) < wanted:
        return unseen(f"{said}: pods stay Pending", "add nodes, unless an autoscaler does", name)
    return passed(said, name)


def permissions(refused: tuple[str, ...]) -> Iterator[Finding]:
    if not refused:
        yield passed("everything that `up` makes may be made")
        return
    rest = f" and {len(refused) - 8} more" if len(refused) > 8 else ""
    yield failed(
        f"you may not {', '.join(refused[:8])}{rest}",
        "have the ClusterRole cluster-admin bound to you: charts bring roles that only it may give",
    )


def kept_secrets(found: Mapping[Reference, str | None]) -> Iterator[Finding]:
    for reference, fault in found.items():
        what = str(reference)
        if fault is None:
            yield advice(
                "`up` makes its namespace; the model's pods are made once the Secret is there",
                f"have it synced into every namespace with the label {labels.ROUTES}, or make it while `up` waits",
                what,
            )
        elif fault:
            yield failed(f"{fault}, and the model's pods would not be made", reference.fix, what)
        else:
            yield passed(f"it has {' and '.join(reference.keys)}, for {reference.path}", what)


CHECKS = (
    Check("cluster", ("version",), reachable),
    Check("operator", ("needs", "definitions", "namespaces"), operators),
    Check("accelerator", ("needs", "nodes"), accelerators),
    Check("permissions", ("refused",), permissions),
    Check("kept secret", ("kept_secrets",), kept_secrets),
)
