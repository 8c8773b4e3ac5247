"""Durations and Kubernetes quantities, from the text that users write to numbers."""

from __future__ import annotations

import re
from datetime import timedelta
from decimal import Decimal
from typing import Final

_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "M": 30 * 86_400, "y": 365 * 86_400}
_DURATION = re.compile(r"(?:\d+[smhdMy])+")
_DURATION_PART = re.compile(r"(\d+)([smhdMy])")
_QUANTITY = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(?:([KMGTPE]i|[kMGTPEm])|[eE]([+-]?\d{1,2}))?")
_FACTORS: Final = {
    "": Decimal(1),
    "m": Decimal("0.001"),
    **{unit: Decimal(1000) ** power for power, unit in enumerate("kMGTPE", 1)},
    **{f"{unit}i": Decimal(1024) ** power for power, unit in enumerate("KMGTPE", 1)},
}
#: Largest number that NATS' signed 64-bit limits can hold.
MAX_INT64: Final = 2**63 - 1


def parse_duration(text: str) -> timedelta:
    """Parse `90s`, `1h30m`, `30d`, `1M` (30 days), `1y` (365 days); raise ValueError with what to write instead.

    The units are the seed's: s, m, h, d, M, y.
    """
    if not isinstance(text, str) or not _DURATION.fullmatch(text):
        raise ValueError(f"{text!r} is not a duration: write for example 90s, 15m, 1h30m, 30d, 1M or 1y")
    try:
        return timedelta(seconds=sum(int(n) * _SECONDS[unit] for n, unit in _DURATION_PART.findall(text)))
    except OverflowError:
        raise ValueError(f"{text!r} is too long for a duration") from None


def parse_quantity(text: str | int) -> int:
    """Parse a Kubernetes quantity (`1Gi`, `500M`, `1.5Gi`, `1e9`, 1024) to whole bytes, rounded up.

    Raise ValueError with what to write instead. See
    https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
    """
    problem = f"{text!r} is not a quantity: write a number of bytes with an optional unit, for example 500Mi or 2Gi"
    if isinstance(text, bool) or not isinstance(text, str | int):
        raise ValueError(problem)
    match = _QUANTITY.fullmatch(str(text))
    if match is None:
        raise ValueError(problem)
    number, unit, exponent = match.groups()
    value = Decimal(number) * (Decimal(10) ** int(exponent) if exponent else _FACTORS[unit or ""])
    rounded = int(value) + (value != int(value))
    if rounded > MAX_INT64:
        raise ValueError(f"{text!r} is too large: the largest size is 8Ei - 1")
    return rounded
