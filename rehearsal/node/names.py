"""What the cluster's DNS does for programs: names of Services become addresses that answer.

Programs here ask the machine's resolver, which knows no Service. So the names in a
program's arguments and environment are replaced when it starts, by the address of
a Ready pod behind the Service; until there is one, the container waits.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ops.kube import Manifest

LABEL = r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?"
# <service>.<namespace> and then .svc.cluster.local, .svc, or nothing but a port.
NAME = re.compile(
    rf"(?<![\w.-])(?P<service>{LABEL})\.(?P<namespace>{LABEL})"
    r"(?:\.svc(?:\.cluster\.local)?\.?(?::(?P<port>\d+))?|:(?P<alone>\d+))(?![\w-]|\.\w)"
)

# <pod>.<headless service>.<namespace>, as the pods of a StatefulSet are called.
POD_NAME = re.compile(
    rf"(?<![\w.-])(?P<pod>{LABEL})\.(?P<service>{LABEL})\.(?P<namespace>{LABEL})(?![\w-]|\.\w)"
)

Endpoints = Callable[[str, Mapping[str, str], int | str], list[tuple[str, int]]]
"""Where the Ready pods of a namespace with these labels listen for a target port."""


class Unresolved(Exception):
    """A Service exists, but no Ready pod is behind it (yet)."""


def no_service(_namespace: str, _name: str) -> Manifest | None:
    """A cluster without Services."""
    return None


def no_endpoints(_namespace: str, _labels: Mapping[str, str], _port: int | str) -> list[tuple[str, int]]:
    """A cluster without pods."""
    return []


def no_host(_namespace: str, _hostname: str, _subdomain: str) -> str | None:
    """A cluster without pods."""
    return None


@dataclass(frozen=True)
class Names:
    """Looks up Services by `service(namespace, name)`, and the pods behind them by `endpoints`.

    `host` gives the address of the pod with a host name and a subdomain, Ready or not.
    """

    service: Callable[[str, str], Manifest | None] = no_service
    endpoints: Endpoints = no_endpoints
    host: Callable[[str, str, str], str | None] = no_host

    def resolve(self, text: str, own: Manifest, address: str) -> str:
        """`text` with the names of existing Services replaced, for the pod `own` at `address`.

        A name that no Service has stays as it is. A pod that is behind the Service
        itself gets its own address, since it could never become Ready waiting for
        that. Raises Unresolved.
        """

        def replaced(match: re.Match[str]) -> str:
            found = self.service(match["namespace"], match["service"])
            selector = ((found or {}).get("spec") or {}).get("selector")
            if not found or not selector:
                return match[0]
            host, port = self._target(found, selector, match["port"] or match["alone"], own, address)
            return f"{host}:{port}" if port else host

        return NAME.sub(replaced, POD_NAME.sub(self._pod, text))

    def _pod(self, match: re.Match[str]) -> str:
        """The address of one pod of a headless Service; what is no such name stays as it is."""
        found = self.service(match["namespace"], match["service"])
        if not found or found["spec"].get("clusterIP") != "None":
            return match[0]
        address = self.host(match["namespace"], match["pod"], match["service"])
        if address is None:
            raise Unresolved(f"the pod {match['namespace']}/{match['pod']} has no address yet")
        return address

    def _target(
        self, service: Manifest, selector: Mapping[str, str], port: str | None, own: Manifest, address: str
    ) -> tuple[str, int]:
        """The address behind `port` of a Service (0 for no port)."""
        meta, labels = own["metadata"], own["metadata"].get("labels") or {}
        namespace, name = service["metadata"]["namespace"], service["metadata"]["name"]
        ports = service["spec"].get("ports") or []
        entry = next((p for p in ports if port in (None, str(p["port"]))), None)
        if entry is None:
            raise Unresolved(f"Service {namespace}/{name} has no port {port}")
        found = self.endpoints(namespace, selector, entry.get("targetPort", entry["port"]))
        if not found and namespace == meta["namespace"] and selector.items() <= labels.items():
            found = [(address, int(port or 0))]
        if not found:
            raise Unresolved(f"no Ready pod is behind the Service {namespace}/{name}")
        return found[0] if port else (found[0][0], 0)
