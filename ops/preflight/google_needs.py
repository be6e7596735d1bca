"""What a stack asks of Google, from its configuration alone. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from components.clusters.gke.args import GkeTpuClusterArgs, TpuPoolArgs, pools_of
from components.clusters.gke.google import APIS, GATEWAY_APIS
from components.clusters.gke.pools import SYSTEM_DISK_GIB
from stacks.config import GkeCluster, StackConfig
from stacks.config.machines import TPU_MACHINES
from stacks.gke import gke_cluster_args

# Their answers decide whether anything else can be asked or switched on.
FIRST_APIS = ("cloudresourcemanager", "serviceusage")
# `up` switches it on for GKE, and does not wait for that before it reads the secrets that the stack refers to.
SECRET_API = "secretmanager"
LATEST = "latest"
# Spot and flex-start spend a quota of their own first (clouds.md 1.4, read 2026-11).
CHEAP = frozenset({"spot", "flex-start"})
FAMILY = "CT6E"
# GKE makes a cluster with a pool of one small machine, which is removed as soon as the cluster stands.
DEFAULT_POOL_VCPUS, DEFAULT_POOL_DISK_GIB = 2, 100
# The firewall rules that GKE makes for a cluster, and ours for the webhooks.
CLUSTER_FIREWALLS = 5


@dataclass(frozen=True)
class KeptSecret:
    """A secret of Secret Manager that the stack refers to; its project need not be the cluster's."""

    project: str
    name: str
    version: str = LATEST

    @classmethod
    def of(cls, reference: str) -> KeptSecret:
        """By `projects/P/secrets/S`, or with `/versions/V`."""
        return cls(*reference.split("/")[1::2])

    @property
    def resource(self) -> str:
        """The secret, as the API has it."""
        return f"projects/{self.project}/secrets/{self.name}"

    @property
    def path(self) -> str:
        """The version, as the API has it."""
        return f"{self.resource}/versions/{self.version}"


@dataclass(frozen=True, kw_only=True)
class GoogleNeeds:
    """`machines` are (zone, machine type) by pool, `system` the system pool's type and most machines.

    `chips` are (dear, cheap): TPU chips at the largest, of on-demand and reserved machines, and of the others.
    `subnets` are ranges by what they are for. `addresses`, `firewalls` and so on are numbers of things. `secrets` are
    those that are kept in Secret Manager, by what the configuration calls them.
    """

    project: str
    zone: str
    region: str
    apis: tuple[str, ...]
    machines: Mapping[str, tuple[tuple[str, str], ...]]
    system: tuple[str, int]
    chips: tuple[int, int]
    tpu_disk_gib: int
    system_disk_gib: int
    addresses: int
    subnets: Mapping[str, str]
    firewalls: int
    channel: str
    version: str | None
    google_gateway: bool
    shared_proxy_subnet: str | None
    reservations: tuple[tuple[str, str, int], ...] = ()
    secrets_key: str | None = None
    host: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, KeptSecret] = field(default_factory=dict)

    @property
    def own_secrets(self) -> bool:
        """Whether one is kept in the cluster's project, whose APIs and permissions can be asked."""
        return any(secret.project == self.project for secret in self.secrets.values())

    @property
    def first_apis(self) -> tuple[str, ...]:
        """Those that must be on before `up`."""
        return (*FIRST_APIS, *((SECRET_API,) if self.own_secrets else ()))


def google_needs(config: StackConfig) -> GoogleNeeds:
    """The needs of a stack whose cluster has kind gke."""
    cluster, args = config.cluster, gke_cluster_args(config)
    assert isinstance(cluster, GkeCluster)
    pools = dict(_pools(args))
    return GoogleNeeds(
        project=args.project,
        zone=args.zone,
        region=args.region,
        apis=(*APIS, *(GATEWAY_APIS if args.google_gateway else ())),
        machines={
            "the system pool": ((args.zone, args.system.machine_type),),
            **{f"pool {n}": tuple((zone, p.machine_type) for zone in p.zones) for n, p in pools.items()},
        },
        # An upgrade adds one machine before it takes one away.
        system=(args.system.machine_type, args.system.max_nodes + 1),
        chips=chips(pools),
        tpu_disk_gib=sum(pool.disk_gib * pool.max_nodes for pool in pools.values()),
        system_disk_gib=(args.system.max_nodes + 1) * SYSTEM_DISK_GIB + DEFAULT_POOL_DISK_GIB,
        # The way out has one, and the load balancer of a public gateway.
        addresses=1 + (config.gateway.exposure == "public"),
        subnets=_subnets(args),
        firewalls=CLUSTER_FIREWALLS + bool(args.webhook_ports),
        channel=args.release_channel,
        version=args.version,
        google_gateway=args.google_gateway,
        shared_proxy_subnet=cluster.network.shared_proxy_only_subnet,
        reservations=tuple(
            (zone, pool.reservation, pool.max_nodes)
            for pool in pools.values()
            for zone in pool.zones
            if pool.capacity == "reservation" and pool.reservation
        ),
        secrets_key=args.secrets_key,
        host=config.gateway.host,
        secrets=_secrets(config),
    )


def _secrets(config: StackConfig) -> dict[str, KeptSecret]:
    referred = {name: source.google_secret_manager for name, source in config.secrets.given().items()}
    return {name: KeptSecret.of(secret) for name, secret in sorted(referred.items()) if secret}


def _pools(args: GkeTpuClusterArgs) -> Iterator[tuple[str, TpuPoolArgs]]:
    for key, entry in sorted(args.accelerators.items()):
        yield from pools_of(key, entry).items()


def chips(pools: Mapping[str, TpuPoolArgs]) -> tuple[int, int]:
    """(dear, cheap) chips when every pool is as large as it may get."""
    wanted = [(pool.capacity in CHEAP, pool.max_nodes * _chips_of(pool)) for pool in pools.values()]
    return sum(n for cheap, n in wanted if not cheap), sum(n for cheap, n in wanted if cheap)


def _chips_of(pool: TpuPoolArgs) -> int:
    return TPU_MACHINES[pool.machine_type].chips


def _subnets(args: GkeTpuClusterArgs) -> dict[str, str]:
    network = args.network
    found = {"nodes": network.nodes, "pods": network.pods, "services": network.services}
    return found | ({"proxyOnly": network.proxy_only} if network.proxy_only else {})
