"""Reads what a nats-server says about its leaf connections (LEAFZ)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Final

from edgefarm.errors import NatsUnavailable
from reconciler.ports import LeafOnHub

#: Seconds in the units of Go's durations, which are written like 1m3.5s or 350µs.
_UNITS: Final = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "µs": 1e-6, "μs": 1e-6, "us": 1e-6, "ns": 1e-9}
_PART: Final = re.compile(r"(\d+(?:\.\d*)?)(h|ms|m|s|µs|μs|us|ns)")


def leafs_in(data: bytes) -> list[LeafOnHub]:
    """The leafs that are connected to the server which answered so."""
    try:
        return list(_leafs(data))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise NatsUnavailable("A NATS server said something unreadable about its leaf connections.") from error


def _leafs(data: bytes) -> Iterator[LeafOnHub]:
    page = json.loads(data)["data"]
    for leaf in page.get("leafs") or ():
        if leaf.get("is_spoke"):
            continue  # a connection that the server itself made, to a hub of its own
        yield LeafOnHub(
            account=leaf["account"],
            name=leaf["name"],
            rtt=parse_go_duration(leaf.get("rtt") or "0s"),
            connection=f"{page['server_id']}.{leaf['id']}",
            listening=leaf["subscriptions"] > 0,
        )


def parse_go_duration(text: str) -> float:
    """Seconds of a duration as Go prints it; ValueError when it is none."""
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f"{text!r} is no duration")
    return sum(float(number) * _UNITS[unit] for number, unit in parts)
