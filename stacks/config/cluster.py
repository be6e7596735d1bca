"""Where the platform runs: a new GKE or EKS cluster, or one that is already there."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from stacks.config.eks import EksCluster
from stacks.config.existing import ExistingCluster
from stacks.config.gke import GkeCluster

Cluster = Annotated[GkeCluster | EksCluster | ExistingCluster, Field(discriminator="kind")]
