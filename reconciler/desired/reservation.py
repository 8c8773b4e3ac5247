"""Decides whether the hub has set aside the storage that a network may use, from what JetStream tells."""

from __future__ import annotations

from dataclasses import dataclass

from edgefarm.api.network import Limits
from reconciler.ports import JetStreamAnswer


@dataclass(frozen=True)
class Reservation:
    """`made`: whether the storage is there (None: JetStream does not tell); `problem` is a sentence when it is not."""

    made: bool | None
    problem: str = ""


def read_reservation(answer: JetStreamAnswer, wanted: Limits) -> Reservation:
    """From the answer to JetStream's INFO; the hub goes on with the limits from before when it cannot reserve more."""
    limits = answer.body.get("limits") or {}
    got = Limits(file_storage=limits.get("max_storage", 0), memory_storage=limits.get("max_memory", 0))
    if not answer.error_code and got == wanted:
        return Reservation(True)
    return Reservation(
        False,
        f"the hub could not reserve {wanted.file_storage} bytes on disk and {wanted.memory_storage} in memory: lower "
        "spec.limits of this or other Networks, or give the NATS servers more storage; it is tried again",
    )
