"""The Pulumi program. What each stack is made of: stacks/build.py; how it is configured: docs/configuration.md."""

from stacks.build import main

main()
