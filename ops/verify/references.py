"""Whether the Secrets that somebody else keeps for the models are where the stack file says."""

from __future__ import annotations

from collections.abc import Iterator

from ops.references import references
from ops.verify.bench import Bench
from ops.verify.verdicts import Result, failed, passed

SUBJECT = "secrets"


def look(bench: Bench) -> Iterator[Result]:
    """One row for each of them and namespace; none where the stack makes all that it uses."""
    for reference in references(bench.config):
        live = bench.cluster.get("v1", "Secret", reference.name, reference.namespace)
        fault = reference.fault(live)
        verdict = (
            failed(fault, reference.fix)
            if fault
            else passed(f"it has {' and '.join(reference.keys)}, for {reference.path}")
        )
        yield Result(SUBJECT, str(reference), verdict)
