"""Starts the control plane and waits until it serves."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import yaml

from ops.kube import ApiError, Kube
from rehearsal.cluster import certificates, ports
from rehearsal.paths import Paths
from rehearsal.processes import Processes

SERVICE_CIDR = "10.96.0.0/16"
START_SECONDS = 60.0
# Loopback addresses are refused in EndpointSlices, so the controllers that write them would only log errors.
WITHOUT_ENDPOINTS = "*,-endpointslice-controller,-endpointslice-mirroring-controller,-endpoints-controller"


class ControlPlaneFailed(Exception):
    """The control plane did not come up; the message names the part and the end of its log."""


@dataclass(frozen=True)
class Identity:
    """A user of the API server, as its client certificate states it."""

    user: str
    group: str = ""


IDENTITIES = {
    "admin": Identity("rehearsal-admin", "system:masters"),
    "controller-manager": Identity("system:kube-controller-manager"),
    "scheduler": Identity("system:kube-scheduler"),
    "kubelet-client": Identity("kube-apiserver-kubelet-client"),
}
SERVERS = {
    "apiserver": ("127.0.0.1", "localhost", "kubernetes.default.svc"),
    "kubelet": ("127.0.0.1",),
}


class ControlPlane:
    """etcd, kube-apiserver, kube-controller-manager and kube-scheduler of one rehearsal."""

    def __init__(self, paths: Paths, processes: Processes, binary: Callable[[str], Path]):
        self._paths, self._processes, self._binary = paths, processes, binary

    def start(self, contexts: tuple[str, ...]) -> Kube:
        """Start what is not running, write the user's kubeconfig with `contexts`, return a client."""
        if not self._processes.running("kube-apiserver"):
            self._prepare()
        self._write_user_kubeconfig(contexts)
        for name, argv in self._commands().items():
            self._processes.start(name, [self._binary(name), *argv])
        return self._wait()

    @property
    def server(self) -> str:
        """URL of the API server."""
        return f"https://127.0.0.1:{self._ports['apiserver']}"

    @property
    def _ports(self) -> dict[str, int]:
        return json.loads((self._paths.cluster / "ports.json").read_text())

    def _pki(self, name: str) -> Path:
        return self._paths.cluster / "pki" / name

    def _prepare(self) -> None:
        """Choose ports, and make keys and certificates where there are none yet."""
        ports.assign(self._paths.cluster / "ports.json")
        self._pki("").mkdir(mode=0o700, exist_ok=True)
        self._make_keys()
        for name in ("controller-manager", "scheduler"):
            self._kubeconfig(self._pki(f"{name}.kubeconfig"), name, (name,))
        egress = {
            "apiVersion": "apiserver.k8s.io/v1beta1",
            "kind": "EgressSelectorConfiguration",
            "egressSelections": [
                {
                    "name": "cluster",
                    "connection": {
                        "proxyProtocol": "HTTPConnect",
                        "transport": {"uds": {"udsName": str(self._paths.service_socket)}},
                    },
                }
            ],
        }
        (self._paths.cluster / "egress.yaml").write_text(yaml.safe_dump(egress))

    def _make_keys(self) -> None:
        """Make the keys and certificates that are missing; all, where the first making was cut short."""
        complete = self._pki("service-accounts.key")
        if not complete.exists():
            self._write_pair("ca", certificates.authority("rehearsal"))
        ca = certificates.KeyPair(self._pki("ca.crt").read_bytes(), self._pki("ca.key").read_bytes())
        makers = {
            **{n: partial(certificates.issue, ca, f"kube-{n}", names=names) for n, names in SERVERS.items()},
            **{n: partial(certificates.issue, ca, i.user, i.group) for n, i in IDENTITIES.items()},
        }
        for name, make in makers.items():
            if not complete.exists() or not self._pki(f"{name}.key").exists():
                self._write_pair(name, make())
        if not complete.exists():
            self._write(complete.name, certificates.signing_key())

    def _write_pair(self, name: str, pair: certificates.KeyPair) -> None:
        self._write(f"{name}.crt", pair.certificate)
        self._write(f"{name}.key", pair.key)

    def _write(self, name: str, content: bytes) -> None:
        path = self._pki(name)
        path.touch(mode=0o600)
        path.write_bytes(content)

    def _kubeconfig(self, path: Path, identity: str, contexts: tuple[str, ...]) -> None:
        pair = certificates.KeyPair(
            self._pki(f"{identity}.crt").read_bytes(), self._pki(f"{identity}.key").read_bytes()
        )
        ca = self._pki("ca.crt").read_bytes()
        certificates.write_kubeconfig(path, self.server, ca, certificates.client(pair), contexts)

    def _write_user_kubeconfig(self, contexts: tuple[str, ...]) -> None:
        self._kubeconfig(self._paths.kubeconfig, "admin", contexts)

    def _commands(self) -> dict[str, list[str]]:
        p = self._ports
        etcd, peer = f"http://127.0.0.1:{p['etcd']}", f"http://127.0.0.1:{p['etcd-peer']}"
        keys = self._pki("service-accounts.key")
        return {
            "etcd": [
                f"--data-dir={self._paths.cluster / 'etcd'}",
                f"--listen-client-urls={etcd}",
                f"--advertise-client-urls={etcd}",
                f"--listen-peer-urls={peer}",
                f"--initial-advertise-peer-urls={peer}",
                f"--initial-cluster=default={peer}",
                "--unsafe-no-fsync",
                "--log-level=error",
            ],
            "kube-apiserver": [
                f"--etcd-servers={etcd}",
                "--bind-address=127.0.0.1",
                "--advertise-address=127.0.0.1",
                f"--secure-port={p['apiserver']}",
                f"--service-cluster-ip-range={SERVICE_CIDR}",
                f"--tls-cert-file={self._pki('apiserver.crt')}",
                f"--tls-private-key-file={self._pki('apiserver.key')}",
                f"--client-ca-file={self._pki('ca.crt')}",
                # The simulated nodes' names resolve nowhere.
                "--kubelet-preferred-address-types=InternalIP",
                f"--kubelet-certificate-authority={self._pki('ca.crt')}",
                f"--kubelet-client-certificate={self._pki('kubelet-client.crt')}",
                f"--kubelet-client-key={self._pki('kubelet-client.key')}",
                "--service-account-issuer=https://kubernetes.default.svc",
                f"--service-account-key-file={keys}",
                f"--service-account-signing-key-file={keys}",
                f"--egress-selector-config-file={self._paths.cluster / 'egress.yaml'}",
                "--authorization-mode=Node,RBAC",
                "--endpoint-reconciler-type=none",
                "--allow-privileged=true",
                "--enable-priority-and-fairness=false",
            ],
            "kube-controller-manager": [
                f"--kubeconfig={self._pki('controller-manager.kubeconfig')}",
                f"--service-account-private-key-file={keys}",
                f"--root-ca-file={self._pki('ca.crt')}",
                f"--controllers={WITHOUT_ENDPOINTS}",
                "--bind-address=127.0.0.1",
                f"--secure-port={p['controller-manager']}",
                "--leader-elect=false",
                "--use-service-account-credentials=true",
                "--kube-api-qps=200",
                "--kube-api-burst=400",
            ],
            "kube-scheduler": [
                f"--kubeconfig={self._pki('scheduler.kubeconfig')}",
                "--bind-address=127.0.0.1",
                f"--secure-port={p['scheduler']}",
                "--leader-elect=false",
            ],
        }

    def _wait(self) -> Kube:
        deadline = time.monotonic() + START_SECONDS
        kube = Kube(self._paths.kubeconfig)
        while True:
            for name in ("etcd", "kube-apiserver"):
                self._processes.check(name)
            try:
                if kube.request("GET", "/readyz") == "ok" and kube.get("v1", "Namespace", "default"):
                    return kube
            except ApiError:
                if time.monotonic() > deadline:
                    raise ControlPlaneFailed(
                        f"kube-apiserver is not ready after {START_SECONDS:.0f} s. The end of its log:\n"
                        + self._processes.tail("kube-apiserver")
                    ) from None
            time.sleep(0.1)
