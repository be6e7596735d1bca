"""The connection to the rehearsal's API server, or the reason why there is none."""

from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path

import yaml

from ops.kube import ApiError, Kube, Manifest, ResourceKind
from rehearsal.providers import guard
from rehearsal.providers.kubernetes import kubeconfig
from rehearsal.providers.kubernetes.objects import built_in, group_kind
from rehearsal.providers.kubernetes.settings import Settings
from rehearsal.providers.values import words

CLUSTER_SCOPED = frozenset(
    words("""
    APIService CSIDriver CSINode CertificateSigningRequest ClusterRole ClusterRoleBinding ClusterTrustBundle
    CustomResourceDefinition DeviceClass DeviceTaintRule FlowSchema IPAddress IngressClass MutatingAdmissionPolicy
    MutatingAdmissionPolicyBinding MutatingWebhookConfiguration Namespace Node PersistentVolume PriorityClass
    PriorityLevelConfiguration ResourceSlice RuntimeClass ServiceCIDR StorageClass StorageVersionMigration
    ValidatingAdmissionPolicy ValidatingAdmissionPolicyBinding ValidatingWebhookConfiguration VolumeAttachment
    VolumeAttributesClass
    """)
)


class Cluster:
    """What the provider's settings lead to.

    `unreachable` is the reason when there is no API server to talk to; then
    previews work without it and everything else is refused.
    """

    def __init__(self, settings: Settings, rehearsal: Path):
        self.settings, self.unreachable = settings, ""
        self.default_namespace = settings.namespace
        self._scopes: dict[tuple[str, str], bool] = {}
        self._lock = threading.Lock()
        try:
            target = kubeconfig.select(
                *kubeconfig.load(settings.kubeconfig), settings.context, settings.cluster
            )
        except kubeconfig.BadKubeconfig as error:
            self.unreachable = str(error)
            return
        own = _own(rehearsal)
        target = kubeconfig.trusting(target, *own)
        self.default_namespace = settings.namespace or target.namespace
        guard.require_own_cluster(own, target.server, target.authority)
        self.kubeconfig = _stored(target, rehearsal)
        self.kube = Kube(self.kubeconfig)
        try:
            self.kube.request("GET", "/version", timeout=10)
        except ApiError as error:
            self.unreachable = str(error)

    def serves(self, manifest: Manifest) -> bool:
        """Whether the API server is there and knows the object's kind."""
        try:
            return not self.unreachable and bool(self.kind(manifest))
        except ApiError:
            return False

    def kind(self, manifest: Manifest) -> ResourceKind:
        """Where objects like this are served; UnknownKind as the API server tells."""
        return self.kube.kind(manifest.get("apiVersion", ""), manifest.get("kind", ""))

    def path(self, manifest: Manifest, named: bool = True) -> str:
        """The object's path, or its collection's; the namespace defaults to "default"."""
        kind, meta = self.kind(manifest), manifest["metadata"]
        return kind.path(meta.get("namespace") or "default", meta["name"] if named else None)

    def learn(self, crd: Manifest) -> None:
        """Remember a CRD of the program, so that its kinds' scope is known before it exists."""
        spec = crd.get("spec") or {}
        names = spec.get("names") or {}
        with self._lock:
            self._scopes[(spec.get("group", ""), names.get("kind", ""))] = spec.get("scope") == "Namespaced"

    def namespaced(self, manifest: Manifest) -> bool:
        """Whether the kind lives in namespaces; a kind that nobody knows yet is taken to."""
        group, kind = group_kind(manifest)
        if built_in(manifest):
            return kind not in CLUSTER_SCOPED
        if (group, kind) in self._scopes:
            return self._scopes[(group, kind)]
        try:
            return self.unreachable != "" or self.kind(manifest).namespaced
        except ApiError:
            return True


def _own(rehearsal: Path) -> tuple[str, bytes]:
    """(URL, CA) of the rehearsal's own cluster; empty while it has none."""
    path = rehearsal / "cluster" / "kubeconfig"
    if not path.is_file():
        return "", b""
    own = kubeconfig.select(*kubeconfig.load(str(path)))
    return own.server, own.authority


def _stored(target: kubeconfig.Target, rehearsal: Path) -> Path:
    """The reduced kubeconfig as a file for Helm and the client, named by its content: nothing piles up."""
    text = yaml.safe_dump(target.document)
    path = rehearsal / "run" / f"kubeconfig-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    path.parent.mkdir(exist_ok=True)
    if not path.exists():
        fresh = path.with_suffix(f".{os.getpid()}")
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(text)
        fresh.replace(path)
    return path
