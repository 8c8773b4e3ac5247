"""Where a program in a pod answers about its health. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

_VARIABLE: Final = "EDGEFARM_HEALTH_PORT"


def health_port(pod: Mapping[str, Any], default: int) -> int:
    """As the environment of one of its containers says."""
    spec = pod.get("spec") or {}
    for container in [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]:
        for variable in container.get("env") or ():
            if variable.get("name") == _VARIABLE and str(variable.get("value", "")).isdigit():
                return int(variable["value"])
    return default
