"""The findings of `edgefarm doctor`: their codes, and one finding as a value that travels as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Status(StrEnum):
    """How a check ended; `unknown` when something it depends on failed already or may not be asked."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Finding:
    """What one check found: `subject` is the object or server, `message` one sentence on what is, `advice` one on what
    to do (empty when all is well)."""

    code: str
    subject: str
    status: Status
    message: str
    advice: str = ""

    def document(self) -> dict[str, str]:
        """The finding as a JSON object."""
        return {
            "code": self.code,
            "subject": self.subject,
            "status": self.status.value,
            "message": self.message,
            "advice": self.advice,
        }

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> Finding:
        """The finding of a JSON object; ValueError or KeyError when it is none."""
        texts = (str(document[name]) for name in ("code", "subject"))
        return cls(*texts, Status(document["status"]), str(document["message"]), str(document.get("advice", "")))
