"""Decides what authorities and their server certificates should be: keep, issue or rotate, with overlap. No I/O.

A certificate of the webhook is verified by the API server against `caBundle` of the webhook configuration. Replicas
and API servers see changes at different times, so an authority is exchanged in three steps, and each waits for the
one before it to have spread:

1. `next` is made: it is in the bundle, and signs nothing yet.
2. After `spread` it becomes `current` and signs a new server certificate; the old authority becomes `previous`.
3. After `overlap`, when no replica can still serve the old certificate, `previous` leaves the bundle.

All state is in two Secrets; when a step happened is read from the certificates' own dates. Private keys of
authorities are in `network-webhook-ca`, which only the reconciler reads; the webhook mounts `network-webhook-tls`.
The authority of the leafs (`network-leaf-ca`) goes the same way, but signs for one Service per network, and that of
OpenBao and NATS (`network-servers-ca`) for these two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from edgefarm import pki
from reconciler.keypairs import (
    decode,
    encode,
    hosts,
    made_at,
    pair_data,
    read_certificates,
    read_pair,
    renew_at,
    signed_by,
    usable,
)


@dataclass(frozen=True)
class CertificateSettings:
    """Lifetimes and waiting times. A certificate is exchanged when a third of its lifetime is left."""

    authority_lifetime: timedelta = timedelta(days=730)
    server_lifetime: timedelta = timedelta(days=90)
    #: How long until every API server surely uses a changed `caBundle`.
    spread: timedelta = timedelta(minutes=10)
    #: How long until every replica surely serves a changed certificate.
    overlap: timedelta = timedelta(hours=24)
    #: Name of the authorities' subject.
    authority_name: str = "edgefarm-network webhook"
    #: Whether server certificates are client certificates as well, for servers that speak to each other.
    client: bool = False

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
        members = pair_data("ca", self.bundle.current) | pair_data("next", self.bundle.next)
        if self.bundle.previous:
            members["previous.crt"] = b"".join(self.bundle.previous)
        return encode(members)

    @property
    def tls_secret(self) -> dict[str, str]:
        """`data` (base64) of the Secret WEBHOOK_SECRET, type kubernetes.io/tls."""
        return encode(pair_data("tls", self.bundle.server) | {"ca.crt": self.bundle.ca_bundle})


def read_bundle(ca_secret: Mapping[str, str] | None, tls_secret: Mapping[str, str] | None) -> Bundle:
    """Read the `data` of both Secrets; None or {} for a Secret that does not exist.

    What is missing, damaged or does not match is left out, so that `plan` replaces it. When the authority is lost,
    the bundle beside the server certificate keeps the replicas' present certificate trusted.
    """
    authority, tls = decode(ca_secret), decode(tls_secret)
    current = read_pair(authority, "ca")
    previous = read_certificates(authority.get("previous.crt", b""))
    if current is None:
        previous = read_certificates(tls.get("ca.crt", b""))
    return Bundle(current, read_pair(authority, "next"), previous, read_pair(tls, "tls"))


def plan(
    current: Bundle | None, *, now: datetime, names: Sequence[str], settings: CertificateSettings | None = None
) -> Plan:
    """Plan for `now` (UTC). `names` are the DNS names and addresses of the webhook, first the Service's."""
    context = _Context(now, tuple(names), settings or CertificateSettings())
    return _take((*_AUTHORITY_STEPS, _have_server, _drop_previous), current or Bundle(), context)


def plan_authority(current: Bundle, *, now: datetime, settings: CertificateSettings) -> Plan:
    """Plan an authority that signs for many servers, which may be away for any time.

    Nobody knows when the last of them has a new certificate, so previous authorities stay trusted until they end.
    """
    return _take(_AUTHORITY_STEPS, replace(current, server=None), _Context(now, (), settings))


def plan_server(
    server: pki.KeyPair | None, authority: Bundle, *, now: datetime, names: Sequence[str], settings: CertificateSettings
) -> Plan:
    """Plan the certificate of one of those servers; `tls_secret` is what it needs."""
    return _take((_have_server,), replace(authority, server=server), _Context(now, tuple(names), settings))


@dataclass(frozen=True)
class _Context:
    now: datetime
    names: tuple[str, ...]
    settings: CertificateSettings


_Step = tuple[Bundle, str | None]


def _take(steps: Iterable[Callable[[Bundle, _Context], _Step]], bundle: Bundle, context: _Context) -> Plan:
    changes = []
    for step in steps:
        bundle, change = step(bundle, context)
        if change:
            changes.append(change)
    return Plan(bundle, tuple(changes), _look_again_at(bundle, context))


def _drop_unusable(bundle: Bundle, context: _Context) -> _Step:
    """Forget authorities that nobody accepts at this time: they have ended, or the clock was wrong when they began."""
    current = bundle.current if bundle.current and usable(bundle.current.certificate, context.now) else None
    following = bundle.next if bundle.next and usable(bundle.next.certificate, context.now) else None
    previous = tuple(pem for pem in bundle.previous if usable(pem, context.now))
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
    if bundle.next is not None or context.now < renew_at(bundle.current):
        return bundle, None
    return replace(bundle, next=_make_authority(context)), "made the next authority, trusted but not in use yet"


def _promote(bundle: Bundle, context: _Context) -> _Step:
    if bundle.next is None or bundle.current is None:
        return bundle, None
    if context.now < made_at(bundle.next) + context.settings.spread:
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
    server = pki.issue(
        bundle.current, context.names, now=context.now, lifetime=lifetime, client=context.settings.client
    )
    return replace(bundle, server=server), f"issued a server certificate: {change}"


def _drop_previous(bundle: Bundle, context: _Context) -> _Step:
    assert bundle.server is not None
    if not bundle.previous or context.now < made_at(bundle.server) + context.settings.overlap:
        return bundle, None
    return replace(bundle, previous=()), "removed the previous authority from the bundle"


def _why_not(server: pki.KeyPair | None, authority: pki.KeyPair, context: _Context) -> str | None:
    """Why the server certificate cannot stay; None when it can."""
    if server is None:
        return "there was none"
    if not usable(server.certificate, context.now):
        return "it was not valid now"
    if not signed_by(server.certificate, authority.certificate):
        return "it came from another authority"
    if hosts(server.certificate) != frozenset(context.names):
        return "its names changed"
    if context.now >= renew_at(server):
        return "it ends soon"
    return None


def _look_again_at(bundle: Bundle, context: _Context) -> datetime:
    assert bundle.current is not None
    times = [renew_at(bundle.current) if bundle.next is None else made_at(bundle.next) + context.settings.spread]
    if bundle.server is not None:
        times.append(renew_at(bundle.server))
        overlap_ends = made_at(bundle.server) + context.settings.overlap
        if bundle.previous and context.now < overlap_ends:
            times.append(overlap_ends)
    return max(min(times), context.now)


def _make_authority(context: _Context) -> pki.KeyPair:
    return pki.make_authority(
        context.settings.authority_name, now=context.now, lifetime=context.settings.authority_lifetime
    )


_AUTHORITY_STEPS: Final = (_drop_unusable, _have_authority, _promote, _prepare_next)
