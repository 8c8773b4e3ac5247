"""How much CPU and memory the sidecar asks for: our sizes, or those that the pod's annotations name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from edgefarm.units import parse_quantity

#: (kind, name) as in `resources.<kind>s.<name>`; the keys of what a pod asks for.
Size = tuple[str, str]
CPU_REQUEST: Final[Size] = ("requests", "cpu")
CPU_LIMIT: Final[Size] = ("limits", "cpu")
MEMORY_REQUEST: Final[Size] = ("requests", "memory")
MEMORY_LIMIT: Final[Size] = ("limits", "memory")

#: Below it no Python process starts; it also catches `64` and `64m`, which Kubernetes takes for bytes.
_LEAST_MEMORY: Final = 16 * 2**20
_CPU = re.compile(r"(?P<milli>[0-9]{1,6})m|(?P<cores>[0-9]{1,4}(?:\.[0-9]{1,3})?)", re.ASCII)


def is_cpu(text: str) -> bool:
    """Whether `text` is a CPU quantity greater than zero."""
    return _millicores(text) > 0


def is_memory(text: str) -> bool:
    """Whether `text` is a memory quantity that a sidecar can live with."""
    try:
        return len(text) <= 30 and parse_quantity(text) >= _LEAST_MEMORY
    except ValueError:
        return False


def exceeding(asked: Mapping[Size, str]) -> str | None:
    """`cpu` or `memory` when the pod asks for a request above a limit that it sets itself."""
    for name in ("cpu", "memory"):
        request, limit = asked.get(("requests", name)), asked.get(("limits", name))
        if request is not None and limit is not None and _amount(name, request) > _amount(name, limit):
            return name
    return None


def merge(ours: Mapping[str, Mapping[str, str]], asked: Mapping[Size, str], pod_level: Mapping[str, Any]) -> Any:
    """The container's `resources`: `ours` with what the annotations ask for.

    A request above our limit raises the limit, a limit below our request lowers the request. What the pod sets for
    all its containers together (`spec.resources`) is left to it: the sum of the containers must not exceed it.
    """
    if not asked and not pod_level:
        return ours
    merged: dict[str, dict[str, str]] = {"requests": {}, "limits": {}}
    for name in ("cpu", "memory"):
        request, limit = asked.get(("requests", name)), asked.get(("limits", name))
        if request is None and limit is None and _sets(pod_level, name):
            continue
        pair = [request or ours["requests"][name], limit or ours["limits"][name]]
        if _amount(name, pair[0]) > _amount(name, pair[1]):
            pair = [request or pair[1], limit or pair[0]]
        merged["requests"][name], merged["limits"][name] = pair
    return {kind: sizes for kind, sizes in merged.items() if sizes}


def _sets(pod_level: Mapping[str, Any], name: str) -> bool:
    return any(name in (pod_level.get(kind) or {}) for kind in ("requests", "limits"))


def _amount(name: str, text: str) -> float:
    return _millicores(text) if name == "cpu" else parse_quantity(text)


def _millicores(text: str) -> float:
    match = _CPU.fullmatch(text)
    if match is None:
        return 0
    return float(match["milli"]) if match["milli"] else float(match["cores"]) * 1000
