"""What this machine, the backend and the stack file mean for an `up`. Pure: facts in, findings out."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from components.clusters.eks.kubeconfig import COMMAND
from components.clusters.gke.kubeconfig import PLUGIN
from ops.aws import INSTALL
from ops.preflight.local_facts import Backend, Bucket, Package, Tools
from ops.preflight.verdicts import Check, Finding, advice, failed, passed
from stacks.config import Problem, StackConfig
from stacks.config.errors import PREFIX
from stacks.config.load import wanted_secrets


@dataclass(frozen=True)
class Words:
    """What fixes say of a cloud: its page, its kinds of buckets and keys, the file with its SDK.

    `guarded` is what a bucket is that lacks nothing. `login` is the command that a kubeconfig runs with the way to get
    it, `helpful` what `up` can do without, and `record` how a host name gets to a gateway: AWS's load balancers have
    names, whose addresses change.
    """

    page: str
    bucket: str
    key: str
    requirements: str
    guarded: str = "versioned, uniform access, never public"
    login: tuple[str, str] | None = None
    helpful: tuple[str, ...] = ("kubectl",)
    record: str = "an A record"


_GOOGLE = Words("docs/bootstrap-gcp.md", "gs://BUCKET", "gcpkms://KEY", "requirements-gcp.txt")
_WORDS: Mapping[str, Words] = {
    "gke": replace(
        _GOOGLE,
        login=(PLUGIN, f"run: gcloud components install {PLUGIN}, or install it by your system's packages"),
        helpful=("gcloud", "kubectl"),
    ),
    "eks": Words(
        "docs/bootstrap-aws.md", "s3://BUCKET?region=REGION", "awskms://alias/NAME?region=REGION",
        "requirements-aws.txt", "versioned, never public", (COMMAND, f"install the AWS CLI: {INSTALL}"),
        record="a CNAME record (at the top of a zone of Route 53, an alias)",
    ),
    "existing": replace(_GOOGLE, requirements="requirements.txt"),
}  # fmt: skip
_HELPFUL = {
    "gcloud": ("this command logs in with it", "install the Google Cloud CLI"),
    "kubectl": ("people look with it", "install it: https://kubernetes.io/docs/tasks/tools/"),
}
_KEYS = {"gs": _WORDS["gke"].key, "s3": _WORDS["eks"].key}
_SERVICES = ("gcpkms://", "awskms://", "azurekeyvault://", "hashivault://")
# Of private networks (RFC 1918, RFC 4193); of this machine, nobody would write them down.
_PRIVATE = tuple(
    ipaddress.ip_network(net) for net in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")
)
# Issuers that answer only to who can be reached by the name.
_ACME = ("letsencrypt", "letsencrypt-staging")


def configuration(config: StackConfig, problems: tuple[Problem, ...]) -> Iterator[Finding]:
    for problem in problems:
        yield failed(f"{problem.wrong}; {problem.consequence}", problem.fix, problem.path)
    if not problems:
        models = f"{len(config.models)} model" + ("" if len(config.models) == 1 else "s")
        yield passed(f"valid: {models} on a cluster of kind {config.cluster.kind}")


def stack(name: str, set_: frozenset[str] | None, backend: Backend) -> Iterator[Finding]:
    if set_ is None:
        key = _KEYS.get(urlsplit(backend.url).scheme)
        provider = f' --secrets-provider="{key}"' if key else ""
        yield failed(f"{backend.url} has no stack {name}", f"run: pulumi stack init {name}{provider}")
    else:
        yield passed(f"{name} is in {backend.url}")


def secrets(config: StackConfig, set_: frozenset[str] | None) -> Iterator[Finding]:
    """That those which the configuration asks for are set; whether they are good is asked of whom they are for."""
    wanted, referred, there = wanted_secrets(config), config.secrets.given(), set_ or frozenset()
    for name, reason in wanted.items():
        if name not in there:
            command = f"run: pulumi config set --secret {PREFIX}{name}"
            end = " < config.json" if name == "pullSecret" else ""
            yield failed(f"not set, but {reason}: downloads would be refused", command + end, name)
    for name in sorted(there):
        yield passed("set, and encrypted" + (f"; {wanted[name]}" if name in wanted else ""), name)
    for name in sorted(referred.keys() - there):
        yield passed(f"kept elsewhere: {referred[name]}", name)
    if not there and not referred and not wanted:
        yield passed("none is needed")


def backend(config: StackConfig, found: Backend) -> Iterator[Finding]:
    words = _WORDS[config.cluster.kind]
    if found.url.startswith("file:"):
        yield advice(
            f"{found.url} is on this machine: nobody else can run this stack, and it is lost with the disk",
            f"keep it in a bucket: pulumi login {words.bucket} ({words.page})",
            "state",
        )
    elif found.refused:
        yield failed(
            f"{found.url} cannot be read: {found.refused}", f"make the bucket ({words.page})", "state"
        )
    elif found.bucket is not None:
        yield from _bucket(found.url, found.bucket, words)
    else:
        yield passed(found.url, "state")
    yield _provider(found, words)


def _bucket(url: str, bucket: Bucket, words: Words) -> Iterator[Finding]:
    if bucket.lacks:
        yield advice(f"{url} lacks {', '.join(bucket.lacks)}", f"run: {bucket.fix}", "state")
    else:
        yield passed(f"{url}: {words.guarded}", "state")


def _provider(found: Backend, words: Words) -> Finding:
    if found.key_refused or found.key not in ("", "Enabled"):
        return failed(
            f"{found.secrets} cannot be used: {found.key_refused or f'the key is {found.key}'}",
            f"have the key given to you, or make one ({words.page})",
            "encryption",
        )
    if found.secrets.startswith(_SERVICES):
        return passed(found.secrets, "encryption")
    if found.secrets in ("", "default") and found.url.startswith("https://"):
        return passed("by the service that keeps the state", "encryption")
    return advice(
        "secrets are encrypted with a passphrase, which everybody who runs the stack must know",
        f"run: pulumi stack change-secrets-provider {words.key} ({words.page})",
        "encryption",
    )


def commands(config: StackConfig, tools: Tools) -> Iterator[Finding]:
    words = _WORDS[config.cluster.kind]
    if words.login:
        name, fix = words.login
        if tools.commands[name]:
            yield passed(tools.commands[name] or "", name)
        else:
            yield failed("it is not on PATH: nobody could log in to the cluster's API server", fix, name)
    for name in words.helpful:
        if tools.commands[name]:
            yield passed(tools.commands[name] or "", name)
        else:
            yield advice(
                f"it is not on PATH; `up` works without, but {_HELPFUL[name][0]}", _HELPFUL[name][1], name
            )


def versions(config: StackConfig, tools: Tools, packages: tuple[Package, ...]) -> Iterator[Finding]:
    sdk = next((p.pinned for p in packages if p.name == "pulumi"), "")
    if _numbers(tools.pulumi)[:1] != _numbers(sdk)[:1]:
        yield failed(
            f"the CLI is {tools.pulumi}, the program is written for {sdk}",
            "install a Pulumi CLI of the same major version (https://www.pulumi.com/docs/install/)",
            "pulumi",
        )
    elif _numbers(tools.pulumi) < _numbers(sdk):
        yield advice(
            f"the CLI is {tools.pulumi}, older than the SDK's {sdk}",
            "update it: https://www.pulumi.com/docs/install/",
            "pulumi",
        )
    else:
        yield passed(f"{tools.pulumi}; the SDK is {sdk}", "pulumi")
    other = [p for p in packages if p.installed != p.pinned]
    if other:
        listed = ", ".join(f"{p.name} {p.installed or 'missing'} (pinned {p.pinned})" for p in other)
        yield advice(
            f"here are {listed}; Pulumi's own environment may differ",
            f"run: pip install -r {_WORDS[config.cluster.kind].requirements} -r requirements-ops.txt",
            "packages",
        )
    else:
        yield passed(f"{len(packages)} as pinned", "packages")


def plugins(config: StackConfig, tools: Tools, wanted: Mapping[str, str | None]) -> Iterator[Finding]:
    fetch = f"run: pip install -r {_WORDS[config.cluster.kind].requirements}"
    for name, version in wanted.items():
        if version is None:
            yield failed(f"pulumi-{name} is not installed", fetch, name)
        elif version in tools.plugins.get(name, ()):
            yield passed(version, name)
        elif tools.acquires:
            yield passed(f"{version}, which `up` fetches", name)
        else:
            yield failed(
                f"{version} is not there, and fetching is switched off",
                f"run: pulumi plugin install resource {name} {version}",
                name,
            )


def dns(config: StackConfig, found: tuple[str, ...]) -> Iterator[Finding]:
    gateway = config.gateway
    if gateway.host is None:
        yield passed("no host name is configured; the gateway answers at its address")
        return
    if not found:
        waits = ""
        if gateway.tls is not None and gateway.tls.issuer in _ACME:
            waits = ": its certificate is not issued before, and the gateway does not answer by HTTPS"
        yield advice(
            f"{gateway.host} stands for no address yet{waits}",
            f"after the first `up`, add {_WORDS[config.cluster.kind].record} with the output gateway_address",
        )
        return
    private = [a for a in found if _private(a)]
    if gateway.exposure == "public" and private:
        yield advice(
            f"{gateway.host} stands for {', '.join(private)}, and the gateway is public",
            "after `up`, point it to the output gateway_address",
        )
    else:
        yield passed(
            f"{gateway.host} stands for {', '.join(found)}; compare it with gateway_address after `up`"
        )


def _private(address: str) -> bool:
    found = ipaddress.ip_address(address)
    return any(found.version == net.version and found in net for net in _PRIVATE)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("-")[0].split(".") if part.isdecimal())


CHECKS = (
    Check("configuration", ("config", "problems"), configuration),
    Check("stack", ("stack", "set", "backend"), stack),
    Check("secret", ("config", "set"), secrets),
    Check("backend", ("config", "backend"), backend),
    Check("command", ("config", "tools"), commands),
    Check("version", ("config", "tools", "packages"), versions),
    Check("plugin", ("config", "tools", "plugins"), plugins),
    Check("host name", ("config", "addresses"), dns),
)
