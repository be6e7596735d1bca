"""The gcp plugin: Google's resources as pulumi-gcp 10.2 offers them, in the rehearsal's simulated project."""

VERSION = "10.2.0"
