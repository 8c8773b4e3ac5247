"""What is said about Vault and NATS in states that are hard to bring about."""

from __future__ import annotations

import pytest

from edgefarm.errors import NatsUnavailable, VaultRefused, VaultUnavailable
from edgefarm.findings import Code, Finding, Status
from edgefarm.vault.health import SealStatus
from localcluster.process import free_port
from reconciler.diagnostics.look import why_not
from reconciler.diagnostics.servers import NatsFacts, VaultFacts, check_nats, check_vault

_OPEN = SealStatus(initialized=True, sealed=False, version="2.7.2")
_ONE, _OTHER = "tls://one:4222", "tls://other:4222"


def last(findings: list[Finding]) -> tuple[str, Status]:
    return findings[-1].code, findings[-1].status


def test_a_vault_that_was_never_initialised_is_not_called_sealed_only() -> None:
    found = check_vault(VaultFacts("https://vault", SealStatus(initialized=False, sealed=True, version="")))
    assert last(found) == (Code.VAULT_SEALED, Status.ERROR)
    assert "initialised" in found[-1].message


def test_a_vault_that_goes_away_during_the_login_has_not_refused_it() -> None:
    found = check_vault(VaultFacts("https://vault", _OPEN, VaultUnavailable("it is gone")))
    assert last(found) == (Code.VAULT_UNREACHABLE, Status.ERROR)


@pytest.mark.parametrize("facts", [{"login": VaultRefused("no", 403)}, {"lacking": ("the transit key x is missing",)}])
def test_nobody_is_told_to_set_up_what_the_reconciler_runs_itself(facts: dict[str, object]) -> None:
    given = check_vault(VaultFacts("https://vault", _OPEN, **facts))[-1]  # type: ignore[arg-type]
    own = check_vault(VaultFacts("https://vault", _OPEN, deployed=True, **facts))[-1]  # type: ignore[arg-type]
    assert "vault bootstrap" in given.advice
    assert "vault bootstrap" not in own.advice


def test_one_of_several_nats_servers_that_is_away_is_a_warning() -> None:
    found = check_nats(NatsFacts({_ONE: "", _OTHER: "refused"}, ["one"]))
    assert [(each.status, each.subject) for each in found if each.status is not Status.OK] == [
        (Status.WARNING, f"NATS {_OTHER}")
    ]


async def test_a_port_where_nobody_listens_is_told_in_the_words_of_the_system() -> None:
    assert await why_not(f"tls://127.0.0.1:{free_port()}") == "Connection refused"


def test_a_single_address_is_not_repeated_in_the_sentence() -> None:
    (found,) = check_nats(NatsFacts({_ONE: "Connection refused"}, []))
    assert found.message == "nobody takes connections there: Connection refused"


def test_a_login_that_is_refused_is_told_in_the_words_of_the_client() -> None:
    found = check_nats(NatsFacts({_ONE: ""}, NatsUnavailable("Cannot log in: Authorization Violation.")))
    assert last(found) == (Code.NATS_REFUSES_CONTROLLER, Status.ERROR)
    assert found[-1].message == "Cannot log in: Authorization Violation"
