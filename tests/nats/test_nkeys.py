"""Text forms of keys, against published keys and an encoder written here in another way."""

from __future__ import annotations

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from edgefarm.errors import InvalidCredential
from edgefarm.nats import nkeys
from edgefarm.nats.nkeys import Prefix

#: The user of the documentation and tests of NATS' own clients.
PUBLISHED_SEED = "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY"
PUBLISHED_PUBLIC = "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4"

raw_keys = st.binary(min_size=32, max_size=32)
prefixes = st.sampled_from(Prefix)


def crc16_bit_by_bit(data: bytes) -> int:
    crc = 0
    for byte in data:
        crc ^= byte << 8
        for _ in range(8):
            crc = (crc << 1 ^ 0x1021) & 0xFFFF if crc & 0x8000 else crc << 1
    return crc


def text_of_bits(bits: str, raw: bytes) -> str:
    """An nkey from the bits of its head, as the reference lays them out."""
    data = int(bits, 2).to_bytes(len(bits) // 8, "big") + raw
    crc = crc16_bit_by_bit(data)
    return base64.b32encode(data + bytes((crc & 0xFF, crc >> 8))).decode().rstrip("=")


def five_bits(letter: str) -> str:
    return f"{ord(letter) - ord('A'):05b}"


def test_the_published_seed_gives_the_published_public_key() -> None:
    prefix, raw = nkeys.decode_seed(PUBLISHED_SEED)
    public = Ed25519PrivateKey.from_private_bytes(raw).public_key().public_bytes_raw()
    assert prefix is Prefix.USER
    assert nkeys.encode_public(prefix, public) == PUBLISHED_PUBLIC
    assert nkeys.encode_seed(prefix, raw) == PUBLISHED_SEED
    assert nkeys.decode_public(PUBLISHED_PUBLIC) == (Prefix.USER, public)


@given(prefixes, raw_keys)
def test_a_public_key_is_encoded_as_an_independent_encoder_does(prefix: Prefix, raw: bytes) -> None:
    text = nkeys.encode_public(prefix, raw)
    assert text == text_of_bits(five_bits(prefix.value) + "000", raw)
    assert text[0] == prefix.value
    assert nkeys.decode_public(text) == (prefix, raw)


@given(prefixes, raw_keys)
def test_a_seed_is_encoded_as_an_independent_encoder_does(prefix: Prefix, raw: bytes) -> None:
    text = nkeys.encode_seed(prefix, raw)
    assert text == text_of_bits(five_bits("S") + five_bits(prefix.value) + "000" + "000", raw)
    assert text.startswith(f"S{prefix.value}")
    assert nkeys.decode_seed(text) == (prefix, raw)


@given(st.integers(0, 55), st.sampled_from("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"))
def test_a_key_with_one_wrong_character_is_refused(position: int, letter: str) -> None:
    text = PUBLISHED_PUBLIC[:position] + letter + PUBLISHED_PUBLIC[position + 1 :]
    if text != PUBLISHED_PUBLIC:
        with pytest.raises(InvalidCredential):
            nkeys.decode_public(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "0 characters long; a public key has 56"),
        (PUBLISHED_PUBLIC[:-1], "55 characters"),
        (PUBLISHED_SEED, "58 characters"),
        (PUBLISHED_PUBLIC.lower(), "other than A-Z and 2-7"),
        ("é" * 56, "other than A-Z and 2-7"),
        ("A" * 55 + "B", "checksum"),
        (text_of_bits(five_bits("P") + "000", bytes(32)), "does not begin with"),
    ],
)
def test_what_is_no_public_key_is_refused_with_the_reason(text: str, message: str) -> None:
    with pytest.raises(InvalidCredential, match=message):
        nkeys.decode_public(text)


@pytest.mark.parametrize(
    "text",
    [
        PUBLISHED_PUBLIC,
        PUBLISHED_SEED[:-1] + "A",
        text_of_bits(five_bits("S") + five_bits("P") + "000000", bytes(32)),
        text_of_bits(five_bits("T") + five_bits("U") + "000000", bytes(32)),
        text_of_bits(five_bits("S") + five_bits("U") + "000001", bytes(32)),
    ],
)
def test_what_is_no_seed_is_refused_and_never_repeated(text: str) -> None:
    with pytest.raises(InvalidCredential) as caught:
        nkeys.decode_seed(text)
    assert text[2:] not in str(caught.value)


@pytest.mark.parametrize("length", [0, 31, 33])
def test_raw_keys_of_another_length_are_refused(length: int) -> None:
    with pytest.raises(InvalidCredential, match="32 bytes"):
        nkeys.encode_public(Prefix.ACCOUNT, bytes(length))


def test_a_signature_is_that_of_its_maker_only() -> None:
    maker, other = nkeys.generate_user(), nkeys.generate(Prefix.ACCOUNT)
    signature = nkeys.sign(maker.seed, b"data")
    assert nkeys.verify(maker.public, b"data", signature)
    assert not nkeys.verify(maker.public, b"Data", signature)
    assert not nkeys.verify(other.public, b"data", signature)
    assert not nkeys.verify(maker.public, b"data", b"short")


def test_the_representation_of_a_key_pair_hides_its_seed() -> None:
    pair = nkeys.generate_user()
    assert pair.public in repr(pair)
    assert pair.seed not in repr(pair)
