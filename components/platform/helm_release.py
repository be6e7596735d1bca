"""The only maker of Helm releases."""

from __future__ import annotations

import pulumi
from pulumi_kubernetes.helm.v3 import Release, RepositoryOptsArgs

from components.platform.artifacts import ChartReference
from components.platform.release import ReleaseSpec

MAX_HISTORY = 5


def helm_release(
    name: str, spec: ReleaseSpec, chart: ChartReference, opts: pulumi.ResourceOptions
) -> Release:
    """Installs a chart and waits until everything in it is ready, jobs included.

    Atomic: an installation that fails is taken back whole, so that the next `up` starts clean instead of
    at "cannot re-use a name that is still in use". The release's name is fixed, because Helm
    writes it into what it owns and other stacks find it by name. The namespace is ours, not Helm's.
    """
    repository = RepositoryOptsArgs(repo=chart.repository) if chart.repository else None
    return Release(
        name,
        name=spec.name,
        chart=chart.chart,
        version=chart.version,
        repository_opts=repository,
        namespace=spec.namespace,
        create_namespace=False,
        values=dict(spec.values),
        atomic=True,
        cleanup_on_fail=True,
        wait_for_jobs=True,
        max_history=MAX_HISTORY,
        timeout=spec.timeout_seconds,
        opts=opts,
    )
