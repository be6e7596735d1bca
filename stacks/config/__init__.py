"""The configuration of a stack: its models, its rules, and the one place that reads it from Pulumi."""

from stacks.config.access import Access
from stacks.config.cluster import Cluster, EksCluster, ExistingCluster, GkeCluster
from stacks.config.errors import ConfigError, Problem
from stacks.config.gateway import Gateway
from stacks.config.load import Secrets, from_pulumi, load_config, load_stack_file
from stacks.config.model import Model
from stacks.config.platform import Platform
from stacks.config.pools import PoolShape
from stacks.config.root import StackConfig
from stacks.config.stack_file import check_stack_file, config_of, read_stack_file

__all__ = [
    "Access",
    "Cluster",
    "ConfigError",
    "EksCluster",
    "ExistingCluster",
    "Gateway",
    "GkeCluster",
    "Model",
    "Platform",
    "PoolShape",
    "Problem",
    "Secrets",
    "StackConfig",
    "check_stack_file",
    "config_of",
    "from_pulumi",
    "load_config",
    "load_stack_file",
    "read_stack_file",
]
