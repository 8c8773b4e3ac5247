"""What Vault holds for us as frozen values, and how they are read from Vault's answers. No I/O."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Final

from edgefarm import names
from edgefarm.errors import VaultRefused

#: Length of a raw ed25519 public key in bytes.
PUBLIC_KEY_BYTES: Final = 32


@dataclass(frozen=True)
class VaultSettings:
    """Where Vault is and which mounts are ours.

    `ca_pem` is the only authority that is trusted when given; None means the system's. `namespace` is a Vault
    Enterprise or OpenBao namespace ("" is the root). `timeout_seconds` bounds connecting and each wait for an answer.
    """

    address: str
    ca_pem: str | None = None
    namespace: str = ""
    auth_mount: str = names.DEFAULT_AUTH_MOUNT
    transit_mount: str = names.DEFAULT_TRANSIT_MOUNT
    kv_mount: str = names.DEFAULT_KV_MOUNT
    timeout_seconds: float = 10


@dataclass(frozen=True)
class KeyVersion:
    """One version of a transit key."""

    public_key: bytes
    """Raw ed25519 public key, 32 bytes."""
    created: datetime
    """Aware, in UTC."""


@dataclass(frozen=True)
class TransitKey:
    """The public side of an ed25519 key in transit; the private side never leaves Vault."""

    name: str
    latest_version: int
    versions: Mapping[int, KeyVersion]

    @property
    def latest(self) -> KeyVersion:
        """The newest version."""
        return self.versions[self.latest_version]


@dataclass(frozen=True)
class Role:
    """A role of the Kubernetes auth method: who may log in, and what the token may do.

    Equal to another Role exactly when Vault need not be written. A role that somebody changed in a way which these
    fields cannot say has the names of those settings in `drift`, so it never equals a wanted one.
    """

    name: str
    namespace: str
    service_account: str
    audience: str
    policies: tuple[str, ...]
    token_ttl: int
    """Seconds that a token lives; tokens are never renewed beyond it."""
    drift: tuple[str, ...] = field(default=())


#: Role settings that are the same in every role of ours. Batch tokens cost Vault no storage; without the default policy
#: a token may do what the role's policies say and nothing else.
_FIXED_ROLE_SETTINGS: Final[Mapping[str, Any]] = MappingProxyType(
    {
        "alias_name_source": "serviceaccount_uid",
        "token_bound_cidrs": [],
        "token_explicit_max_ttl": 0,
        "token_no_default_policy": True,
        "token_num_uses": 0,
        "token_period": 0,
        "token_type": "batch",
    }
)
#: Never sent, and cleared by every write; a role that has one of them set was changed by somebody else.
_FOREIGN_ROLE_SETTINGS: Final = ("bound_service_account_namespace_selector",)


def role_parameters() -> tuple[str, ...]:
    """Names of all parameters that writing a role sends; a Vault policy can be limited to them."""
    return tuple(sorted(encode_role(Role("", "", "", "", (), 0))))


def encode_role(role: Role) -> dict[str, Any]:
    """The body that writes a role."""
    return {
        **_FIXED_ROLE_SETTINGS,
        "bound_service_account_names": role.service_account,
        "bound_service_account_namespaces": role.namespace,
        "audience": role.audience,
        # As text, because the parameter rules of Vault policies match text only, not lists.
        "token_policies": ",".join(role.policies),
        "token_ttl": role.token_ttl,
        "token_max_ttl": role.token_ttl,
    }


def decode_role(name: str, data: Mapping[str, Any]) -> Role:
    """Read a role from Vault's answer; several accounts or namespaces become text with commas."""
    if not isinstance(data.get("bound_service_account_names"), list):
        raise VaultRefused(f"Vault's description of role {name!r} cannot be read")
    # Vault answers "not set" with nothing, null, 0 or an empty list, depending on its version.
    drift = {key for key, value in _FIXED_ROLE_SETTINGS.items() if (data.get(key) or None) != (value or None)}
    drift |= {key for key in _FOREIGN_ROLE_SETTINGS if data.get(key)}
    ttl = int(data.get("token_ttl") or 0)
    if int(data.get("token_max_ttl") or 0) != ttl:
        drift.add("token_max_ttl")
    return Role(
        name=name,
        namespace=",".join(data.get("bound_service_account_namespaces") or ()),
        service_account=",".join(data.get("bound_service_account_names") or ()),
        audience=str(data.get("audience") or ""),
        policies=tuple(data.get("token_policies") or ()),
        token_ttl=ttl,
        drift=tuple(sorted(drift)),
    )


def decode_key(name: str, data: Mapping[str, Any]) -> TransitKey:
    """Read a transit key from Vault's answer; raise VaultRefused when it is not one that we could have made."""
    kind = "exportable" if data.get("exportable") else "derived" if data.get("derived") else data.get("type")
    if kind is not None and kind != "ed25519":
        raise VaultRefused(
            f"transit key {name!r} is not usable, because it is {kind}: rename or delete it, "
            "so that an ed25519 key that cannot be exported takes its place"
        )
    try:
        versions = {int(number): _decode_version(version) for number, version in data["keys"].items()}
        key = TransitKey(name, int(data["latest_version"]), MappingProxyType(versions))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise VaultRefused(f"Vault's description of transit key {name!r} cannot be read: {error!r}") from error
    if key.latest_version not in key.versions:
        raise VaultRefused(f"Vault's description of transit key {name!r} lacks version {key.latest_version}")
    return key


def decode_signature(text: str, version: int) -> bytes:
    """The raw signature in `vault:v<version>:<base64>`; raise VaultRefused when it is none of that version."""
    prefix = f"vault:v{version}:"
    try:
        if text.startswith(prefix):
            return base64.b64decode(text.removeprefix(prefix), validate=True)
    except binascii.Error:
        pass
    raise VaultRefused(f"Vault's signature is not one of key version {version}")


def _decode_version(data: Mapping[str, Any]) -> KeyVersion:
    public_key = base64.b64decode(data["public_key"], validate=True)
    if len(public_key) != PUBLIC_KEY_BYTES:
        raise ValueError(f"public key of {len(public_key)} bytes")
    return KeyVersion(public_key, datetime.fromisoformat(data["creation_time"]).astimezone(UTC))
