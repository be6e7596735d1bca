"""The random plugin: passwords, strings, ids, names and numbers that stay the same until their inputs change."""

VERSION = "4.21.4"
