"""The tables of `edgefarm status`. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from cli.output import Health, Row, Table, shortened
from cli.overview import Item, Overview

#: Rows of nodes that are shown, those that are away first; JSON has all.
_MOST_NODES: Final = 20
_LONGEST_NOTE: Final = 240
_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


def tables_of(overview: Overview) -> Iterator[Table | str]:
    """What people get to see."""
    for section in overview.sections:
        title, columns, cells = _TABLES[section.key]
        rows = [_row(item, cells(item)) for item in section.items]
        yield Table(f"{title} ({section.note})" if section.note else title, columns, rows, section.problem or "none")
        if section.key == "edgeNetworks" and any(item.facts["nodes"] for item in section.items):
            yield _nodes(section.items)


def _row(item: Item, cells: tuple[str, ...]) -> Row:
    where = f"{item.namespace}/{item.name}" if item.facts.keys() & {"serviceAccounts", "locations"} else item.name
    note = "" if item.health is Health.GOOD else shortened(f"{where}: {item.message}", _LONGEST_NOTE)
    return Row((*cells, "" if item.health is Health.GOOD and item.ready == "True" else item.reason), item.health, note)


def _nodes(items: tuple[Item, ...]) -> Table:
    rows = [
        Row(
            (
                node["name"],
                item.name,
                "yes" if node.get("connected") else "no",
                node.get("rtt") or "",
                node.get("domain") or "",
            ),
            Health.GOOD if node.get("connected") else Health.DOUBTFUL,
        )
        for item in items
        for node in item.facts["nodes"]
    ]
    rows.sort(key=lambda row: row.health)
    title = "Edge nodes" if len(rows) <= _MOST_NODES else f"Edge nodes ({_MOST_NODES} of {len(rows)})"
    return Table(title, ("NODE", "EDGE NETWORK", "CONNECTED", "RTT", "DOMAIN"), rows[:_MOST_NODES])


def _network(item: Item) -> tuple[str, ...]:
    counts = (str(item.facts[name]) for name in ("policies", "grants", "edgeNodes", "streams"))
    return item.name, item.ready, *counts


def _policy(item: Item) -> tuple[str, ...]:
    accounts = item.facts["serviceAccounts"]
    shown = ", ".join(accounts[:2]) + (f" +{len(accounts) - 2}" if len(accounts) > 2 else "")
    return item.namespace, item.name, item.network, item.ready, shown


def _edge_network(item: Item) -> tuple[str, ...]:
    nodes = item.facts["nodes"]
    connected = sum(bool(node.get("connected")) for node in nodes)
    return item.name, item.network, item.ready, f"{connected}/{len(nodes)}"


def _stream(item: Item) -> tuple[str, ...]:
    places = item.facts["locations"]
    present = sum(place.get("state") == "Present" for place in places)
    where = "main" if item.facts["location"] == "main" else f"edge {present}/{len(places)}"
    messages, size, lag = (_total(places, name) for name in ("messages", "bytes", "lag"))
    return item.namespace, item.name, item.network, item.ready, where, f"{messages:,}", _size(size), f"{lag:,}"


def _device(item: Item) -> tuple[str, ...]:
    counts = item.facts["counts"]
    peers = ", ".join(f"{counts[path]} {path}" for path in ("direct", "relay", "none") if counts.get(path))
    agent = "connected" if item.facts["agentConnected"] else "away"
    mesh = item.facts["mesh"]
    return item.name, item.facts["role"] or "", item.ready, agent, mesh.get("ipv4") or mesh.get("ipv6") or "", peers


def _total(places: list[Mapping[str, Any]], name: str) -> int:
    return sum(int(place.get(name) or 0) for place in places)


def _size(number: float) -> str:
    for unit in _UNITS:
        if number < 1024 or unit == _UNITS[-1]:
            break
        number /= 1024
    return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"


#: By member of the document: title, columns (the last one is the reason), and the cells before that.
_TABLES: Final[Mapping[str, tuple[str, tuple[str, ...], Callable[[Item], tuple[str, ...]]]]] = {
    "networks": ("Networks", ("NAME", "READY", "POLICIES", "GRANTS", "NODES", "STREAMS", "REASON"), _network),
    "policies": ("Policies", ("NAMESPACE", "NAME", "NETWORK", "READY", "SERVICE ACCOUNTS", "REASON"), _policy),
    "edgeNetworks": ("Edge networks", ("NAME", "NETWORK", "READY", "CONNECTED", "REASON"), _edge_network),
    "streams": (
        "Streams",
        ("NAMESPACE", "NAME", "NETWORK", "READY", "WHERE", "MESSAGES", "SIZE", "LAG", "REASON"),
        _stream,
    ),
    "edgeDevices": ("Edge devices", ("NAME", "ROLE", "READY", "AGENT", "ADDRESS", "PEERS", "REASON"), _device),
}
