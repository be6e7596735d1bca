"""A stack whose cluster cannot be reached: previews show the plan with a warning, changes are refused."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.rehearsed


@pytest.fixture
def gone(stack):
    """The dev stack, prepared, its cluster stopped."""
    stack.rehearsal.start(stack.name)
    stack.rehearsal.processes.stop_all()
    return stack


def test_a_preview_without_a_reachable_cluster_shows_the_plan_with_a_warning(gone):
    outcome = gone.finish(gone.launch("preview"))
    assert outcome.status == 0, outcome.output
    assert "qwen3-0-6b" in outcome.changed()
    assert "warning: the cluster of context llm-platform-dev cannot be reached" in outcome.output


def test_up_is_refused_without_a_reachable_cluster_and_nothing_is_recorded(gone):
    outcome = gone.finish(gone.launch("up"))
    assert outcome.status != 0 and "unreachable" in outcome.output
    objects = [r["type"] for r in gone.exported() if r["type"].startswith("kubernetes:")]
    assert objects == []


def test_a_missing_kubeconfig_is_a_warning_in_a_preview_and_a_refusal_in_up(gone):
    gone.paths.kubeconfig.unlink()
    outcome = gone.finish(gone.launch("preview"))
    assert outcome.status == 0 and "does not exist" in outcome.output, outcome.output
    outcome = gone.finish(gone.launch("up"))
    assert outcome.status != 0 and "does not exist" in outcome.output
