"""One authority for the leafs of all networks: how it is exchanged while nodes are away."""

from __future__ import annotations

from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from edgefarm import pki
from reconciler.certs import Bundle, plan_authority, plan_server
from reconciler.desired.leaf_service import CERTIFICATES
from reconciler.keypairs import signed_by
from tests.reconciler.objects import NOW

HOSTS = ("leaf-foo.network.svc", "10.0.0.1")


class Years:
    """An authority and one leaf's certificate, looked at every few days, as the reconciler would."""

    def __init__(self) -> None:
        self.now = NOW
        self.authority = Bundle()
        self.server: pki.KeyPair | None = None
        self.changes: list[str] = []

    def look(self) -> datetime:
        authority = plan_authority(self.authority, now=self.now, settings=CERTIFICATES)
        server = plan_server(self.server, authority.bundle, now=self.now, names=HOSTS, settings=CERTIFICATES)
        self.authority, self.server = authority.bundle, server.bundle.server
        self.changes += [*authority.changes, *server.changes]
        return min(authority.look_again_at, server.look_again_at)

    def trusted(self) -> list[x509.Certificate]:
        return x509.load_pem_x509_certificates(self.authority.ca_bundle)


def test_every_certificate_that_may_be_out_there_stays_trusted_through_twelve_years() -> None:
    years, served = Years(), list[pki.KeyPair]()
    while years.now < NOW + timedelta(days=12 * 365):
        years.look()
        assert years.server is not None
        if not served or served[-1] != years.server:
            served.append(years.server)
        trusted = [each.public_bytes(Encoding.PEM) for each in years.trusted()]
        for certificate in served:
            if certificate.not_after > years.now:
                assert any(signed_by(certificate.certificate, authority) for authority in trusted)
        years.now += timedelta(days=15)
    assert years.changes.count("put the next authority into use") == 1
    assert len(served) > 12 * 365 // 244
    assert len(years.trusted()) == 1, "the first authority has ended"


def test_the_next_authority_is_known_a_month_before_it_signs() -> None:
    years = Years()
    known: dict[bytes, datetime] = {}
    signs: dict[bytes, datetime] = {}
    while len(signs) < 2:
        again = years.look()
        for pair in filter(None, (years.authority.current, years.authority.next)):
            known.setdefault(pair.certificate, years.now)
        assert years.authority.current is not None
        signs.setdefault(years.authority.current.certificate, years.now)
        years.now = max(again, years.now + timedelta(hours=1))
    waited = [signs[certificate] - known[certificate] for certificate in signs]
    assert waited == [timedelta(0), CERTIFICATES.spread]


def test_an_unchanged_world_changes_nothing_and_is_looked_at_when_something_is_due() -> None:
    years = Years()
    years.look()
    years.changes.clear()
    before = (years.authority, years.server)
    again = years.look()
    assert (years.changes, (years.authority, years.server)) == ([], before)
    assert again - years.now > timedelta(days=200)


def test_a_changed_address_needs_another_certificate() -> None:
    years = Years()
    years.look()
    plan = plan_server(
        years.server, years.authority, now=NOW, names=("leaf-foo.network.svc", "10.0.0.2"), settings=CERTIFICATES
    )
    assert plan.changes == ("issued a server certificate: its names changed",)
    assert set(plan.tls_secret) == {"ca.crt", "tls.crt", "tls.key"}
