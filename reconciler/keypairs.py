"""Reads certificates and their private keys from the data of Secrets, and what certificates say. Decides nothing."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from edgefarm import pki


def made_at(pair: pki.KeyPair) -> datetime:
    """When the certificate was made (UTC); it is valid a little longer than since then."""
    return x509.load_pem_x509_certificate(pair.certificate).not_valid_before_utc + pki.BACKDATE


def renew_at(pair: pki.KeyPair) -> datetime:
    """When two thirds of the lifetime are over."""
    made = made_at(pair)
    return made + (pair.not_after - made) * 2 / 3


def usable(certificate: bytes, now: datetime) -> bool:
    """Whether the certificate (PEM) is valid at this time."""
    loaded = x509.load_pem_x509_certificate(certificate)
    return loaded.not_valid_before_utc <= now < loaded.not_valid_after_utc


def signed_by(certificate: bytes, authority: bytes) -> bool:
    """Whether the certificate comes from this authority (both PEM)."""
    try:
        x509.load_pem_x509_certificate(certificate).verify_directly_issued_by(x509.load_pem_x509_certificate(authority))
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True


def hosts(certificate: bytes) -> frozenset[str]:
    """DNS names and addresses that the certificate is for."""
    try:
        extension = x509.load_pem_x509_certificate(certificate).extensions.get_extension_for_class(
            x509.SubjectAlternativeName
        )
    except x509.ExtensionNotFound:
        return frozenset()
    return frozenset(str(name.value) for name in extension.value)


def read_pair(data: Mapping[str, bytes], name: str) -> pki.KeyPair | None:
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


def read_certificates(pem: bytes) -> tuple[bytes, ...]:
    """The certificates in a bundle one by one; none when it cannot be read."""
    try:
        loaded = x509.load_pem_x509_certificates(pem)
    except ValueError:
        return ()
    return tuple(certificate.public_bytes(serialization.Encoding.PEM) for certificate in loaded)


def pair_data(name: str, pair: pki.KeyPair | None) -> dict[str, bytes]:
    """Members of a Secret for the pair; the inverse of `read_pair`."""
    return {} if pair is None else {f"{name}.crt": pair.certificate, f"{name}.key": pair.private_key}


def encode(members: Mapping[str, bytes]) -> dict[str, str]:
    """`data` of a Secret."""
    return {name: base64.b64encode(value).decode() for name, value in members.items()}


def decode(data: Mapping[str, str] | None) -> dict[str, bytes]:
    """Members of a Secret from its `data`, without those that are no base64."""
    decoded: dict[str, bytes] = {}
    for name, value in (data or {}).items():
        try:
            decoded[name] = base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            continue
    return decoded
