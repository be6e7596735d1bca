"""Which facts are collected and which checks are made, by the kind of cluster. Another cloud is another row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from ops.errors import OpsError
from ops.preflight import local_checks, local_facts, web_checks, web_facts
from ops.preflight.site import Site, explain
from ops.preflight.verdicts import Check, Collector, Verdict, collect, judge


@dataclass(frozen=True)
class Plan:
    """What is asked and judged for one kind of cluster, beside what every stack has; modules by name, not loaded yet.

    `permissions` has a function `role`, from the name of a role and the site to that role as its cloud takes it.
    """

    facts: str
    checks: str
    permissions: str = ""


PLANS: Mapping[str, Plan] = {
    "gke": Plan(
        "ops.preflight.google_facts", "ops.preflight.google_checks", "ops.preflight.google_permissions"
    ),
    "eks": Plan("ops.preflight.aws_facts", "ops.preflight.aws_checks", "ops.preflight.aws_permissions"),
    "existing": Plan("ops.preflight.existing_facts", "ops.preflight.existing_checks"),
}


def verdicts(site: Site) -> list[Verdict]:
    """Collect everything and judge it. OpsError where the configuration cannot be read, or has no plan."""
    plan = _plan(site)
    facts, checks = import_module(plan.facts), import_module(plan.checks)
    collectors: dict[str, Collector] = {
        **local_facts.COLLECTORS,
        **web_facts.COLLECTORS,
        **facts.COLLECTORS,
    }
    known: dict[str, Any] = collect(collectors, site, explain)
    rows: tuple[Check, ...] = (*local_checks.CHECKS, *checks.CHECKS, *web_checks.CHECKS)
    return judge(rows, known)


def role(site: Site, name: str) -> str:
    """The role `deploy` or `preview`, as the cloud's command takes it. OpsError for a cluster that has none."""
    plan = _plan(site)
    if not plan.permissions:
        kinds = ", ".join(kind for kind, other in PLANS.items() if other.permissions)
        raise OpsError(
            f"clusters of kind {site.config.cluster.kind} need no role of a cloud's; those of kind {kinds} do"
        )
    return str(import_module(plan.permissions).role(name, site))


def _plan(site: Site) -> Plan:
    kind = site.config.cluster.kind
    if kind not in PLANS:
        raise OpsError(f"there are no checks for clusters of kind {kind} yet; there are: {', '.join(PLANS)}")
    return PLANS[kind]
