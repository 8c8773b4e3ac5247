"""The Vault login of the person at the terminal, found where the command lines of Vault and OpenBao find it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edgefarm import names
from edgefarm.errors import SettingsError

if TYPE_CHECKING:
    from edgefarm.vault import Vault

_PREFIXES: Final = ("VAULT", "BAO")
#: Where `vault login` and `bao login` put the token.
_TOKEN_FILE: Final = ".vault-token"


@dataclass(frozen=True)
class Mounts:
    """Which mounts of Vault are ours."""

    transit: str = names.DEFAULT_TRANSIT_MOUNT
    kv: str = names.DEFAULT_KV_MOUNT


def open_vault(environ: Mapping[str, str], home: Path, mounts: Mounts) -> Vault:
    """A client with the person's token; SettingsError says what is missing. It must be closed."""
    from edgefarm.vault import Vault, VaultSettings

    address = _variable(environ, "ADDR")
    if address is None:
        raise SettingsError(["VAULT_ADDR (or BAO_ADDR) is not set: export the address of Vault or OpenBao"])
    if not address.startswith(("https://", "http://")):
        raise SettingsError(
            [f"VAULT_ADDR (or BAO_ADDR) is {address!r}: write a URL such as https://vault.example:8200"]
        )
    token = _variable(environ, "TOKEN") or _stored_token(home)
    if token is None:
        raise SettingsError(
            [f"there is no Vault login: run `vault login` or `bao login`, or export VAULT_TOKEN (~/{_TOKEN_FILE})"]
        )
    settings = VaultSettings(
        address=address,
        ca_pem=_authority(environ),
        namespace=_variable(environ, "NAMESPACE") or "",
        transit_mount=mounts.transit,
        kv_mount=mounts.kv,
    )
    return Vault(settings, token=token)


def _variable(environ: Mapping[str, str], name: str) -> str | None:
    """The variable of either program; two that differ are refused, lest a token goes to the wrong server."""
    found = {f"{prefix}_{name}": environ[f"{prefix}_{name}"] for prefix in _PREFIXES if environ.get(f"{prefix}_{name}")}
    if len(set(found.values())) > 1:
        raise SettingsError([f"{' and '.join(found)} differ: unset one of them"])
    return next(iter(found.values()), None)


def _stored_token(home: Path) -> str | None:
    try:
        return (home / _TOKEN_FILE).read_text().strip() or None
    except OSError:
        return None


def _authority(environ: Mapping[str, str]) -> str | None:
    file = _variable(environ, "CACERT")
    if file is None:
        return None
    try:
        return Path(file).read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError([f"VAULT_CACERT (or BAO_CACERT) is {file!r}, which cannot be read: {error}"]) from error
