"""What a host of a TPU slice is told about the others, and whether it can be true. Pure.

The driver of the TPUs forms the slice by TPU_WORKER_HOSTNAMES, the hosts in their order, and TPU_WORKER_ID, the own
place among them; hosts that disagree wait for each other for ever. Here a wrong or missing value ends the program.
"""

from __future__ import annotations

from collections.abc import Mapping


class BadSlice(Exception):
    """The host could not become part of its slice."""


def place(environment: Mapping[str, str]) -> int:
    """The place of this host in its slice, by its environment. Raises BadSlice.

    `REHEARSAL_POD` is the pod as namespace/name: the driver would find itself among the hosts by its own name.
    """
    size = _number(environment, "LWS_GROUP_SIZE")
    names = _given(environment, "TPU_WORKER_HOSTNAMES").split(",")
    if len(names) != size:
        raise BadSlice(f"TPU_WORKER_HOSTNAMES names {len(names)} hosts, but the group has {size}")
    own, pod = _number(environment, "TPU_WORKER_ID"), _given(environment, "REHEARSAL_POD").rpartition("/")[2]
    if not 0 <= own < size or names[own].split(".")[0] != pod:
        raise BadSlice(f"TPU_WORKER_ID is {own}, but {pod} is not number {own} of {','.join(names)}")
    return own


def _given(environment: Mapping[str, str], name: str) -> str:
    if not environment.get(name):
        raise BadSlice(f"{name} is not set: this host does not know its slice")
    return environment[name]


def _number(environment: Mapping[str, str], name: str) -> int:
    text = _given(environment, name)
    if not text.isdigit():
        raise BadSlice(f"{name} is {text!r}, not a number")
    return int(text)
