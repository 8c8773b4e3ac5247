"""How Deployments and DaemonSets move to a new template: the decisions, as plain functions of counts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Replicas:
    """A ReplicaSet's numbers: wanted, existing and available pods."""

    name: str
    wanted: int
    existing: int
    available: int


@dataclass(frozen=True)
class Strategy:
    """How many pods there must be, and how many more or fewer there may be meanwhile."""

    replicas: int
    surge: int
    unavailable: int
    recreate: bool = False

    @classmethod
    def of(cls, spec: dict[str, object]) -> Strategy:
        """From a Deployment's spec, with Kubernetes' defaults (25 %)."""
        replicas = _integer(spec.get("replicas", 1))
        strategy = spec.get("strategy") or {}
        assert isinstance(strategy, dict)
        if strategy.get("type") == "Recreate":
            return cls(replicas, 0, replicas, recreate=True)
        rolling = strategy.get("rollingUpdate") or {}
        surge = share(rolling.get("maxSurge", "25%"), replicas, up=True)
        unavailable = share(rolling.get("maxUnavailable", "25%"), replicas, up=False)
        return cls(replicas, surge, unavailable if surge or unavailable else 1)


def plan(strategy: Strategy, new: Replicas, old: Sequence[Replicas]) -> dict[str, int]:
    """How many replicas each ReplicaSet should have next, by name; `old` is ordered from oldest to youngest."""
    wanted = {entry.name: entry.wanted for entry in (new, *old)}
    if strategy.recreate:
        wanted |= {entry.name: 0 for entry in old}
        if not any(entry.existing for entry in old):
            wanted[new.name] = strategy.replicas
        return wanted
    total = sum(wanted.values())
    if new.wanted > strategy.replicas:
        wanted[new.name] = strategy.replicas
    elif new.wanted < strategy.replicas:
        room = max(0, strategy.replicas + strategy.surge - total)
        wanted[new.name] = min(strategy.replicas, new.wanted + room)
    needed = strategy.replicas - strategy.unavailable
    removable = total - needed - max(0, new.wanted - new.available)
    for entry in old:  # pods that are not available go first: nobody misses them
        unhealthy = max(0, entry.wanted - entry.available)
        removed = max(0, min(removable, unhealthy))
        wanted[entry.name] -= removed
        removable -= removed
    spare = min(removable, new.available + sum(entry.available for entry in old) - needed)
    for entry in old:
        removed = max(0, min(spare, wanted[entry.name]))
        wanted[entry.name] -= removed
        spare -= removed
    return wanted


def share(value: object, replicas: int, *, up: bool) -> int:
    """An IntOrString such as `2` or `25%` as a number of replicas; `up`: a part of one counts as one."""
    if isinstance(value, str) and value.endswith("%"):
        share = replicas * int(value[:-1]) / 100
        return math.ceil(share) if up else math.floor(share)
    return _integer(value)


def _integer(value: object) -> int:
    assert isinstance(value, int | str)
    return int(value)
