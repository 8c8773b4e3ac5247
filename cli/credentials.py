"""Makes NATS credentials for a person: the key of the user is made here, and Vault signs with the key of a Policy."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Any

from edgefarm import names
from edgefarm.errors import SettingsError, VaultRefused
from edgefarm.nats import creds, nkeys
from edgefarm.vault import TransitKey, Vault
from sidecar.access import Signer
from sidecar.credentials import issue_user


@dataclass(frozen=True)
class Order:
    """What a person asks for; `user` is the name under which NATS lists the connection."""

    network: str
    namespace: str
    policy: str
    user: str
    lifetime: timedelta

    @property
    def key(self) -> str:
        """Name of the transit key that signs; InvalidName when one of the names cannot be."""
        return names.policy_key(self.network, self.namespace, self.policy)


@dataclass(frozen=True)
class Issued:
    """Credentials: `text` is the creds file, a secret."""

    text: str = field(repr=False)
    account: str
    signing_key: str
    key_version: int
    expires: datetime

    def document(self) -> dict[str, Any]:
        """What may be shown of them."""
        return {
            "account": self.account,
            "signingKey": self.signing_key,
            "keyVersion": self.key_version,
            "expiresAt": self.expires.isoformat().replace("+00:00", "Z"),
        }


def issue(vault: Vault, order: Order, account: str, *, now: datetime, identifier: str) -> Issued:
    """Make credentials for `account` under the Policy's scoped key; two requests. `identifier` is their random `jti`.

    Raises VaultRefused (`status` 403: the login lacks the rights of `credentials_policy`; 404: no such key).
    """
    try:
        key = vault.key(order.key)
        if key is None:
            raise VaultRefused(
                f"Vault has no key {order.key!r} in {vault.settings.transit_mount!r}: see with `edgefarm status "
                f"{order.network} -n {order.namespace}` whether the Policy {order.policy!r} is in effect",
                HTTPStatus.NOT_FOUND,
            )
        return _signed(vault, key, order, account, now=now, identifier=identifier)
    except VaultRefused as error:
        if error.status != HTTPStatus.FORBIDDEN:
            raise
        raise VaultRefused(
            f"{error}; if it is valid, it lacks the rights that `edgefarm vault policy {order.network} --policy "
            f"{order.policy} -n {order.namespace}` prints",
            error.status,
        ) from error


def _signed(vault: Vault, key: TransitKey, order: Order, account: str, *, now: datetime, identifier: str) -> Issued:
    version = key.latest_version
    public = nkeys.encode_public(nkeys.Prefix.ACCOUNT, key.latest.public_key)
    issued_at = int(now.timestamp())
    expires_at = issued_at + int(order.lifetime.total_seconds())
    token, seed = issue_user(
        Signer(account, public, key.name, version),
        order.user,
        issued_at=issued_at,
        expires_at=expires_at,
        identifier=identifier,
        sign=lambda data: vault.sign(key.name, version, data),
    )
    expires = datetime.fromtimestamp(expires_at, UTC)
    return Issued(creds.format_creds(token, seed), account, public, version, expires)


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read (mode 0600), whole or not at all; SettingsError when it cannot be."""
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise SettingsError([f"--out: {path} cannot be written: {error.strerror}"]) from error
    try:
        with os.fdopen(descriptor, "w") as file:  # mkstemp has made it 0600
            file.write(text)
        os.replace(name, path)
    except OSError as error:
        with suppress(OSError):
            os.unlink(name)
        raise SettingsError([f"--out: {path} cannot be written: {error.strerror}"]) from error
