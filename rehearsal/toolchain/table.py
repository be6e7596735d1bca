"""Which programs a rehearsal is made of, and how each is linked.

Versions are said once, in the go.mod of the tool's directory below `modules/`.
"""

from __future__ import annotations

import hashlib
import platform
import re
from dataclasses import dataclass
from pathlib import Path

MODULES = Path(__file__).parent / "modules"

COMMON_FLAGS = ("-trimpath",)  # without it the binary would depend on where the checkout lies
STRIPPED = "-s -w"

KUBERNETES_STAMPS = (
    "k8s.io/component-base/version.gitVersion={version}",
    "k8s.io/component-base/version.gitMajor={major}",
    "k8s.io/component-base/version.gitMinor={minor}",
)


@dataclass(frozen=True)
class Tool:
    """One program.

    `directory` below `modules/` holds go.mod and go.sum; `module` is the Go
    module whose version is the tool's version; `stamps` are the variables that
    the linker sets, as the project's own release build does. `seconds` is what
    a cold build took on 2 cores, for the first forecast; tools of one directory
    share most of their packages, so the later ones are cheap.
    """

    name: str
    directory: str
    module: str
    package: str
    seconds: int
    stamps: tuple[str, ...] = ()

    @property
    def version(self) -> str:
        return requirements(self.directory)[self.module]

    @property
    def link_flags(self) -> str:
        """The value of -ldflags."""
        major, minor = self.version.removeprefix("v").split(".")[:2]
        stamps = (f"-X {s.format(version=self.version, major=major, minor=minor)}" for s in self.stamps)
        return " ".join((STRIPPED, *stamps))

    @property
    def entry(self) -> str:
        """The cache entry: it changes with the pins and the flags, never with the checkout or Go's version."""
        directory = MODULES / self.directory
        content = b"\0".join(
            (
                (directory / "go.mod").read_bytes(),
                (directory / "go.sum").read_bytes(),
                " ".join((self.package, *COMMON_FLAGS, self.link_flags)).encode(),
                platform.machine().encode(),
            )
        )
        return f"tools/{self.name}-{self.version}-{hashlib.sha256(content).hexdigest()[:12]}"


def requirements(directory: str) -> dict[str, str]:
    """The exact version of each Go module that `modules/<directory>/go.mod` requires."""
    text = (MODULES / directory / "go.mod").read_text()
    blocks = re.findall(r"^require \(\n(.*?)^\)", text, re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.splitlines()]
    lines += re.findall(r"^require (\S+ \S+)$", text, re.MULTILINE)
    pairs = (line.split()[:2] for line in lines if line.strip())
    return {pair[0]: pair[1] for pair in pairs}


def go_needed() -> tuple[int, ...]:
    """The lowest Go that can build every module, from their `go` lines: (1, 26, 0)."""
    texts = (file.read_text() for file in MODULES.glob("*/go.mod"))
    found = (re.search(r"^go (\S+)$", text, re.MULTILINE) for text in texts)
    return max(tuple(map(int, match[1].split("."))) for match in found if match)


def _kubernetes(name: str, seconds: int, *stamps: str) -> Tool:
    package = f"k8s.io/kubernetes/cmd/{name}"
    return Tool(name, "kubernetes", "k8s.io/kubernetes", package, seconds, KUBERNETES_STAMPS + stamps)


TOOLS: dict[str, Tool] = {
    tool.name: tool
    for tool in (
        Tool("etcd", "etcd", "go.etcd.io/etcd/server/v3", "go.etcd.io/etcd/server/v3", 50),
        _kubernetes("kube-apiserver", 170),
        _kubernetes("kube-controller-manager", 35),
        _kubernetes("kube-scheduler", 8),
        _kubernetes("kubectl", 18, "k8s.io/client-go/pkg/version.gitVersion={version}"),
        Tool(
            name="pulumi",
            directory="pulumi",
            module="github.com/pulumi/pulumi/pkg/v3",
            package="github.com/pulumi/pulumi/pkg/v3/cmd/pulumi",
            seconds=100,
            # The Automation API refuses a CLI that does not know its version.
            stamps=("github.com/pulumi/pulumi/sdk/v3/go/common/version.Version={version}",),
        ),
        Tool(
            name="kserve-llmisvc",
            directory="kserve",
            module="github.com/kserve/kserve",
            package="github.com/kserve/kserve/cmd/llmisvc",
            seconds=125,
        ),
        Tool(
            name="kserve-manager",
            directory="kserve",
            module="github.com/kserve/kserve",
            package="github.com/kserve/kserve/cmd/manager",
            seconds=11,
        ),
        Tool(
            name="helm",
            directory="helm",
            module="helm.sh/helm/v3",
            package="helm.sh/helm/v3/cmd/helm",
            seconds=60,
            # The Kubernetes version that `helm template` assumes without a cluster; unset, 1.20.
            stamps=(
                "helm.sh/helm/v3/internal/version.version={version}",
                "helm.sh/helm/v3/pkg/chartutil.k8sVersionMajor=1",
                "helm.sh/helm/v3/pkg/chartutil.k8sVersionMinor=34",
                "helm.sh/helm/v3/pkg/lint/rules.k8sVersionMajor=1",
                "helm.sh/helm/v3/pkg/lint/rules.k8sVersionMinor=34",
            ),
        ),
        Tool("lws", "lws", "sigs.k8s.io/lws", "sigs.k8s.io/lws/cmd", 70),
        Tool(
            name="epp",
            directory="epp",
            module="sigs.k8s.io/gateway-api-inference-extension",
            package="sigs.k8s.io/gateway-api-inference-extension/cmd/epp",
            seconds=70,
        ),
        Tool(
            name="ratelimit",
            directory="ratelimit",
            module="github.com/envoyproxy/ratelimit",
            package="github.com/envoyproxy/ratelimit/src/service_cmd",
            seconds=22,
        ),
    )
}
