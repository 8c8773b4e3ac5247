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


def read_reservation(answer: JetStreamAnswer | None, wanted: Limits) -> Reservation:
    """From the answer to JetStream's INFO, which never comes (None) where nothing could be reserved.

    When the hub cannot reserve more, it goes on with the limits from before.
    """
    if answer is not None and not answer.error_code:
        limits = answer.body.get("limits") or {}
        got = Limits(file_storage=limits.get("max_storage", 0), memory_storage=limits.get("max_memory", 0))
        if got == wanted:
            return Reservation(True)
    return Reservation(
        False,
        f"the hub could not reserve {wanted.file_storage} bytes on disk and {wanted.memory_storage} in memory: lower "
        "spec.limits of this or other Networks, or give the NATS servers more storage; it is tried again",
    )
