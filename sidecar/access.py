"""The access document: what the reconciler tells a service account about its network. Pure; the layout is in
docs/architecture.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from edgefarm.errors import InvalidResource

LAYOUT = 1


@dataclass(frozen=True)
class Signer:
    """The scoped key that signs a user: account, public key at the version to be used, its name in transit."""

    account: str
    signing_key: str
    transit_key: str
    key_version: int

    @classmethod
    def read(cls, document: Mapping[str, Any], prefix: str = "") -> Signer:
        """Read its four members; raise InvalidResource with the one that is wrong."""
        return cls(
            account=text_member(document, "account", prefix),
            signing_key=text_member(document, "signingKey", prefix),
            transit_key=text_member(document, "transitKey", prefix),
            key_version=_positive(document, "keyVersion", prefix),
        )

    def members(self) -> dict[str, Any]:
        """The four members again."""
        return {
            "account": self.account,
            "signingKey": self.signing_key,
            "transitKey": self.transit_key,
            "keyVersion": self.key_version,
        }


@dataclass(frozen=True)
class AccessDocument(Signer):
    """Where to connect and which key signs our user; unknown members of the document are ignored."""

    network: str
    policy: str
    hub: tuple[str, ...]
    leaf: tuple[str, ...]
    renew_every_seconds: int
    lifetime_seconds: int
    #: PEM: the authority of the leafs' certificates, beside the pod's CA bundle.
    leaf_ca: str | None = None

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> AccessDocument:
        """Read the document; raise InvalidResource with the member that is wrong."""
        if document.get("version") != LAYOUT:
            raise InvalidResource("version", f"is {document.get('version')!r}; this sidecar reads layout {LAYOUT}")
        signer = Signer.read(document)
        return cls(
            account=signer.account,
            signing_key=signer.signing_key,
            transit_key=signer.transit_key,
            key_version=signer.key_version,
            network=text_member(document, "network"),
            policy=text_member(document, "policy"),
            hub=_urls(document, "hub", required=True),
            leaf=_urls(document, "leaf", required=False),
            renew_every_seconds=_positive(document, "renewEverySeconds"),
            lifetime_seconds=_positive(document, "lifetimeSeconds"),
            leaf_ca=_pem(document, "leafCa"),
        )

    def document(self) -> dict[str, Any]:
        """The document again, as it is persisted beside the credentials."""
        return {
            "version": LAYOUT,
            "network": self.network,
            "policy": self.policy,
            **self.members(),
            "hub": list(self.hub),
            "leaf": list(self.leaf),
            "renewEverySeconds": self.renew_every_seconds,
            "lifetimeSeconds": self.lifetime_seconds,
            **({} if self.leaf_ca is None else {"leafCa": self.leaf_ca}),
        }


def text_member(document: Mapping[str, Any], member: str, prefix: str = "") -> str:
    """A string that says something; `prefix` is for the message only."""
    value = document.get(member)
    if not isinstance(value, str) or not value:
        raise InvalidResource(f"{prefix}{member}", "must be a non-empty string")
    return value


def _positive(document: Mapping[str, Any], member: str, prefix: str = "") -> int:
    value = document.get(member)
    if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
        raise InvalidResource(f"{prefix}{member}", "must be a whole number greater than 0")
    return value


def _pem(document: Mapping[str, Any], member: str) -> str | None:
    value = document.get(member)
    if value is not None and not (isinstance(value, str) and "-----BEGIN CERTIFICATE-----" in value):
        raise InvalidResource(member, "must hold a certificate as PEM text")
    return value


def _urls(document: Mapping[str, Any], member: str, *, required: bool) -> tuple[str, ...]:
    value = document.get(member, [])
    if not isinstance(value, list) or not all(isinstance(url, str) and url for url in value):
        raise InvalidResource(member, "must be a list of URLs")
    for url in value:
        try:
            _ = urlsplit(url if "://" in url else f"nats://{url}").port
        except ValueError:
            raise InvalidResource(member, f"{url!r} is not a URL: write for example tls://nats.example:4222") from None
    if required and not value:
        raise InvalidResource(member, "must name at least one URL")
    return tuple(value)
