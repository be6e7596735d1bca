"""The rehearsal's own background process: simulated nodes, the service proxy and the stand-ins.

python -m rehearsal.agent
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from pathlib import Path

from ops.kube import Kube
from rehearsal.cloud.project import Project
from rehearsal.cloud.settings import Settings
from rehearsal.cluster import ports
from rehearsal.node import images, nodes
from rehearsal.node.faults import Faults
from rehearsal.node.kubelet import Kubelet
from rehearsal.node.logs import LogServer
from rehearsal.node.programs import Host
from rehearsal.node.services import ServiceProxy
from rehearsal.paths import Paths
from rehearsal.processes import Processes
from rehearsal.stand_ins.autoscaler import Autoscaler
from rehearsal.stand_ins.cert_manager import WEBHOOK, CertManager
from rehearsal.stand_ins.gateway import GatewayController


def main() -> None:
    """Run until SIGTERM, then end every pod's program."""
    paths, stop = Paths.of_checkout(), threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    # The socket holds our block of loopback addresses for as long as this process lives.
    block, holder = ports.take_pod_block(paths.cluster / "pod-block")
    kube, faults = Kube(paths.kubeconfig), Faults(paths.faults)
    kubelet = Kubelet(kube, _host(paths, kube, faults), block)
    proxy = ServiceProxy(kube, kubelet, faults, paths.service_socket)
    cert_manager = CertManager(kube, paths.cluster, _runs(kubelet, "jetstack/cert-manager-controller"))
    proxy.stand_in(WEBHOOK, cert_manager.serve_webhook())
    gateway = GatewayController(kube, _runs(kubelet, "istio/pilot"), kubelet.endpoints, paths.root)
    autoscaler = Autoscaler(kube, Project.of(paths.root), Settings.of(paths.root))
    logs = _logs(paths, kubelet)
    proxy.open(logs.address)
    for task in (kubelet.run, proxy.run, cert_manager.run, gateway.run, autoscaler.run, logs.run):
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
