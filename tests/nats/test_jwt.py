"""Tokens and creds files as text."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from edgefarm.errors import InvalidCredential
from edgefarm.nats import creds, jwt, nkeys
from edgefarm.nats.nkeys import Prefix
from tests.natskit import sign

#: base64url of {"alg":"ed25519-nkey","typ":"JWT"}, as `base64 -w0 | tr -d =` prints it.
HEADER = "eyJhbGciOiJlZDI1NTE5LW5rZXkiLCJ0eXAiOiJKV1QifQ"

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def unpadded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def forged(header: Any, body: Any) -> str:
    return f"{unpadded(json.dumps(header).encode())}.{unpadded(json.dumps(body).encode())}.{unpadded(bytes(64))}"


def test_what_is_signed_is_the_header_and_the_body_in_unpadded_base64url() -> None:
    body = unpadded(b'{"sub":"a?>"}')
    assert jwt.signing_input({"sub": "a?>"}).decode() == f"{HEADER}.{body}"


def test_a_token_of_a_fixed_key_is_the_one_computed_by_hand() -> None:
    private = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    issuer = nkeys.encode_public(Prefix.ACCOUNT, private.public_key().public_bytes_raw())
    body = unpadded(f'{{"iss":"{issuer}","sub":"x"}}'.encode())
    expected = f"{HEADER}.{body}.{unpadded(private.sign(f'{HEADER}.{body}'.encode()))}"
    claims = {"sub": "x", "iss": issuer}
    data = jwt.signing_input(claims)
    token = jwt.assemble(data, nkeys.sign(nkeys.encode_seed(Prefix.ACCOUNT, bytes(range(32))), data))
    assert token == expected
    assert jwt.decode(token) == claims


@given(st.dictionaries(st.text(), json_values, max_size=5))
def test_any_claims_survive_signing_and_reading(claims: dict[str, Any]) -> None:
    assert jwt.decode(jwt.assemble(jwt.signing_input(claims), bytes(64)), verify=False) == claims


def test_the_order_of_members_makes_no_difference() -> None:
    assert jwt.signing_input({"a": 1, "b": 2}) == jwt.signing_input({"b": 2, "a": 1})


def test_a_changed_token_is_refused() -> None:
    key = nkeys.generate(Prefix.ACCOUNT)
    header, _, signature = sign({"iss": key.public, "sub": "x"}, key).split(".")
    changed = unpadded(json.dumps({"iss": key.public, "sub": "y"}).encode())
    with pytest.raises(InvalidCredential, match="signature is not that of its issuer"):
        jwt.decode(f"{header}.{changed}.{signature}")


def test_a_token_signed_by_another_key_than_its_issuer_is_refused() -> None:
    issuer, other = nkeys.generate(Prefix.ACCOUNT), nkeys.generate(Prefix.ACCOUNT)
    with pytest.raises(InvalidCredential, match="signature"):
        jwt.decode(sign({"iss": issuer.public}, other))


@pytest.mark.parametrize(
    ("token", "message"),
    [
        ("", "1 parts"),
        ("a.b", "2 parts"),
        ("%%.%%.%%", "header is not base64url"),
        (f"{HEADER}.e.x", "body is not base64url"),
        (f"{HEADER}.é.x", "body is not base64url"),
        (f"{HEADER}.{unpadded(b'no json')}.x", "body is not JSON"),
        (f"{HEADER}.{unpadded(b'[' * 100_000)}.x", "body is not JSON"),
        (f"{HEADER}.{unpadded(bytes((0xFF,)))}.x", "body is not JSON"),
        (f"{HEADER}.{unpadded(b'[]')}.x", "body is not a JSON object"),
        (forged({"typ": "JWT", "alg": "none"}, {}), "header is not that of a NATS JWT"),
        (forged({"typ": "JWT", "alg": "ed25519"}, {}), "header is not that of a NATS JWT"),
        (forged({"typ": "JWT", "alg": "ed25519-nkey"}, {}), "names no issuer"),
        (forged({"typ": "JWT", "alg": "ed25519-nkey"}, {"iss": 1}), "names no issuer"),
        (forged({"typ": "JWT", "alg": "ed25519-nkey"}, {"iss": "A"}), "1 characters long"),
    ],
)
def test_what_is_no_token_is_refused_with_the_reason(token: str, message: str) -> None:
    with pytest.raises(InvalidCredential, match=message):
        jwt.decode(token)


def test_claims_are_compared_without_issuer_time_and_id() -> None:
    body = {"sub": "x", "nats": {"limits": {"conn": 1}}}
    assert jwt.same_body({**body, "iss": "A", "jti": "1", "iat": 1}, {**body, "iss": "B", "jti": "2", "iat": 2})
    assert jwt.same_body(body, {**body, "jti": "1"})
    assert not jwt.same_body(body, {**body, "nats": {"limits": {"conn": 2}}})
    assert not jwt.same_body(body, {**body, "exp": 1})


def test_a_creds_file_has_the_layout_that_clients_read() -> None:
    text = creds.format_creds("h.b.s", "SUSEED")
    assert text.splitlines()[:3] == ["-----BEGIN NATS USER JWT-----", "h.b.s", "------END NATS USER JWT------"]
    assert creds.parse_creds(text) == ("h.b.s", "SUSEED")


def test_a_creds_file_with_other_line_ends_and_a_word_before_is_read() -> None:
    text = "comment\n" + creds.format_creds("h.b-_.s", "SUSEED")
    assert creds.parse_creds(text.replace("\n", "\r\n")) == ("h.b-_.s", "SUSEED")


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        ("", "NATS USER JWT"),
        ("-----BEGIN NATS USER JWT-----\nx\n------END NATS USER JWT------\n", "USER NKEY SEED"),
        ("-----BEGIN USER NKEY SEED-----\nSUX\n------END USER NKEY SEED------\n", "NATS USER JWT"),
        ("-----BEGIN NATS USER JWT-----\n\n------END NATS USER JWT------\n", "NATS USER JWT"),
    ],
)
def test_a_creds_file_without_one_of_its_blocks_is_refused(text: str, missing: str) -> None:
    with pytest.raises(InvalidCredential, match=missing) as caught:
        creds.parse_creds(text)
    assert "SUX" not in str(caught.value)
