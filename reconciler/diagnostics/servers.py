"""Decides what is wrong with Vault and NATS, from what was gathered about them. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from edgefarm.errors import EdgefarmError, NoAnswer, Refused, VaultUnavailable
from edgefarm.findings import Code, Finding, fine, unknown, warning, wrong
from edgefarm.vault.health import SealStatus

_BOOTSTRAP: Final = "run `edgefarm vault bootstrap` of this version once more (it changes only what is missing)"
#: For servers that the reconciler runs.
_BY_ITSELF: Final = "the reconciler sets it up by itself: its log says why it could not"


@dataclass(frozen=True)
class VaultFacts:
    """What Vault said, in the order in which it was asked; what came after a failure is None.

    `login` is the reconciler's own, made anew. `lacking` are rights, keys and documents that the setup of this version
    has and this Vault has not; `system_account` is the public key that the operator's document names. `deployed`: the
    reconciler runs it.
    """

    address: str
    seal: SealStatus | EdgefarmError
    login: EdgefarmError | None = None
    lacking: Sequence[str] | EdgefarmError = ()
    system_account: str | None = None
    deployed: bool = False

    @property
    def setup(self) -> str:
        """How it gets the setup of this version."""
        return _BY_ITSELF if self.deployed else _BOOTSTRAP


@dataclass(frozen=True)
class NatsFacts:
    """Why each URL cannot be connected to (empty: it can), and which servers answered the reconciler's system user.

    `deployed`: the reconciler runs them.
    """

    connecting: Mapping[str, str]
    servers: Sequence[str] | EdgefarmError
    deployed: bool = False

    @property
    def where(self) -> str:
        """All URLs."""
        return ", ".join(self.connecting)


def check_vault(facts: VaultFacts) -> list[Finding]:
    """The chain from the address to the setup; it ends at the first failure."""
    subject = f"Vault {facts.address}"
    if isinstance(facts.seal, EdgefarmError):
        return [_vault_unreachable(subject, facts.seal)]
    found = [fine(Code.VAULT_UNREACHABLE, subject, f"it answers (version {facts.seal.version or 'unknown'})")]
    if not facts.seal.initialized:
        return [*found, wrong(Code.VAULT_SEALED, subject, "it has not been initialised", "initialise and unseal it")]
    if facts.seal.sealed:
        advice = "unseal it, and see why it was sealed: a restart without auto-unseal, or an administrator's command"
        return [*found, wrong(Code.VAULT_SEALED, subject, "it is sealed, so nobody gets credentials", advice)]
    found.append(fine(Code.VAULT_SEALED, subject, "it is unsealed"))
    if isinstance(facts.login, Refused):
        return [*found, _vault_login(subject, facts.login, facts.setup)]
    if facts.login is not None:
        return [*found, _vault_unreachable(subject, facts.login)]
    found.append(fine(Code.VAULT_LOGIN_REFUSED, subject, "the reconciler can log in"))
    if isinstance(facts.lacking, EdgefarmError):
        return [*found, _vault_unreachable(subject, facts.lacking)]
    if facts.lacking:
        message = f"its setup is not that of this version: {'; '.join(facts.lacking)}"
        return [*found, wrong(Code.VAULT_SETUP_OUTDATED, subject, message, facts.setup)]
    message = "mounts, keys and the reconciler's rights are as this version needs them"
    return [*found, fine(Code.VAULT_SETUP_OUTDATED, subject, message)]


def check_nats(facts: NatsFacts) -> list[Finding]:
    """From the sockets to the system account."""
    away = {url: problem for url, problem in facts.connecting.items() if problem}
    if len(away) == len(facts.connecting):
        told = away.values() if len(away) == 1 else (f"{url}: {problem}" for url, problem in away.items())
        message = f"nobody takes connections there: {'; '.join(told)}"
        advice = "see that the NATS servers run, and that nats.urls and the network between them and us are right"
        return [wrong(Code.NATS_UNREACHABLE, f"NATS {facts.where}", message, advice)]
    found = [
        warning(
            Code.NATS_UNREACHABLE,
            f"NATS {url}",
            f"it cannot be reached: {problem}",
            "see why it is down, or take it out of nats.urls",
        )
        for url, problem in away.items()
    ]
    subject = f"NATS {', '.join(url for url, problem in facts.connecting.items() if not problem)}"
    if isinstance(facts.servers, NoAnswer):
        message = f"it takes connections, but does not serve: {facts.servers}"
        return [*found, wrong(Code.NATS_UNREACHABLE, subject, message, "see its log and load; restart it if it hangs")]
    found.append(fine(Code.NATS_UNREACHABLE, subject, "it takes connections"))
    if isinstance(facts.servers, VaultUnavailable):
        message = "the reconciler's login cannot be tried, because Vault has to sign it"
        return [*found, unknown(Code.NATS_REFUSES_CONTROLLER, subject, message)]
    if isinstance(facts.servers, EdgefarmError):
        given = (
            "see that the servers run with the output of `edgefarm nats config` of this Vault (operator, system "
            "account, full resolver), and that nats.caBundle is the authority of their certificates"
        )
        advice = _BY_ITSELF if facts.deployed else given
        return [*found, wrong(Code.NATS_REFUSES_CONTROLLER, subject, _sentence(facts.servers), advice)]
    message = f"the reconciler's system user is served by {', '.join(facts.servers)}"
    return [*found, fine(Code.NATS_REFUSES_CONTROLLER, subject, message)]


def _vault_unreachable(subject: str, error: EdgefarmError) -> Finding:
    advice = "see that it runs, and that vault.address, vault.caBundle and the network between it and us are right"
    return wrong(Code.VAULT_UNREACHABLE, subject, _sentence(error), advice)


def _vault_login(subject: str, error: EdgefarmError, setup: str) -> Finding:
    advice = (
        "see that the auth mount and the role networkcontroller exist, and that Vault can ask the Kubernetes API to "
        f"review tokens; {setup}"
    )
    return wrong(Code.VAULT_LOGIN_REFUSED, subject, _sentence(error), advice)


def _sentence(error: EdgefarmError) -> str:
    return str(error).rstrip(". ")
