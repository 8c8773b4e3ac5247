"""What an object's condition Ready is worth, and what of it only follows from something that is told already."""

from __future__ import annotations

from typing import Any

import pytest

from edgefarm.findings import Code, Status, fine, wrong
from reconciler.diagnostics.conditions import explained, group, ready


def network(status: str, reason: str, **condition: Any) -> Any:
    ready = {"type": "Ready", "status": status, "reason": reason, "message": "a sentence", **condition}
    return {"metadata": {"name": "plant", "generation": 2}, "status": {"conditions": [ready]}}


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (Code.VAULT_SEALED, "VaultUnavailable"),
        (Code.NATS_UNREACHABLE, "NatsUnavailable"),
        (Code.ACCOUNT_MISSING, "NatsUnavailable"),
        (Code.CONFIGURATION_INVALID, "WaitingForConfiguration"),
    ],
)
def test_what_waits_for_something_that_is_told_already_is_not_called_wrong(code: Code, reason: str) -> None:
    known = explained([wrong(code, "it", "is broken", "mend it")])
    assert ready(Code.NETWORK_NOT_READY, "Network plant", network("False", reason), known).status is Status.UNKNOWN
    assert ready(Code.NETWORK_NOT_READY, "Network plant", network("False", "Other"), known).status is Status.ERROR


def test_what_waits_for_a_server_that_works_again_is_wrong_until_it_is_tried_again() -> None:
    known = explained([fine(Code.VAULT_SEALED, "Vault", "it is unsealed")])
    found = ready(Code.NETWORK_NOT_READY, "Network plant", network("False", "VaultUnavailable"), known)
    assert found.status is Status.ERROR


def test_an_object_whose_last_change_nobody_has_looked_at_is_doubtful() -> None:
    found = ready(Code.NETWORK_NOT_READY, "Network plant", network("True", "Reconciled", observedGeneration=1))
    assert found.status is Status.WARNING
    assert "last change" in found.message


def test_an_edge_network_that_waits_for_its_first_node_is_doubtful() -> None:
    found = ready(Code.EDGE_NETWORK_NOT_READY, "EdgeNetwork halls", network("False", "NoEdgeNodes"))
    assert found.status is Status.WARNING


def test_what_is_wrong_stands_before_what_only_follows() -> None:
    objects = [network("False", "VaultUnavailable"), network("False", "Other")]
    found = group(Code.NETWORK_NOT_READY, "Network", objects, frozenset(("VaultUnavailable",)))
    assert [each.status for each in found] == [Status.ERROR, Status.UNKNOWN]
