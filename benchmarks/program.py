"""How long a preview takes as models are added, against a program that does nothing else than register resources.

    python -m benchmarks.program [--models 1 10 100 500] [--repeat 2] [--json]

Both programs run through the real Pulumi engine and the same Kubernetes plugin, each in a process of its own: ours
with that many models, the other (the floor) with as many plain config maps as ours registered resources. They
take turns, and the best of the repetitions counts. What the ratio shows is the price of components,
builders and dependencies. There is no cluster: the preview is that of a first `up`. Operators are `provided`,
because Helm loads charts at a price that does not depend on models. Ours runs without Python's cyclic garbage
collector (stacks/build.py), which is why many models can be faster than the floor.

Claimed: at most 1.5 times the floor with 100 models; time grows with the models, no faster; importing takes
less than a second. The exit status is 1 when a claim does not hold.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import resource
import runpy
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

CHECKOUT = Path(__file__).resolve().parent.parent
SIZES = (1, 10, 100)
CLAIMED_RATIO, CLAIMED_AT = 1.5, 100
CLAIMED_IMPORT_SECONDS = 1.0
# Twice the time per model of a smaller run is no longer linear.
CLAIMED_GROWTH = 2.0
STACK = "benchmark"
PARTS = ("certManager", "istio", "gatewayApi", "inferenceExtension", "kserve", "leaderWorkerSet")


@dataclass(frozen=True)
class Measurement:
    """One preview: its wall time, the resources in it, and the program's peak of resident memory."""

    program: str
    models: int
    resources: int
    seconds: float
    megabytes: float


# -- in the measured process ------------------------------------------------------------------------------------


def floor(count: int) -> None:
    """Registers a provider and `count - 2` config maps; the stack itself is the second resource."""
    import pulumi

    from components.clusters.objects import KubernetesObject
    from components.clusters.provider import kubernetes_provider
    from components.core.manifest import manifest

    provider = kubernetes_provider("floor", "floor", context=STACK)
    options = pulumi.ResourceOptions(provider=provider)
    for index in range(count - 2):
        KubernetesObject(f"plain-{index}", manifest("v1", "ConfigMap", f"plain-{index}", "default"), options)


def measure(program: str, models: int, count: int) -> Measurement:
    """Runs one preview in this process."""
    from pulumi import automation

    def ours() -> None:
        runpy.run_path(str(CHECKOUT / "__main__.py"), run_name="__main__")

    stack = automation.create_or_select_stack(
        stack_name=STACK,
        project_name="llm-platform",
        program=ours if program == "ours" else lambda: floor(count),
        opts=automation.LocalWorkspaceOptions(work_dir=os.getcwd()),
    )
    began = time.perf_counter()
    planned = stack.preview().change_summary
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return Measurement(program, models, sum(planned.values()), seconds, peak)


# -- around it --------------------------------------------------------------------------------------------------


def stack_config(models: int) -> dict[str, Any]:
    """A stack with that many models on one pool."""
    model = {
        "uri": "hf://Qwen/Qwen3-0.6B",
        "accelerator": "pool",
        "maxModelLen": 8192,
        "resources": {"memory": "16Gi"},
    }
    pool = {"type": "nvidia-l4", "maxNodes": models}
    return {
        "llm-platform:cluster": {"kind": "existing", "context": STACK, "accelerators": {"pool": pool}},
        "llm-platform:models": {f"model-{index}": model for index in range(models)},
        "llm-platform:platform": dict.fromkeys(PARTS, "provided"),
    }


def workshop(root: Path) -> dict[str, str]:
    """Makes a rehearsal's directories with engine and plugins but no cluster; returns their environment."""
    from rehearsal import engine, toolchain
    from rehearsal.cluster import certificates
    from rehearsal.cluster.ports import free_ports
    from rehearsal.paths import Paths

    paths = Paths(root)
    paths.create()
    tools = toolchain.ensure(only=("pulumi", "helm"))
    for name in tools.names():
        (paths.bin / name).symlink_to(tools.binary(name))
    engine.install_commands(paths)
    nobody = f"https://127.0.0.1:{free_ports(1)[0]}"
    certificates.write_kubeconfig(paths.kubeconfig, nobody, b"", {"token": "none"}, (STACK,))
    search = f"{paths.bin}:{os.environ['PATH']}"
    return {**os.environ, **engine.environment(paths), "HOME": str(paths.home), "PATH": search}


def preview(program: str, models: int, count: int, root: Path, environment: dict[str, str]) -> Measurement:
    """Runs one preview in a process of its own."""
    work = root / program
    work.mkdir()
    project = yaml.safe_load((CHECKOUT / "Pulumi.yaml").read_text())
    (work / "Pulumi.yaml").write_text(yaml.safe_dump(project))
    (work / f"Pulumi.{STACK}.yaml").write_text(yaml.safe_dump({"config": stack_config(models)}))
    backend = work / "state"
    backend.mkdir()
    command = [sys.executable, "-m", "benchmarks.program", "--measure", program, str(models), str(count)]
    done = subprocess.run(
        command,
        env={**environment, "PULUMI_BACKEND_URL": f"file://{backend}"},
        cwd=work,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"the preview of {program} with {models} models failed:\n{done.stdout}{done.stderr}")
    return Measurement(**json.loads(done.stdout.splitlines()[-1]))


def import_seconds() -> float:
    """Time to import the whole program, an interpreter's start taken off; the best of three."""

    def run(code: str) -> float:
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, check=True)
        return time.perf_counter() - began

    return min(run("import stacks.build") - run("pass") for _ in range(3))


def run(sizes: list[int], repeat: int) -> dict[str, Any]:
    """Every measurement, the ratios, and the claims that do not hold."""
    rows: list[Measurement] = []
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        environment = workshop(root)
        for models in sizes:
            rows += compare(models, repeat, root, environment)
    imported = import_seconds()
    return {
        "rows": [asdict(row) for row in rows],
        "ratios": {str(a.models): round(a.seconds / b.seconds, 3) for a, b in pairs(rows)},
        "import_seconds": round(imported, 3),
        "broken_claims": broken(rows, imported),
    }


def compare(models: int, repeat: int, root: Path, environment: dict[str, str]) -> list[Measurement]:
    """The best preview of ours and of the floor, taken by turns so that both see the same machine."""
    ours: list[Measurement] = []
    floors: list[Measurement] = []
    for attempt in range(repeat):
        place = root / f"{models}-{attempt}"
        place.mkdir()
        ours.append(preview("ours", models, 0, place, environment))
        floors.append(preview("floor", models, ours[-1].resources, place, environment))
    return [min(found, key=lambda row: row.seconds) for found in (ours, floors)]


def pairs(rows: list[Measurement]) -> list[tuple[Measurement, Measurement]]:
    """(ours, floor) for each size."""
    return list(zip(rows[::2], rows[1::2], strict=True))


def broken(rows: list[Measurement], imported: float) -> list[str]:
    """The claims of this module that the measurements contradict."""
    found = [
        f"{a.models} models: {a.seconds / b.seconds:.2f} times the floor"
        for a, b in pairs(rows)
        if a.models == CLAIMED_AT and a.seconds > CLAIMED_RATIO * b.seconds
    ]
    many = [a for a, _ in pairs(rows) if a.models >= CLAIMED_AT]
    for small, large in itertools.pairwise(many):
        growth = (large.seconds / large.models) / (small.seconds / small.models)
        if growth > CLAIMED_GROWTH:
            found.append(
                f"from {small.models} to {large.models} models the time per model grows {growth:.2f} times"
            )
    if imported > CLAIMED_IMPORT_SECONDS:
        found.append(f"importing takes {imported:.2f} s")
    return found


def table(result: dict[str, Any]) -> str:
    """The measurements for people."""
    lines = [f"{'models':>6} {'program':>8} {'resources':>9} {'seconds':>8} {'MB':>6} {'ratio':>6}"]
    for row in result["rows"]:
        ratio = f"{result['ratios'][str(row['models'])]:.2f}" if row["program"] == "ours" else ""
        lines.append(
            f"{row['models']:>6} {row['program']:>8} {row['resources']:>9} {row['seconds']:>8.2f} "
            f"{row['megabytes']:>6.0f} {ratio:>6}"
        )
    lines.append(f"import: {result['import_seconds']:.2f} s")
    return "\n".join([*lines, *(f"NOT AS CLAIMED: {claim}" for claim in result["broken_claims"])])


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.program", description=__doc__.split("\n")[0])
    parser.add_argument(
        "--models", type=int, nargs="+", default=list(SIZES), help="numbers of models to preview"
    )
    parser.add_argument("--repeat", type=int, default=2, help="measure each size this often; the best counts")
    parser.add_argument("--json", action="store_true", help="print one line of JSON")
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        program, models, count = options.measure
        print(json.dumps(asdict(measure(program, int(models), int(count)))))
        return 0
    result = run(sorted(options.models), options.repeat)
    print(json.dumps(result) if options.json else table(result))
    return 1 if result["broken_claims"] else 0


if __name__ == "__main__":
    sys.exit(main())
