"""List prices of what the clouds bill by the hour, from a dated table. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

PRICE_FILE = Path(__file__).with_name("prices.yaml")
CURRENCY = "USD"
HOURS_PER_MONTH = 730
EVERYWHERE = "*"


@dataclass(frozen=True, kw_only=True)
class Price:
    """US dollars per hour of one `per` (chip, vCPU, machine, …); `source` names where and `read` when."""

    hourly: float
    per: str
    source: str
    read: date


@cache
def prices() -> Mapping[tuple[str, str, str], Price]:
    """Every price of the table by sku, region (`*` for all) and capacity (`on-demand` or `spot`)."""
    entries = yaml.safe_load(PRICE_FILE.read_text())["prices"]
    return MappingProxyType({key: price for entry in entries for key, price in _rows(entry)})


def _rows(entry: Mapping[str, Any]) -> list[tuple[tuple[str, str, str], Price]]:
    source = entry["source"]
    return [
        (
            (entry["sku"], region, capacity),
            Price(hourly=float(hourly), per=entry["per"], source=source["what"], read=source["read"]),
        )
        for region, by_capacity in entry["regions"].items()
        for capacity, hourly in by_capacity.items()
    ]


def price(sku: str, region: str, capacity: str = "on-demand") -> Price | None:
    """The price of a sku in a region, or None where the table has none."""
    known = prices()
    return known.get((sku, region, capacity)) or known.get((sku, EVERYWHERE, capacity))
