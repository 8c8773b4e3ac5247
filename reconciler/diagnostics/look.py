"""Gathers what is known of Vault and NATS for one diagnosis; every outside call is bounded, failures become values."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from edgefarm import names
from edgefarm.errors import EdgefarmError, NoAnswer, VaultRefused, VaultUnavailable
from edgefarm.vault import Vault, VaultSettings
from edgefarm.vault.health import seal_status
from reconciler.configuration import Configuration
from reconciler.context import Context
from reconciler.diagnostics.asking import asked
from reconciler.diagnostics.servers import NatsFacts, VaultFacts

#: Seconds for one request to Vault, for all of them, for one connection to NATS, and for an answer of NATS.
_VAULT_REQUEST: Final = 2
_VAULT_SECONDS: Final = 4.0
_CONNECT_SECONDS: Final = 1.5
_NATS_SECONDS: Final = 2.5
_NATS_PORT: Final = 4222

_Read = Callable[[Vault], Any]


def _keys_of_setup() -> dict[str, _Read]:
    wanted = (names.OPERATOR_SIGNING_KEYS[0], names.SYSTEM_CONTROLLER_KEY, names.SYSTEM_LEAF_KEY)
    return {f"the transit key {name}": lambda vault, name=name: vault.key(name) for name in wanted}  # type: ignore[misc]


#: What must be there, and what the reconciler must be allowed to list. Writing cannot be tried without writing.
_NEEDED: Final[dict[str, _Read]] = {
    f"the document {names.OPERATOR_DOCUMENT}": lambda vault: vault.read_document(names.OPERATOR_DOCUMENT),
    **_keys_of_setup(),
}
_LISTED: Final[dict[str, _Read]] = {
    "transit keys": Vault.keys,
    "roles": Vault.roles,
    "Vault policies": Vault.policies,
    "access documents": lambda vault: vault.list_documents(names.AGENT_ACCESS_FOLDER),
    "keys of devices": lambda vault: vault.list_documents(names.MESH_KEYS_FOLDER),
}


async def look_at_vault(configuration: Configuration, token_file: Path) -> VaultFacts:
    """Ask Vault with a login of its own: a token from before would still work after the role was deleted."""
    settings = replace(configuration.vault.server, timeout_seconds=_VAULT_REQUEST)
    facts = await asked(asyncio.to_thread(_ask_vault, settings, token_file), _VAULT_SECONDS)
    found = facts if isinstance(facts, VaultFacts) else VaultFacts(settings.address, facts)
    return replace(found, deployed=configuration.vault.deployment is not None)


async def look_at_nats(context: Context, configuration: Configuration, system_account: str | None) -> NatsFacts:
    """Connect to each URL, and ask the servers for the system account, which only its own users may."""
    urls, deployed = configuration.nats.urls, configuration.nats.deployment is not None
    problems = await asyncio.gather(*(why_not(url) for url in urls))
    connecting = dict(zip(urls, problems, strict=True))
    if all(problems):
        return NatsFacts(connecting, (), deployed)
    if system_account is None:
        no_account = VaultUnavailable("Vault does not tell which account is the system account")
        return NatsFacts(connecting, no_account, deployed)
    answers = await asked(_lookup(context, system_account), _NATS_SECONDS)
    return NatsFacts(connecting, answers, deployed)


async def _lookup(context: Context, account: str) -> Sequence[str]:
    return sorted({answer.server for answer in await context.nats().lookup(account)})


async def why_not(url: str) -> str:
    """Why nobody takes a TCP connection there; empty when somebody does. What is said over it is tried by a login."""
    parts = urlsplit(url)
    try:
        async with asyncio.timeout(_CONNECT_SECONDS):
            _, writer = await asyncio.open_connection(parts.hostname, parts.port or _NATS_PORT)
    except TimeoutError:
        return f"no answer within {_CONNECT_SECONDS:g} s"
    except OSError as error:
        # asyncio puts the address into its own text; that of a failed lookup has no number of the system's.
        return os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror or str(error)
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return ""


def _ask_vault(settings: VaultSettings, token_file: Path) -> VaultFacts:
    # Nobody can end a thread: it ends by itself when nobody waits for it any more.
    give_up_at = time.monotonic() + _VAULT_SECONDS
    vault = Vault(settings)
    try:
        seal = seal_status(vault)
        if seal.sealed or not seal.initialized:
            return VaultFacts(settings.address, seal)
        failure = _log_in(vault, token_file)
        if failure is not None:
            return VaultFacts(settings.address, seal, failure)
        return VaultFacts(settings.address, seal, None, _lacking(vault, give_up_at), _system_account(vault))
    except EdgefarmError as error:
        return VaultFacts(settings.address, error)
    finally:
        vault.close()


def _log_in(vault: Vault, token_file: Path) -> EdgefarmError | None:
    try:
        vault.login(names.CONTROLLER_ROLE, token_file.read_text().strip())
    except OSError as error:
        return VaultRefused(f"the service account token {token_file} cannot be read: {error.strerror}")
    except EdgefarmError as error:
        return error
    return None


def _system_account(vault: Vault) -> str | None:
    try:
        return (vault.read_document(names.OPERATOR_DOCUMENT) or {}).get("systemAccount")
    except EdgefarmError:
        return None  # what is wrong is told by what is lacking


def _lacking(vault: Vault, give_up_at: float) -> Sequence[str] | EdgefarmError:
    lacking = []
    for what, read in {**_NEEDED, **_LISTED}.items():
        if time.monotonic() > give_up_at:
            return NoAnswer(f"not all answers within {_VAULT_SECONDS:g} s")
        try:
            there = read(vault)
        except VaultRefused as error:
            lacking.append(f"the reconciler may not {'list' if what in _LISTED else 'read'} {what} ({error.status})")
        except EdgefarmError as error:
            return error
        else:
            if there is None and what in _NEEDED:
                lacking.append(f"{what} is missing")
    return lacking
