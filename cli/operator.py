"""Reads the operator's public facts from Vault and makes the hub's configuration of them."""

from __future__ import annotations

from edgefarm import names
from edgefarm.errors import InvalidCredential, VaultRefused
from edgefarm.nats import jwt, serverconfig
from edgefarm.vault import Vault


def hub_configuration(vault: Vault, resolver_dir: str) -> str:
    """The text for the main NATS servers; one request. VaultRefused when there is no operator, or none to be read."""
    document = vault.read_document(names.OPERATOR_DOCUMENT)
    where = f"the document {names.OPERATOR_DOCUMENT!r} in {vault.settings.kv_mount!r}"
    if document is None:
        raise VaultRefused(f"{where} does not exist: run `edgefarm vault bootstrap` once")
    try:
        operator, system = str(document["operatorJwt"]), str(document["systemAccountJwt"])
        jwt.decode(operator)
        return serverconfig.hub_config(
            operator_jwt=operator,
            system_account=str(jwt.decode(system)["sub"]),
            system_account_jwt=system,
            resolver_dir=resolver_dir,
        )
    except (KeyError, InvalidCredential) as error:
        raise VaultRefused(f"{where} cannot be read ({error}): `edgefarm vault bootstrap` says what to do") from error
