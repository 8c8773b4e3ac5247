"""Decides what the webhook's authority and certificate should be: keep, issue or rotate, with overlap. No I/O.

A certificate of the webhook is verified by the API server against `caBundle` of the webhook configuration. Replicas
and API servers see changes at different times, so an authority is exchanged in three steps, and each waits for the
one before it to have spread:

1. `next` is made: it is in the bundle, and signs nothing yet.
2. After `spread` it becomes `current` and signs a new server certificate; the old authority becomes `previous`.
3. After `overlap`, when no replica can still serve the old certificate, `previous` leaves the bundle.

All state is in two Secrets; when a step happened is read from the certificates' own dates. Private keys of
authorities are in `network-webhook-ca`, which only the reconciler reads; the webhook mounts `network-webhook-tls`.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from edgefarm import pki

#: Name of the authorities' subject.
AUTHORITY_NAME: Final = "edgefarm-network webhook"


@dataclass(frozen=True)
class CertificateSettings:
    """Lifetimes and waiting times. A certificate is exchanged when a third of its lifetime is left."""

    authority_lifetime: timedelta = timedelta(days=730)
    server_lifetime: timedelta = timedelta(days=90)
    #: How long until every API server surely uses a changed `caBundle`.
    spread: timedelta = timedelta(minutes=10)
    #: How long until every replica surely serves a changed certificate.
    overlap: timedelta = timedelta(hours=24)

    def __post_init__(self) -> None:
        # The date of the newest server certificate is what ends an overlap: it must not be renewed before.
        if self.overlap >= self.server_lifetime * 2 / 3:
            raise ValueError("overlap must be shorter than two thirds of server_lifetime")
        if self.spread + self.overlap >= self.authority_lifetime / 3:
            raise ValueError("spread and overlap must be shorter than a third of authority_lifetime")


@dataclass(frozen=True)
class Bundle:
    """What the two Secrets hold. `repr` shows no private key."""

    current: pki.KeyPair | None = None
    next: pki.KeyPair | None = None
    #: Certificates of authorities that sign nothing any more but are still trusted.
    previous: tuple[bytes, ...] = ()
    server: pki.KeyPair | None = None

    @property
    def ca_bundle(self) -> bytes:
        """PEM for `caBundle`: every authority that a replica's certificate may come from."""
        pairs = [pair.certificate for pair in (self.current, self.next) if pair is not None]
        return b"".join([*pairs, *self.previous])


@dataclass(frozen=True)
class Plan:
    """What should be. Apply it in this order: `ca_secret`, `ca_bundle`, `tls_secret`.

    So the API server trusts an authority before any replica shows its signature. `changes` has one sentence per
    change, and is empty when everything may stay; the data are complete either way, so that drift shows as a
    difference.
    """

    bundle: Bundle
    changes: tuple[str, ...]
    #: When to plan again, if nothing else happens before.
    look_again_at: datetime

    @property
    def ca_bundle(self) -> bytes:
        """PEM for `caBundle` of the webhook configuration (not yet base64)."""
        return self.bundle.ca_bundle

    @property
    def ca_secret(self) -> dict[str, str]:
        """`data` (base64) of the Secret WEBHOOK_CA_SECRET, type Opaque."""
        members = _pair_data("ca", self.bundle.current) | _pair_data("next", self.bundle.next)
        if self.bundle.previous:
            members["previous.crt"] = b"".join(self.bundle.previous)
        return _encode(members)

    @property
    def tls_secret(self) -> dict[str, str]:
        """`data` (base64) of the Secret WEBHOOK_SECRET, type kubernetes.io/tls."""
        return _encode(_pair_data("tls", self.bundle.server) | {"ca.crt": self.bundle.ca_bundle})


def read_bundle(ca_secret: Mapping[str, str] | None, tls_secret: Mapping[str, str] | None) -> Bundle:
    """Read the `data` of both Secrets; None or {} for a Secret that does not exist.

    What is missing, damaged or does not match is left out, so that `plan` replaces it. When the authority is lost,
    the bundle beside the server certificate keeps the replicas' present certificate trusted.
    """
    authority, tls = _decode(ca_secret), _decode(tls_secret)
    current = _pair(authority, "ca")
    previous = _certificates(authority.get("previous.crt", b""))
    if current is None:
        previous = _certificates(tls.get("ca.crt", b""))
    return Bundle(current, _pair(authority, "next"), previous, _pair(tls, "tls"))


def plan(
    current: Bundle | None, *, now: datetime, names: Sequence[str], settings: CertificateSettings | None = None
) -> Plan:
    """Plan for `now` (UTC). `names` are the DNS names and addresses of the webhook, first the Service's."""
    settings = settings or CertificateSettings()
    bundle, changes = current or Bundle(), []
    for step in (_drop_unusable, _have_authority, _promote, _prepare_next, _have_server, _drop_previous):
        bundle, change = step(bundle, _Context(now, tuple(names), settings))
        if change:
            changes.append(change)
    return Plan(bundle, tuple(changes), _look_again_at(bundle, now, settings))


@dataclass(frozen=True)
class _Context:
    now: datetime
    names: tuple[str, ...]
    settings: CertificateSettings


_Step = tuple[Bundle, str | None]


def _drop_unusable(bundle: Bundle, context: _Context) -> _Step:
    """Forget authorities that nobody accepts at this time: they have ended, or the clock was wrong when they began."""
    current = bundle.current if bundle.current and _usable(bundle.current.certificate, context.now) else None
    following = bundle.next if bundle.next and _usable(bundle.next.certificate, context.now) else None
    previous = tuple(pem for pem in bundle.previous if _usable(pem, context.now))
    kept = replace(bundle, current=current, next=following, previous=previous)
    return kept, None if kept == bundle else "removed authorities that are not valid now"


def _have_authority(bundle: Bundle, context: _Context) -> _Step:
    if bundle.current is not None:
        return bundle, None
    if bundle.next is not None:
        return replace(bundle, current=bundle.next, next=None), "put the next authority into use early"
    return replace(bundle, current=_make_authority(context)), "made an authority"


def _prepare_next(bundle: Bundle, context: _Context) -> _Step:
    assert bundle.current is not None
    if bundle.next is not None or context.now < _renew_at(bundle.current):
        return bundle, None
    return replace(bundle, next=_make_authority(context)), "made the next authority, trusted but not in use yet"


def _promote(bundle: Bundle, context: _Context) -> _Step:
    if bundle.next is None or bundle.current is None:
        return bundle, None
    if context.now < _made_at(bundle.next) + context.settings.spread:
        return bundle, None
    previous = (*bundle.previous, bundle.current.certificate)
    return replace(bundle, current=bundle.next, next=None, previous=previous), "put the next authority into use"


def _have_server(bundle: Bundle, context: _Context) -> _Step:
    assert bundle.current is not None
    change = _why_not(bundle.server, bundle.current, context)
    if change is None:
        return bundle, None
    # It never outlives its authority: the API server would refuse it with a less clear message.
    lifetime = min(context.settings.server_lifetime, bundle.current.not_after - context.now)
    server = pki.issue(bundle.current, context.names, now=context.now, lifetime=lifetime)
    return replace(bundle, server=server), f"issued a server certificate: {change}"


def _drop_previous(bundle: Bundle, context: _Context) -> _Step:
    assert bundle.server is not None
    if not bundle.previous or context.now < _made_at(bundle.server) + context.settings.overlap:
        return bundle, None
    return replace(bundle, previous=()), "removed the previous authority from the bundle"


def _why_not(server: pki.KeyPair | None, authority: pki.KeyPair, context: _Context) -> str | None:
    """Why the server certificate cannot stay; None when it can."""
    if server is None:
        return "there was none"
    if not _usable(server.certificate, context.now):
        return "it was not valid now"
    if not _signed_by(server.certificate, authority.certificate):
        return "it came from another authority"
    if _hosts(server.certificate) != frozenset(context.names):
        return "its names changed"
    if context.now >= _renew_at(server):
        return "it ends soon"
    return None


def _look_again_at(bundle: Bundle, now: datetime, settings: CertificateSettings) -> datetime:
    assert bundle.current is not None
    assert bundle.server is not None
    times = [_renew_at(bundle.server)]
    if bundle.next is None:
        times.append(_renew_at(bundle.current))
    else:
        times.append(_made_at(bundle.next) + settings.spread)
    if bundle.previous:
        times.append(_made_at(bundle.server) + settings.overlap)
    return max(min(times), now)


def _make_authority(context: _Context) -> pki.KeyPair:
    return pki.make_authority(AUTHORITY_NAME, now=context.now, lifetime=context.settings.authority_lifetime)


def _made_at(pair: pki.KeyPair) -> datetime:
    return x509.load_pem_x509_certificate(pair.certificate).not_valid_before_utc + pki.BACKDATE


def _renew_at(pair: pki.KeyPair) -> datetime:
    made = _made_at(pair)
    return made + (pair.not_after - made) * 2 / 3


def _usable(certificate: bytes, now: datetime) -> bool:
    loaded = x509.load_pem_x509_certificate(certificate)
    return loaded.not_valid_before_utc <= now < loaded.not_valid_after_utc


def _signed_by(certificate: bytes, authority: bytes) -> bool:
    try:
        x509.load_pem_x509_certificate(certificate).verify_directly_issued_by(x509.load_pem_x509_certificate(authority))
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True


def _hosts(certificate: bytes) -> frozenset[str]:
    try:
        extension = x509.load_pem_x509_certificate(certificate).extensions.get_extension_for_class(
            x509.SubjectAlternativeName
        )
    except x509.ExtensionNotFound:
        return frozenset()
    return frozenset(str(name.value) for name in extension.value)


def _pair(data: Mapping[str, bytes], name: str) -> pki.KeyPair | None:
    """The certificate and key `<name>.crt|key` when both can be read, are of our kind and belong together."""
    certificate, key = data.get(f"{name}.crt", b""), data.get(f"{name}.key", b"")
    try:
        public = x509.load_pem_x509_certificate(certificate).public_key()
        private = serialization.load_pem_private_key(key, password=None)
    except (ValueError, TypeError):
        return None
    if not isinstance(private, ec.EllipticCurvePrivateKey) or private.public_key() != public:
        return None
    return pki.KeyPair(certificate, key)


def _certificates(pem: bytes) -> tuple[bytes, ...]:
    try:
        loaded = x509.load_pem_x509_certificates(pem)
    except ValueError:
        return ()
    return tuple(certificate.public_bytes(serialization.Encoding.PEM) for certificate in loaded)


def _pair_data(name: str, pair: pki.KeyPair | None) -> dict[str, bytes]:
    return {} if pair is None else {f"{name}.crt": pair.certificate, f"{name}.key": pair.private_key}


def _encode(members: Mapping[str, bytes]) -> dict[str, str]:
    return {name: base64.b64encode(value).decode() for name, value in members.items()}


def _decode(data: Mapping[str, str] | None) -> dict[str, bytes]:
    decoded: dict[str, bytes] = {}
    for name, value in (data or {}).items():
        try:
            decoded[name] = base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            continue
    return decoded
