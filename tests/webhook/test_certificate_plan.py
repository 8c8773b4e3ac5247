"""The plan for the webhook's authority and certificate, with a clock that the tests move."""

from __future__ import annotations

import base64
import contextlib
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from edgefarm import names, pki
from reconciler.certs import Bundle, CertificateSettings, Plan, plan, read_bundle

START = datetime(2030, 1, 1, 12, tzinfo=UTC)
HOSTS = (*names.webhook_hosts("network"), "10.0.0.7")
SETTINGS = CertificateSettings()


def plan_at(now: datetime, former: Plan | None = None, hosts: tuple[str, ...] = HOSTS) -> Plan:
    """Plan from what the former plan left in the Secrets."""
    bundle = None if former is None else read_bundle(former.ca_secret, former.tls_secret)
    return plan(bundle, now=now, names=hosts)


def verifies(server: pki.KeyPair, bundle: bytes) -> bool:
    """Whether one of the authorities in the bundle signed the certificate."""
    certificate = x509.load_pem_x509_certificate(server.certificate)
    for authority in x509.load_pem_x509_certificates(bundle):
        try:
            certificate.verify_directly_issued_by(authority)
        except InvalidSignature:
            continue
        return True
    return False


def server_of(made: Plan) -> pki.KeyPair:
    assert made.bundle.server is not None
    return made.bundle.server


def authority_of(made: Plan) -> pki.KeyPair:
    assert made.bundle.current is not None
    return made.bundle.current


def test_from_nothing_an_authority_and_a_certificate_are_made() -> None:
    made = plan_at(START)
    assert made.changes == ("made an authority", "issued a server certificate: there was none")
    certificate = x509.load_pem_x509_certificate(server_of(made).certificate)
    sans = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(name.value) for name in sans] == list(HOSTS)
    assert HOSTS[0] == "network-webhook.network.svc"
    assert made.ca_bundle == authority_of(made).certificate
    assert set(made.ca_secret) == {"ca.crt", "ca.key"}
    assert set(made.tls_secret) == {"tls.crt", "tls.key", "ca.crt"}
    assert base64.b64decode(made.tls_secret["ca.crt"]) == made.ca_bundle


def test_what_was_made_is_kept_byte_for_byte_until_it_is_due() -> None:
    made = plan_at(START)
    for later in (timedelta(0), timedelta(microseconds=1), timedelta(days=1), timedelta(days=59)):
        kept = plan_at(START + later, made)
        assert kept.changes == ()
        assert (kept.ca_secret, kept.tls_secret, kept.ca_bundle) == (made.ca_secret, made.tls_secret, made.ca_bundle)
        assert kept.look_again_at == START + timedelta(days=60)


def test_the_private_key_of_an_authority_is_never_where_the_webhook_can_read_it() -> None:
    made = plan_at(START)
    tls = b"".join(base64.b64decode(value) for value in made.tls_secret.values())
    assert authority_of(made).private_key not in tls
    assert tls.count(b"PRIVATE KEY-----") == 2  # one key: its first and its last line
    assert b"PRIVATE" not in repr(made).encode()


@pytest.mark.parametrize(
    ("days", "hosts", "sentence"),
    [
        (60, HOSTS, "it ends soon"),
        (1, (*HOSTS, "webhook.example"), "its names changed"),
        (1, HOSTS[:1], "its names changed"),
        (91, HOSTS, "it was not valid now"),
        (-1, HOSTS, "it was not valid now"),
    ],
)
def test_a_certificate_is_issued_anew(days: int, hosts: tuple[str, ...], sentence: str) -> None:
    made = plan_at(START)
    renewed = plan_at(START + timedelta(days=days), made, hosts)
    assert f"issued a server certificate: {sentence}" in renewed.changes
    assert plan_at(START + timedelta(days=days), renewed, hosts).changes == ()
    if days > 0:
        assert renewed.ca_bundle == made.ca_bundle


def test_the_order_of_names_does_not_matter() -> None:
    assert plan_at(START, plan_at(START), tuple(reversed(HOSTS))).changes == ()


def test_an_authority_is_exchanged_in_three_steps_and_every_certificate_in_use_stays_trusted() -> None:
    due = START + SETTINGS.authority_lifetime * 2 / 3
    first = plan_at(START)
    old = plan_at(due - timedelta(seconds=1), first)
    assert authority_of(old) == authority_of(first)

    prepared = plan_at(due, old)
    assert prepared.changes == ("made the next authority, trusted but not in use yet",)
    assert server_of(prepared) == server_of(old)
    assert len(x509.load_pem_x509_certificates(prepared.ca_bundle)) == 2
    assert prepared.look_again_at == due + SETTINGS.spread
    assert plan_at(due + SETTINGS.spread - timedelta(seconds=1), prepared).changes == ()

    switched = plan_at(due + SETTINGS.spread, prepared)
    assert switched.changes == (
        "put the next authority into use",
        "issued a server certificate: it came from another authority",
    )
    # Whoever still has the former bundle or the former certificate is served all the same.
    assert verifies(server_of(switched), prepared.ca_bundle)
    assert verifies(server_of(old), switched.ca_bundle)
    assert switched.look_again_at == due + SETTINGS.spread + SETTINGS.overlap
    assert plan_at(switched.look_again_at - timedelta(seconds=1), switched).changes == ()

    done = plan_at(switched.look_again_at, switched)
    assert done.changes == ("removed the previous authority from the bundle",)
    assert done.ca_bundle == authority_of(done).certificate != authority_of(old).certificate
    assert server_of(done) == server_of(switched)
    assert "previous.crt" not in done.ca_secret


def test_over_ten_years_each_certificate_is_trusted_by_the_bundle_before_and_after_it() -> None:
    state, now, rotations = plan_at(START), START, 0
    while now < START + timedelta(days=3650):
        assert now < state.look_again_at
        now = state.look_again_at
        following = plan_at(now, state)
        assert following.changes, "to look again means that something is due"
        assert verifies(server_of(following), state.ca_bundle)
        assert verifies(server_of(state), following.ca_bundle)
        assert verifies(server_of(following), following.ca_bundle)
        assert server_of(following).not_after <= authority_of(following).not_after
        rotations += "put the next authority into use" in following.changes
        state = following
    assert rotations == 7


def test_a_lost_certificate_is_replaced_by_the_same_authority() -> None:
    made = plan_at(START)
    for tls in (None, {}, {"tls.crt": made.tls_secret["tls.crt"]}, made.tls_secret | {"tls.key": "%%%"}):
        repaired = plan(read_bundle(made.ca_secret, tls), now=START, names=HOSTS)
        assert repaired.changes == ("issued a server certificate: there was none",)
        assert repaired.ca_bundle == made.ca_bundle


def test_a_lost_authority_is_replaced_and_the_served_certificate_stays_trusted_meanwhile() -> None:
    made, now = plan_at(START), START + timedelta(days=3)
    for ca in (None, {}, made.ca_secret | {"ca.key": made.tls_secret["tls.key"]}, {"ca.crt": "bm8gUEVN"}):
        repaired = plan(read_bundle(ca, made.tls_secret), now=now, names=HOSTS)
        assert repaired.changes == (
            "made an authority",
            "issued a server certificate: it came from another authority",
        )
        assert verifies(server_of(made), repaired.ca_bundle)
        assert verifies(server_of(repaired), repaired.ca_bundle)
        done = plan_at(now + SETTINGS.overlap, repaired)
        assert not verifies(server_of(made), done.ca_bundle)


def test_an_authority_that_ended_while_nobody_looked_is_replaced_at_once() -> None:
    due = START + SETTINGS.authority_lifetime * 2 / 3
    prepared = plan_at(due, plan_at(START))
    late = START + SETTINGS.authority_lifetime + timedelta(days=1)
    replaced = plan_at(late, prepared)
    assert replaced.bundle.current == prepared.bundle.next
    assert verifies(server_of(replaced), replaced.ca_bundle)
    much_later = plan_at(late + timedelta(days=4000), prepared)
    assert "made an authority" in much_later.changes
    assert much_later.ca_bundle == authority_of(much_later).certificate


def test_an_authority_of_another_kind_is_replaced() -> None:
    made = plan_at(START)
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    damaged = made.ca_secret | {"ca.key": base64.b64encode(pem).decode()}
    assert "made an authority" in plan(read_bundle(damaged, made.tls_secret), now=START, names=HOSTS).changes


@pytest.mark.parametrize("garbage", ["", "!!!", "AAAA", base64.b64encode(b"-----BEGIN CERTIFICATE-----").decode()])
def test_garbage_in_the_secrets_counts_as_absent(garbage: str) -> None:
    members = ("ca.crt", "ca.key", "next.crt", "next.key", "previous.crt", "tls.crt", "tls.key")
    assert read_bundle(dict.fromkeys(members, garbage), dict.fromkeys(members, garbage)) == Bundle()


def test_times_that_cannot_work_together_are_refused() -> None:
    with pytest.raises(ValueError, match="overlap"):
        CertificateSettings(server_lifetime=timedelta(hours=1))
    with pytest.raises(ValueError, match="authority_lifetime"):
        CertificateSettings(authority_lifetime=timedelta(days=2))


def test_a_tls_client_accepts_what_was_planned(tmp_path: Path) -> None:
    made = plan(None, now=datetime.now(UTC), names=HOSTS)
    (tmp_path / "tls.crt").write_bytes(server_of(made).certificate)
    (tmp_path / "tls.key").write_bytes(server_of(made).private_key)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(tmp_path / "tls.crt", tmp_path / "tls.key")
    client = ssl.create_default_context(cadata=made.ca_bundle.decode())
    for host in HOSTS:
        assert _handshake(server, client, host) == "TLSv1.3"


def _handshake(server: ssl.SSLContext, client: ssl.SSLContext, host: str) -> str | None:
    """Shake hands in memory, without sockets; the version that was agreed on. Raises when the client refuses."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(to_client, to_server, server_hostname=host),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    for end in (ends * 3)[:5]:
        with contextlib.suppress(ssl.SSLWantReadError):
            end.do_handshake()
    return ends[0].version()
