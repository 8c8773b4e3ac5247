"""The two lines that the relay rewrites, in pieces of any size."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar import natsline
from sidecar.natsline import LONGEST_LINE, FirstLine, Rewriter

INFO: dict[str, Any] = {
    "server_id": "ND",
    "server_name": "hub-0",
    "proto": 1,
    "host": "0.0.0.0",
    "port": 4222,
    "headers": True,
    "auth_required": True,
    "tls_required": True,
    "tls_verify": True,
    "tls_available": True,
    "max_payload": 1048576,
    "jetstream": True,
    "domain": "main",
    "nonce": "kxmFLpeN6CSTuQ4",
    "ip": "10.0.0.1",
    "connect_urls": ["10.0.0.1:4222", "10.0.0.2:4222"],
    "ws_connect_urls": ["10.0.0.1:80"],
}
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
_OBJECTS = st.dictionaries(st.text(), _JSON, max_size=6)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    """The data cut at some of its boundaries."""
    places = [0, *sorted({cut % (len(data) + 1) for cut in cuts}), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(places)]


def test_addresses_and_tls_are_hidden_and_everything_else_stays() -> None:
    line = b"INFO " + json.dumps(INFO).encode() + b" \r\n"
    found = json.loads(natsline.rewrite_info(natsline.parse_info(line), "127.0.0.1", 14222)[5:])
    hidden = {"tls_required", "tls_verify", "tls_available", "ip", "connect_urls", "ws_connect_urls"}
    kept = {name: value for name, value in INFO.items() if name not in hidden}
    assert found == {**kept, "host": "127.0.0.1", "port": 14222}


@given(_OBJECTS)
def test_whatever_else_a_server_says_of_itself_arrives(info: dict[str, Any]) -> None:
    line = b"INFO " + json.dumps(info).encode() + b"\r\n"
    rewritten = natsline.rewrite_info(natsline.parse_info(line), "127.0.0.1", 1)
    assert rewritten.count(b"\n") == 1
    found = natsline.parse_info(rewritten)
    for name, value in info.items():
        if (
            name not in ("host", "port", "tls_required", "tls_available", "tls_verify", "ip")
            and "connect_urls" not in name
        ):
            assert found[name] == value


@given(st.binary(max_size=200), st.binary(max_size=200), st.lists(st.integers(0, 10_000), max_size=12))
def test_the_first_line_is_found_wherever_the_stream_is_cut(first: bytes, rest: bytes, cuts: list[int]) -> None:
    line = first.replace(b"\n", b"") + b"\n"
    gathered, reader = [], FirstLine()
    for piece in pieces(line + rest, cuts):
        if gathered:
            gathered.append(piece)
        elif (found := reader.feed(piece)) is not None:
            gathered = list(found)
    assert gathered[0] == line
    assert b"".join(gathered[1:]) == rest


@given(_OBJECTS, st.binary(max_size=300), st.lists(st.integers(0, 10_000), max_size=12))
def test_connect_says_protocol_0_and_what_follows_passes_untouched(
    options: dict[str, Any], rest: bytes, cuts: list[int]
) -> None:
    line = b"CONNECT " + json.dumps({**options, "protocol": 1}).encode() + b"\r\n"
    rewriter = Rewriter(natsline.rewrite_connect)
    passed = b"".join(map(rewriter.feed, pieces(line + rest, cuts)))
    rewritten, _, after = passed.partition(b"\r\n")
    assert after == rest
    kept = {name: value for name, value in options.items() if name.lower() != "protocol"}
    assert json.loads(rewritten.removeprefix(b"CONNECT ")) == {**kept, "protocol": 0}


@pytest.mark.parametrize("cut", range(60))
def test_one_cut_at_every_place_changes_nothing(cut: int) -> None:
    data = b'CONNECT {"protocol":1,"jwt":"a.b.c"}\r\nPING\r\nPUB a 4\r\n\r\nab\r\n'
    rewriter = Rewriter(natsline.rewrite_connect)
    passed = rewriter.feed(data[:cut]) + rewriter.feed(data[cut:])
    assert passed == b'CONNECT {"jwt":"a.b.c","protocol":0}\r\nPING\r\nPUB a 4\r\n\r\nab\r\n'


@pytest.mark.parametrize(
    "line",
    [
        b'connect\t{"Protocol":1}\n',
        b'CONNECT   {"PROTOCOL":1,"protocol":1}  \r\n',
    ],
)
def test_a_connect_is_read_as_the_server_reads_it(line: bytes) -> None:
    assert natsline.rewrite_connect(line) == b'CONNECT {"protocol":0}\r\n'


@pytest.mark.parametrize("line", [b"PING\r\n", b"CONNECT {\r\n", b"CONNECT []\r\n", b"GET / HTTP/1.1\r\n", b"\xff\r\n"])
def test_what_is_no_connect_is_left_to_the_server(line: bytes) -> None:
    assert natsline.rewrite_connect(line) == line


@pytest.mark.parametrize(
    "line", [b"", b"INFO\r\n", b"INFO []\r\n", b"-ERR 'x'\r\n", b"HTTP/1.1 400\r\n", b"INFO {\r\n"]
)
def test_a_server_that_is_no_nats_server_is_recognised(line: bytes) -> None:
    with pytest.raises(ValueError, match=r"no INFO|Expecting"):
        natsline.parse_info(line)


def test_a_line_that_never_ends_is_not_waited_for() -> None:
    reader = FirstLine()
    assert reader.feed(b"x" * LONGEST_LINE) is None
    with pytest.raises(ValueError, match="longer than"):
        reader.feed(b"x")
