"""Owns the text form of NATS JWTs: what is signed, how a signature is attached, and how a token is read and verified.

See NATS ADR-14 (JWT library free JWT generation): the header is fixed, and the signature covers `header.body`.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any, Final

from edgefarm.errors import InvalidCredential
from edgefarm.nats import nkeys

_HEADER: Final = {"typ": "JWT", "alg": "ed25519-nkey"}
#: Members that differ between two tokens that say the same.
_ENVELOPE: Final = frozenset({"jti", "iat", "iss"})


def signing_input(claims: Mapping[str, Any]) -> bytes:
    """The bytes that the issuer must sign; equal claims give equal bytes."""
    return ".".join(
        _encode(json.dumps(part, separators=(",", ":"), sort_keys=True).encode()) for part in (_HEADER, claims)
    ).encode()


def assemble(signing_input: bytes, signature: bytes) -> str:
    """The token, from what was signed and the raw 64-byte signature."""
    return f"{signing_input.decode()}.{_encode(signature)}"


def decode(token: str, *, verify: bool = True) -> dict[str, Any]:
    """The claims of a token.

    With `verify` the signature must be that of the key named in `iss`; whether that key may be trusted, and whether the
    token has expired, is for the caller to decide. Raises InvalidCredential without repeating the token.
    """
    parts = token.strip().split(".")
    if len(parts) != 3:
        raise InvalidCredential(f"The JWT has {len(parts)} parts separated by dots; it must have 3.")
    header, claims = (_read_object(part, what) for part, what in zip(parts, ("header", "body"), strict=False))
    if header != _HEADER:
        raise InvalidCredential("The JWT's header is not that of a NATS JWT (typ JWT, alg ed25519-nkey).")
    if verify:
        issuer, signature = claims.get("iss"), _decode(parts[2], "signature")
        if not isinstance(issuer, str):
            raise InvalidCredential("The JWT names no issuer (iss).")
        if not nkeys.verify(issuer, f"{parts[0]}.{parts[1]}".encode(), signature):
            raise InvalidCredential("The JWT's signature is not that of its issuer.")
    return claims


def same_body(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    """Whether two claims say the same, whoever signed them and when (`jti`, `iat` and `iss` are ignored)."""
    return _without_envelope(a) == _without_envelope(b)


def _without_envelope(claims: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in claims.items() if name not in _ENVELOPE}


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(text: str, what: str) -> bytes:
    try:
        return base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise InvalidCredential(f"The JWT's {what} is not base64url.") from None


def _read_object(text: str, what: str) -> dict[str, Any]:
    try:
        value = json.loads(_decode(text, what))
    except (ValueError, RecursionError):
        raise InvalidCredential(f"The JWT's {what} is not JSON.") from None
    if not isinstance(value, dict):
        raise InvalidCredential(f"The JWT's {what} is not a JSON object.")
    return value
