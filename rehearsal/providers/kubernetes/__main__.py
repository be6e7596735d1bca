"""`python -m rehearsal.providers.kubernetes <engine address>`, as the plugin's launcher calls it."""

import os
import sys

from rehearsal.providers.guard import start_or_exit

if __name__ == "__main__":
    root = start_or_exit(os.environ)
    # Only after the guard: everything below can reach a cluster.
    from rehearsal.providers.kubernetes.provider import Kubernetes
    from rehearsal.providers.server import serve

    serve(lambda engine: Kubernetes(engine, root), sys.argv[1:])
