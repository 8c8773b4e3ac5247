"""One PolicyRule: what it allows, and whether it covers another one. Pure; the semantics are those of Kubernetes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any, Final

from localcluster.apiserver.authorization.attributes import Attributes

Json = dict[str, Any]
_ANY: Final = "*"


@dataclass(frozen=True)
class Rule:
    """A rule of a role. Without `names` it is about all objects."""

    verbs: frozenset[str]
    groups: frozenset[str] = frozenset()
    resources: frozenset[str] = frozenset()
    names: frozenset[str] = frozenset()
    paths: frozenset[str] = frozenset()

    @classmethod
    def parse(cls, raw: Json) -> Rule:
        fields = ("verbs", "apiGroups", "resources", "resourceNames", "nonResourceURLs")
        return cls(*(frozenset(raw.get(field) or ()) for field in fields))

    def allows(self, wanted: Attributes) -> bool:
        """Whether this rule alone permits what is wanted."""
        if wanted.verb not in self.verbs and _ANY not in self.verbs:
            return False
        if not wanted.resource:
            return any(_path_matches(path, wanted.path) for path in self.paths)
        return (
            (wanted.group in self.groups or _ANY in self.groups)
            and (not self.names or wanted.name in self.names)
            and _resource_matches(self.resources, wanted.qualified, wanted.subresource)
        )

    def covers(self, part: Rule) -> bool:
        """Whether everything that `part` allows is allowed by this rule."""
        return (
            _has_all(self.verbs, part.verbs)
            and _has_all(self.groups, part.groups)
            and all(_resource_matches(self.resources, name, name.partition("/")[2]) for name in part.resources)
            and (not self.names or (bool(part.names) and part.names <= self.names))
            and all(any(_path_matches(own, path) for own in self.paths) for path in part.paths)
        )

    def parts(self) -> Iterator[Rule]:
        """The same permissions as rules with one value in each field."""
        names = [frozenset({name}) for name in sorted(self.names)] or [frozenset()]
        for group, resource, verb in product(sorted(self.groups), sorted(self.resources), sorted(self.verbs)):
            for name in names:
                yield Rule(frozenset({verb}), frozenset({group}), frozenset({resource}), name)
        for path, verb in product(sorted(self.paths), sorted(self.verbs)):
            yield Rule(frozenset({verb}), paths=frozenset({path}))

    def compact(self) -> str:
        """As Kubernetes prints rules in refusals: `{APIGroups:[""], Resources:["pods"], Verbs:["get"]}`."""
        fields = (
            ("NonResourceURLs", self.paths),
            ("APIGroups", self.groups),
            ("Resources", self.resources),
            ("ResourceNames", self.names),
            ("Verbs", self.verbs),
        )
        shown = (f"{label}:[{' '.join(_quoted(values))}]" for label, values in fields if values)
        return "{" + ", ".join(shown) + "}"


#: Everything there is: what a role with an aggregationRule may become.
EVERYTHING: Final = (
    Rule(frozenset({_ANY}), frozenset({_ANY}), frozenset({_ANY})),
    Rule(frozenset({_ANY}), paths=frozenset({_ANY})),
)


def uncovered(own: Iterable[Rule], wanted: Iterable[Rule]) -> list[Rule]:
    """The parts of `wanted` that no rule of `own` covers."""
    held = list(own)
    return [part for rule in wanted for part in rule.parts() if not any(one.covers(part) for one in held)]


def _resource_matches(resources: frozenset[str], qualified: str, subresource: str) -> bool:
    if qualified in resources or _ANY in resources:
        return True
    return bool(subresource) and f"*/{subresource}" in resources


def _path_matches(rule: str, path: str) -> bool:
    return rule in (_ANY, path) or (rule.endswith(_ANY) and path.startswith(rule.rstrip(_ANY)))


def _has_all(own: frozenset[str], wanted: frozenset[str]) -> bool:
    return _ANY in own or wanted <= own


def _quoted(values: Iterable[str]) -> list[str]:
    return [f'"{value}"' for value in sorted(values)]
