"""`python -m rehearsal.providers.random <engine address>`, as the plugin's launcher calls it."""

import os
import sys

from rehearsal.providers.guard import start_or_exit

if __name__ == "__main__":
    start_or_exit(os.environ)
    from rehearsal.providers.random.provider import Random
    from rehearsal.providers.server import serve

    serve(Random, sys.argv[1:])
