"""Run the aws plugin, as the plugin's launcher calls it."""

import os
import sys

from rehearsal.providers.guard import start_or_exit

if __name__ == "__main__":
    root = start_or_exit(os.environ)
    from rehearsal.providers.aws.provider import Aws
    from rehearsal.providers.server import serve

    serve(lambda engine: Aws(engine, root), sys.argv[1:])
