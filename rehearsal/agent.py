"""The rehearsal's own background process: simulated nodes, the service proxy and the stand-ins.

python -m rehearsal.agent
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from ops.kube import Kube
from rehearsal.cloud import pools
from rehearsal.cloud.project import Project
from rehearsal.cloud.settings import Settings
from rehearsal.cluster import ports
from rehearsal.node import images, nodes
from rehearsal.node.faults import Faults
from rehearsal.node.kubelet import Kubelet
from rehearsal.node.logs import LogServer
from rehearsal.node.pod import PodWorker
from rehearsal.node.programs import Host
from rehearsal.node.services import ServiceProxy
from rehearsal.paths import Paths
from rehearsal.processes import Processes
from rehearsal.stand_ins import aws_groups
from rehearsal.stand_ins.autoscaler import Autoscaler
from rehearsal.stand_ins.aws_balancers import AmazonBalancers
from rehearsal.stand_ins.cert_manager import WEBHOOK, CertManager
from rehearsal.stand_ins.gateway import GatewayController
from rehearsal.stand_ins.google_balancers import Place
from rehearsal.stand_ins.google_gateway import GoogleGateway
from rehearsal.stand_ins.gpu_operator import GpuOperator
from rehearsal.stand_ins.volumes import Volumes


def main() -> None:
    """Run until SIGTERM, then end every pod's program."""
    paths, stop = Paths.of_checkout(), threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    # The socket holds our block of loopback addresses for as long as this process lives.
    block, holder = ports.take_pod_block(paths.cluster / "pod-block")
    kube, faults = Kube(paths.kubeconfig), Faults(paths.faults)
    host = _host(paths, kube, faults)
    kubelet = Kubelet(kube, host, block)
    proxy = ServiceProxy(kube, kubelet, faults, paths.service_socket)
    cert_manager = CertManager(kube, paths.cluster, _runs(kubelet, "jetstack/cert-manager-controller"))
    proxy.stand_in(WEBHOOK, cert_manager.serve_webhook())
    gateway = GatewayController(kube, _runs(kubelet, "istio/pilot"), kubelet.endpoints, paths.root)
    google = _google(paths, kube, kubelet, block)
    project, settings = Project.of(paths.root), Settings.of(paths.root)
    sources = (pools.all_pools, aws_groups.source(paths.root))
    autoscaler = Autoscaler(kube, project, settings, sources=sources)
    clouds = (
        AmazonBalancers(kube, project, settings).run,
        GpuOperator(kube, paths.root, settings).run,
        Volumes(kube, project, host.volumes).run,
    )
    logs = _logs(paths, kubelet)
    proxy.open(logs.address)
    stand_ins = (cert_manager.run, gateway.run, google.run, autoscaler.run, *clouds)
    for task in (kubelet.run, proxy.run, *stand_ins, logs.run):
        threading.Thread(target=task, args=(stop,), daemon=True).start()
    nodes.heartbeat(kube, logs.address[1], stop)
    kubelet.halt()
    holder.close()


def _host(paths: Paths, kube: Kube, faults: Faults) -> Host:
    return Host(
        kube=kube,
        faults=faults,
        directory=paths.pods,
        logs=paths.logs,
        authority=(paths.cluster / "pki" / "ca.crt").read_bytes(),
        binary=lambda name: Path(paths.bin / name),
        environment=Processes(paths).environment,
    )


def _google(paths: Paths, kube: Kube, kubelet: Kubelet, block: int) -> GoogleGateway:
    """What Google runs for a cluster of the simulated project, outside of it."""

    def members(namespace: str, match_labels: Mapping[str, str]) -> list[PodWorker]:
        return [
            worker
            for worker in kubelet.workers()
            if worker.ready_since is not None
            and worker.pod["metadata"]["namespace"] == namespace
            and match_labels.items() <= worker.labels.items()
        ]

    return GoogleGateway(
        kube=kube,
        project=Project.of(paths.root),
        settings=Settings.of(paths.root),
        members=members,
        processes=Processes(paths),
        place=Place(paths.root, block, paths.bin / "envoy"),
    )


def _logs(paths: Paths, kubelet: Kubelet) -> LogServer:
    def find(namespace: str, pod: str, container: str) -> Path | None:
        worker = kubelet.worker(namespace, pod)
        return worker.log(container) if worker else None

    pki = paths.cluster / "pki"
    return LogServer(find, pki / "kubelet.crt", pki / "kubelet.key", pki / "ca.crt")


def _runs(kubelet: Kubelet, repository: str) -> Callable[[], bool]:
    """Whether a pod with a container of this image is Ready."""

    def check() -> bool:
        return any(
            worker.ready_since is not None
            and any(
                images.repository(c["image"]).endswith(repository) for c in worker.pod["spec"]["containers"]
            )
            for worker in kubelet.workers()
        )

    return check


if __name__ == "__main__":
    main()
