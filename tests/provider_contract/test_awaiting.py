"""Readiness: what is waited for, how long, what a time-out says, and how the next run goes on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import pulumi
import pulumi_kubernetes as k8s
import pytest

from ops.kube import ApiError, Manifest
from tests.provider_contract.conftest import Contract, Kubelet, Outcome, definition, deployment

pytestmark = [pytest.mark.rehearsed, pytest.mark.long]

SHORT = pulumi.ResourceOptions(custom_timeouts=pulumi.CustomTimeouts(create="2s", update="60s"))


class Program:
    """Deployments, waits and a custom resource; `images` is where every pod runs, `stuck` where none does."""

    def __init__(self, contract: Contract, stuck: str, running: str):
        self._contract, self._stuck, self._running = contract, stuck, running
        self.group = f"{running}.example.com"

    def __call__(self) -> None:
        opts = self._contract.provider()
        short = pulumi.ResourceOptions.merge(opts, SHORT)
        self._deployments(opts, short)
        self._annotated(opts, short)
        widget = {"metadata": {"name": "naive", "namespace": self._running}}
        api = {"api_version": f"{self.group}/v1", "kind": "Widget"}
        k8s.apiextensions.CustomResource("naive", **api, **widget, opts=opts)
        ready = {
            "name": "ready",
            "namespace": self._running,
            "annotations": {"pulumi.com/waitFor": "condition=Ready"},
        }
        k8s.apiextensions.CustomResource("ready", **api, metadata=ready, opts=opts)

    def _deployments(self, opts: pulumi.ResourceOptions, short: pulumi.ResourceOptions) -> None:
        for name, namespace, notes, options in (
            ("stuck", self._stuck, {}, short),
            ("skipped", self._stuck, {"pulumi.com/skipAwait": "true"}, opts),
            ("running", self._running, {}, opts),
        ):
            meta = {"name": name, "namespace": namespace, "annotations": notes}
            k8s.apps.v1.Deployment(name, metadata=meta, spec=deployment({"app": name}), opts=options)

    def _annotated(self, opts: pulumi.ResourceOptions, short: pulumi.ResourceOptions) -> None:
        for name, wanted, options in (
            ("told", "jsonpath={.data['a.b']}=yes", opts),
            ("untold", '["jsonpath={.data.k}", "jsonpath={.data.never}=yes"]', short),
        ):
            notes = {"pulumi.com/waitFor": wanted}
            meta = {"name": name, "namespace": self._running, "annotations": notes}
            k8s.core.v1.ConfigMap(name, metadata=meta, data={"k": "v"}, opts=options)


@dataclass(frozen=True)
class Story:
    first: Outcome
    state: dict[str, Manifest]
    uid: str
    second: Outcome
    same_uid: str
    last: Outcome


def soon(action: Callable[[], object]) -> None:
    """Do something beside the engine, as soon as it can be done."""

    def run() -> None:
        while True:
            try:
                return action()
            except (ApiError, LookupError, TypeError):
                time.sleep(0.2)

    threading.Thread(target=run, daemon=True).start()


@pytest.fixture(scope="module")
def story(contract: Contract) -> Story:
    stack, kube = contract.stack(), contract.kube
    stuck, running = contract.namespace(), contract.namespace()
    program = Program(contract, stuck, running)
    kube.create(definition(program.group))
    key = {"data": {"a.b": "yes"}}
    ready = {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}
    soon(lambda: kube.patch("v1", "ConfigMap", "told", running, key))
    soon(lambda: kube.patch(f"{program.group}/v1", "Widget", "ready", running, ready, subresource="status"))
    with Kubelet(kube, stuck, "ErrImagePull"), Kubelet(kube, running):
        first, state = stack.up(program), stack.state()
    uid = kube.get("apps/v1", "Deployment", "stuck", stuck)["metadata"]["uid"]
    kube.patch("v1", "ConfigMap", "untold", running, {"data": {"never": "yes"}})
    with Kubelet(kube, stuck):
        second = stack.up(program)
    same_uid = kube.get("apps/v1", "Deployment", "stuck", stuck)["metadata"]["uid"]
    return Story(first, state, uid, second, same_uid, stack.preview(program))


def test_what_is_or_becomes_ready_passes(story):
    for name in ("running", "told", "ready"):
        assert not story.state[name].get("initErrors"), name


def test_a_custom_resource_is_ready_as_soon_as_it_exists(story):
    assert not story.state["naive"].get("initErrors")


def test_an_annotation_skips_the_wait(story):
    assert not story.state["skipped"].get("initErrors")


def test_a_deployment_that_times_out_is_kept_with_its_pods_reason(story):
    assert not story.first.ok
    assert "'stuck' timed out waiting to be Ready" in story.first.output
    reasons = "\n".join(story.state["stuck"]["initErrors"])
    assert "Minimum number of live Pods was not attained" in reasons
    assert "ErrImagePull" in reasons and "no such image" in reasons


def test_a_condition_that_never_comes_times_out_and_is_kept(story):
    assert "timed out waiting for the condition" in story.first.output
    assert story.state["untold"]["initErrors"]


def test_the_next_run_updates_what_was_half_made_and_then_nothing_is_left_to_do(story):
    assert story.second.ok, story.second.output
    assert story.second.changed == {"stuck": ["update"], "untold": ["update"]}
    assert story.same_uid == story.uid
    assert story.last.changed == {}


def test_an_interrupt_ends_a_wait_and_keeps_what_was_made(contract):
    stack, namespace = contract.stack(), contract.namespace()
    spec = deployment({"app": "slow"})

    def program():
        meta = {"name": "slow", "namespace": namespace}
        k8s.apps.v1.Deployment("slow", metadata=meta, spec=spec, opts=contract.provider())

    def interrupt() -> None:
        observed = contract.kube.get("apps/v1", "Deployment", "slow", namespace)["status"][
            "observedGeneration"
        ]
        assert observed
        stack.interrupt()

    soon(interrupt)
    outcome = stack.up(program)
    assert not outcome.ok and 'Resource operation was cancelled for "slow"' in outcome.output
    assert stack.state()["slow"]["initErrors"]


@pytest.mark.parametrize(("notes", "anew"), [({"pulumi.com/replaceUnready": "true"}, True), ({}, False)])
def test_a_job_that_failed_is_made_anew_only_where_it_says_so(contract, notes, anew):
    stack, namespace = contract.stack(), contract.namespace()
    pod = {"restartPolicy": "Never", "containers": [{"name": "c", "image": "example.com/nobody-has:v1"}]}
    # No node runs it, so that the controller ends it.
    spec = {"activeDeadlineSeconds": 1, "template": {"spec": pod}}

    def program():
        meta = {"name": "job", "namespace": namespace, "annotations": notes}
        k8s.batch.v1.Job("job", metadata=meta, spec=spec, opts=contract.provider())

    identity = lambda: contract.kube.get("batch/v1", "Job", "job", namespace)["metadata"]["uid"]
    first = stack.up(program)
    assert not first.ok and "DeadlineExceeded" in first.output
    before = identity()
    assert not stack.up(program).ok
    assert (identity() != before) is anew
