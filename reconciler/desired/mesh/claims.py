"""Who may have what two devices want (the older one), and the sentence for the one that may not."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from edgefarm.api.meta import Meta


class Seniority(NamedTuple):
    """Orders devices by age; the smaller one is the older. The uid decides between those made in one second."""

    created: datetime
    uid: str

    @classmethod
    def of(cls, meta: Meta) -> Seniority:
        """That of an object."""
        return cls(meta.created, meta.uid)


@dataclass(frozen=True)
class Refusal:
    """Why a device does not get what it shall have: reason in CamelCase and one sentence, for its condition."""

    reason: str
    message: str
