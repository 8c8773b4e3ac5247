"""Decides which peer of a WireGuard interface carries which prefix, and at which address a peer is probed. Pure.

The rules: docs/mesh.md, "Paths".
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from hashlib import sha256
from ipaddress import IPv6Address
from typing import Final

from edgefarm.errors import InvalidMessage

KEY_BYTES: Final = 32
#: The probe addresses of all peers of an interface lie in this prefix, which is routed to the interface.
PROBE_PREFIX_LENGTH: Final = 64
_LINK_LOCAL: Final = 0xFE80 << 112


@dataclass(frozen=True)
class Carrier:
    """A peer as far as carrying is concerned; `allowed` are prefixes in their normal form, `always` is Use.ALWAYS."""

    public_key: str
    allowed: tuple[str, ...]
    always: bool


def key_bytes(key: str) -> bytes:
    """The 32 bytes of a base64 WireGuard key; InvalidMessage, which does not repeat it, when it is none."""
    try:
        raw = base64.b64decode(key, validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    # The last character has bits to spare: only one way of writing a key counts, or one peer could be listed twice.
    if len(raw) != KEY_BYTES or base64.b64encode(raw).decode() != key:
        raise InvalidMessage("not a WireGuard key: write 32 bytes in base64, as `wg genkey` and `wg pubkey` do")
    return raw


def probe_address(public_key: str) -> str:
    """The IPv6 link-local address that always leads through the tunnel of the peer with this public key.

    Its interface identifier is the beginning of the SHA-256 of the raw key. InvalidMessage when it is no key.
    """
    identifier = int.from_bytes(sha256(key_bytes(public_key)).digest()[:8], "big")
    return str(IPv6Address(_LINK_LOCAL | identifier))


def carried(peers: Sequence[Carrier], alive: Collection[str]) -> dict[str, tuple[str, ...]]:
    """What each of `peers` (in the order of the request) carries, by public key; `alive` are the keys of live peers.

    Every prefix is carried by one peer at most: the first live one that lists it; where none is alive, the first that
    is always used. Probe addresses are no part of it: every peer has its own at any time.
    """
    chosen: dict[str, Carrier] = {}
    for peer in peers:
        lives = peer.public_key in alive
        if not lives and not peer.always:
            continue
        for prefix in peer.allowed:
            holder = chosen.get(prefix)
            if holder is None or (lives and holder.public_key not in alive):
                chosen[prefix] = peer
    return {
        peer.public_key: tuple(prefix for prefix in dict.fromkeys(peer.allowed) if chosen.get(prefix) is peer)
        for peer in peers
    }
