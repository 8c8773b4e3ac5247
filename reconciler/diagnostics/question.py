"""Owns what may be asked of `/diagnostics`. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from edgefarm.errors import InvalidResource


class Scope(StrEnum):
    """What a question is about."""

    INSTALLATION = "installation"
    NETWORK = "network"
    POD = "pod"
    DEVICE = "device"


@dataclass(frozen=True)
class Question:
    """`name` and `namespace` are empty where the scope needs none."""

    scope: Scope
    name: str = ""
    namespace: str = ""

    @classmethod
    def read(cls, query: Mapping[str, str]) -> Question:
        """From the parameters of the request; InvalidResource says what is missing or unknown."""
        asked = query.get("scope", Scope.INSTALLATION.value)
        if asked not in set(Scope):
            raise InvalidResource("scope", f"write one of {', '.join(Scope)}")
        scope = Scope(asked)
        needed = {"name": scope is not Scope.INSTALLATION, "namespace": scope is Scope.POD}
        for parameter, is_needed in needed.items():
            if is_needed and not query.get(parameter):
                raise InvalidResource(parameter, f"is required for scope={scope}")
        return cls(scope, query.get("name", ""), query.get("namespace", ""))
