"""Makes a value of what the API server refuses to show, so that the walk goes on without it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from edgefarm.errors import KubernetesRefused
from edgefarm.findings import Code, Finding, unknown

T = TypeVar("T")


def allowed(call: Callable[[], T]) -> T | KubernetesRefused:
    """What the call returned, or the API server's no."""
    try:
        return call()
    except KubernetesRefused as error:
        return error


def not_shown(code: Code, subject: str, error: KubernetesRefused) -> Finding:
    """It could not be looked at; the error says which right is missing."""
    return unknown(code, subject, str(error))
