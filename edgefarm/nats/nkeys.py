"""Owns the text form of NATS' ed25519 keys (nkeys): base32 of a prefix, the raw key and a CRC-16.

cryptography is imported inside the functions that need it, because a process that only reads keys (and the sidecar,
which runs once per pod) should not pay for it.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from edgefarm.errors import InvalidCredential

_ALPHABET: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
_RAW_LENGTH: Final = 32
_PUBLIC_LENGTH: Final = 56
_SEED_LENGTH: Final = 58


class Prefix(Enum):
    """What a key is for; the value is the first letter of its public form."""

    OPERATOR = "O"
    ACCOUNT = "A"
    USER = "U"
    SERVER = "N"
    CLUSTER = "C"
    CURVE = "X"

    @property
    def byte(self) -> int:
        """The five bits of the letter, shifted so that base32 writes the letter first."""
        return _ALPHABET.index(self.value) << 3


_SEED_BYTE: Final = _ALPHABET.index("S") << 3
_BY_BYTE: Final = {prefix.byte: prefix for prefix in Prefix}


@dataclass(frozen=True)
class KeyPair:
    """A public key (`U…`) with its seed (`SU…`), both as text. `repr` hides the seed."""

    public: str
    seed: str = field(repr=False)


def encode_public(prefix: Prefix, raw: bytes) -> str:
    """The text of a raw 32-byte public key, e.g. of one that Vault's transit made."""
    return _encode(bytes((prefix.byte,)) + _checked(raw, "public key"))


def decode_public(text: str) -> tuple[Prefix, bytes]:
    """What a public key is for and its 32 raw bytes; InvalidCredential when it is not a public nkey."""
    data = _decode(text, _PUBLIC_LENGTH, "public key")
    prefix = _BY_BYTE.get(data[0])
    if prefix is None:
        raise InvalidCredential("The public key does not begin with one of the letters O, A, U, N, C, X.")
    return prefix, data[1:]


def encode_seed(prefix: Prefix, raw: bytes) -> str:
    """The text of a 32-byte private seed."""
    # Eight bits of "this is a seed" and eight of the prefix lie across the first two bytes, five bits each.
    head = bytes((_SEED_BYTE | prefix.byte >> 5, (prefix.byte & 0x1F) << 3))
    return _encode(head + _checked(raw, "seed"))


def decode_seed(text: str) -> tuple[Prefix, bytes]:
    """What a seed is for and its 32 secret bytes; InvalidCredential (without the seed) when it is not a seed."""
    data = _decode(text, _SEED_LENGTH, "seed")
    prefix = _BY_BYTE.get((data[0] & 0x07) << 5 | data[1] >> 3)
    if data[0] & 0xF8 != _SEED_BYTE or data[1] & 0x07 or prefix is None:
        raise InvalidCredential("The seed does not begin with S and one of the letters O, A, U, N, C, X.")
    return prefix, data[2:]


def generate(prefix: Prefix) -> KeyPair:
    """A new key pair from the system's randomness."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    private = Ed25519PrivateKey.generate()
    public = private.public_key().public_bytes_raw()
    return KeyPair(encode_public(prefix, public), encode_seed(prefix, private.private_bytes_raw()))


def generate_user() -> KeyPair:
    """A new user key pair."""
    return generate(Prefix.USER)


def sign(seed: str, data: bytes) -> bytes:
    """The 64-byte ed25519 signature of `data`."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.from_private_bytes(decode_seed(seed)[1]).sign(data)


def verify(public: str, data: bytes, signature: bytes) -> bool:
    """Whether `signature` over `data` was made by the owner of `public`."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(decode_public(public)[1]).verify(signature, data)
    except InvalidSignature:
        return False
    return True


def _checked(raw: bytes, what: str) -> bytes:
    if len(raw) != _RAW_LENGTH:
        raise InvalidCredential(f"A raw {what} is {_RAW_LENGTH} bytes long, not {len(raw)}.")
    return raw


def _checksum(data: bytes) -> bytes:
    # crc_hqx is the CRC-16 that nkeys uses (XMODEM: polynomial 0x1021, start 0), written little-endian.
    return binascii.crc_hqx(data, 0).to_bytes(2, "little")


def _encode(data: bytes) -> str:
    return base64.b32encode(data + _checksum(data)).decode().rstrip("=")


def _decode(text: str, length: int, what: str) -> bytes:
    if len(text) != length:
        raise InvalidCredential(f"The {what} is {len(text)} characters long; a {what} has {length}.")
    try:
        data = base64.b32decode(text + "=" * (-length % 8))
    except (binascii.Error, ValueError):
        raise InvalidCredential(f"The {what} contains characters other than A-Z and 2-7.") from None
    if _checksum(data[:-2]) != data[-2:]:
        raise InvalidCredential(f"The checksum of the {what} is wrong: it was cut or mistyped.")
    return data[:-2]
