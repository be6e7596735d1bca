"""The aws plugin: Amazon's resources as pulumi-aws 7.51 offers them, in the rehearsal's simulated account."""

VERSION = "7.51.1"
