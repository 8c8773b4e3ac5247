"""The tables of `edgefarm status`. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from cli.output import Health, Note, Row, Table, shortened
from cli.overview import Item, Overview, Section

#: Rows of nodes that are shown, those that are away first; JSON has all.
_MOST_NODES: Final = 20
_LONGEST_NOTE: Final = 240
#: Names of objects in one note.
_MOST_NAMES: Final = 5
#: Sections whose objects are called by their namespaces, too.
_OF_TENANTS: Final = ("policies", "streams")
_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


def tables_of(overview: Overview) -> Iterator[Table | str]:
    """What people get to see."""
    for section in overview.sections:
        title, columns, cells = _TABLES[section.key]
        rows = [_row(item, cells(item)) for item in section.items]
        titled = f"{title} ({section.note})" if section.note else title
        yield Table(titled, columns, rows, section.problem or "none", notes=_notes(section))
        if section.key == "edgeNetworks" and any(item.facts["nodes"] for item in section.items):
            yield _nodes(section.items)


def _row(item: Item, cells: tuple[str, ...]) -> Row:
    return Row((*cells, "" if item.health is Health.GOOD and item.ready == "True" else item.reason), item.health)


def _notes(section: Section) -> list[Note]:
    """Why objects are not well, each sentence once."""
    affected: dict[tuple[Health, str], list[str]] = {}
    for item in section.items:
        if item.health is not Health.GOOD:
            name = f"{item.namespace}/{item.name}" if section.key in _OF_TENANTS else item.name
            affected.setdefault((item.health, item.message), []).append(name)
    return [
        Note(shortened(f"{_some(names)}: {message}", _LONGEST_NOTE), health)
        for (health, message), names in affected.items()
    ]


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return ", ".join(names[:_MOST_NAMES]) + more


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
