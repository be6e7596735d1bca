"""Stands for Ray's Python package, as far as a leader's script asks it: which hosts have joined.

It runs under the machine's own Python, so that it imports nothing of ours.
"""

import json
import os
import socket

_head = None


def init(address=None, log_to_driver=True):
    """Connect to the head; RAY_ADDRESS says where it is."""
    del log_to_driver
    host, port = (address or os.environ["RAY_ADDRESS"]).rsplit(":", 1)
    global _head
    _head = (host, int(port))
    nodes()


def nodes():
    """The hosts of the group that have joined."""
    if _head is None:
        raise RuntimeError("Ray has not been started yet. You can start Ray with 'ray.init()'.")
    with socket.create_connection(_head, timeout=5) as connection:
        connection.sendall(b'{"look": true}\n')
        with connection.makefile() as lines:
            return json.loads(lines.readline())
