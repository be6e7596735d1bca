"""The Kubernetes plugin: the official provider's behaviour, towards the rehearsal's API server only.

What it does and refuses follows the source of pulumi-kubernetes 4.32 to 4.34
(`provider/pkg/provider`, `provider/pkg/await`), which tests/provider_contract
states as tests that run against either.
"""

VERSION = "4.34.2"
