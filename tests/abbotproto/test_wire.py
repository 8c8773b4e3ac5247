"""The bytes of abbot-proto: as computed by hand, round trips, unknown fields, and the generated code."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from edgefarm import abbotproto
from edgefarm.abbotproto import abbot_pb2 as pb
from edgefarm.abbotproto.envelope import pack_request, pack_response, unpack_request, unpack_response
from edgefarm.errors import InvalidMessage
from tests.abbotproto.messages import REQUESTS, RESPONSES

FOLDER: Final = Path(abbotproto.__file__).parent
FIRST_ADDITION: Final = 1001
REQUEST_KINDS: Final = {
    "_INVALID_REQUEST": 0,
    "REQ_ENSURE_CTR_NETWORK_CONFIG": 11,
    "REQ_QUERY_CTR_NETWORK_CONFIG": 12,
    "REQ_ENSURE_CTR_NETWORK": 21,
    "REQ_RESTORE_CTR_NETWORK": 22,
    "REQ_DELETE_CTR_NETWORK": 23,
    "REQ_QUERY_CTR_NETWORK": 24,
    "REQ_ENSURE_HOST_NETWORK_CONFIG": 31,
    "REQ_QUERY_HOST_NETWORK_CONFIG": 32,
}
RESPONSE_KINDS: Final = {
    "_INVALID_RESPONSE": 0,
    "RESP_DONE": 1,
    "RESP_CTR_NETWORK_CONFIG": 11,
    "RESP_CTR_NETWORK_STATUS": 21,
    "RESP_CTR_NETWORK_STATUS_LIST": 22,
    "RESP_HOST_NETWORK_CONFIG": 31,
}


def all_messages() -> list[type[Message]]:
    found: list[type[Message]] = []
    waiting = list(pb.DESCRIPTOR.message_types_by_name.values())
    while waiting:
        descriptor = waiting.pop()
        waiting.extend(descriptor.nested_types)
        if not descriptor.GetOptions().map_entry:
            found.append(message_factory.GetMessageClass(descriptor))
    return found


SCALARS: Final[dict[int, st.SearchStrategy[Any]]] = {
    FieldDescriptor.TYPE_STRING: st.text(max_size=8),
    FieldDescriptor.TYPE_BYTES: st.binary(max_size=8),
    FieldDescriptor.TYPE_BOOL: st.booleans(),
    FieldDescriptor.TYPE_INT32: st.integers(-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_INT64: st.integers(-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_UINT32: st.integers(0, 2**32 - 1),
    FieldDescriptor.TYPE_UINT64: st.integers(0, 2**64 - 1),
}


@st.composite
def filled(draw: st.DrawFn, kind: type[Message]) -> Message:
    """A message with random fields, at every depth."""
    message = kind()
    for field in kind.DESCRIPTOR.fields:
        if not draw(st.booleans()):
            continue
        nested = field.message_type
        if nested is not None and nested.GetOptions().map_entry:
            value = nested.fields_by_name["value"]
            key = draw(st.text(max_size=4))
            if value.message_type is None:
                getattr(message, field.name)[key] = draw(st.text(max_size=4))
            else:
                getattr(message, field.name)[key].CopyFrom(
                    draw(filled(message_factory.GetMessageClass(value.message_type)))
                )
        elif nested is not None:
            inner = draw(filled(message_factory.GetMessageClass(nested)))
            if field.is_repeated:
                getattr(message, field.name).append(inner)
            else:
                getattr(message, field.name).CopyFrom(inner)
        else:
            strategy = SCALARS.get(field.type)
            drawn = draw(st.sampled_from([v.number for v in field.enum_type.values]) if strategy is None else strategy)
            if field.is_repeated:
                getattr(message, field.name).append(drawn)
            else:
                setattr(message, field.name, drawn)
    return message


@pytest.mark.parametrize("name", REQUESTS)
def test_a_request_has_the_bytes_that_were_computed_by_hand(name: str) -> None:
    body, expected = REQUESTS[name]
    assert pack_request(body).hex() == expected.replace(" ", "")
    assert unpack_request(bytes.fromhex(expected)) == body


@pytest.mark.parametrize("name", RESPONSES)
def test_a_response_has_the_bytes_that_were_computed_by_hand(name: str) -> None:
    body, expected = RESPONSES[name]
    assert pack_response(body).hex() == expected.replace(" ", "")
    assert unpack_response(bytes.fromhex(expected)) == body


def test_every_kind_has_golden_bytes() -> None:
    requests = {bytes.fromhex(expected)[1] for _, expected in REQUESTS.values()}
    responses = {bytes.fromhex(expected)[1] for _, expected in RESPONSES.values()}
    assert requests == {number for number in REQUEST_KINDS.values() if number}
    assert responses == {number for number in RESPONSE_KINDS.values() if number}


def test_kinds_have_the_numbers_of_abbot_proto() -> None:
    assert dict(pb.RequestType.items()) == REQUEST_KINDS
    assert dict(pb.ResponseType.items()) == RESPONSE_KINDS


def test_the_service_is_the_one_of_abbot_proto() -> None:
    service = pb.DESCRIPTOR.services_by_name["NetworkManager"]
    assert service.full_name == "abbot.NetworkManager"
    method = service.methods_by_name["Process"]
    assert (method.input_type.full_name, method.output_type.full_name) == ("abbot.Request", "abbot.Response")


@pytest.mark.parametrize("kind", all_messages(), ids=lambda kind: kind.DESCRIPTOR.full_name)
def test_every_message_survives_a_round_trip(kind: type[Message]) -> None:
    @given(filled(kind))
    def survives(message: Message) -> None:
        assert kind.FromString(message.SerializeToString()) == message

    survives()


def without_additions() -> dict[str, type[Message]]:
    """The messages as somebody has them who does not know our fields."""
    file = descriptor_pb2.FileDescriptorProto()
    pb.DESCRIPTOR.CopyToProto(file)
    waiting = list(file.message_type)
    while waiting:
        message = waiting.pop()
        waiting.extend(message.nested_type)
        for field in [field for field in message.field if field.number >= FIRST_ADDITION]:
            message.field.remove(field)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClassesForFiles([file.name], pool)


def additional_fields(message: Message) -> list[str]:
    """Full names of our fields that are set somewhere in it."""
    names = []
    for field, value in message.ListFields():
        if field.number >= FIRST_ADDITION:
            names.append(field.full_name)
        if field.message_type is not None and not field.message_type.GetOptions().map_entry:
            for inner in value if field.is_repeated else [value]:
                names += additional_fields(inner)
    return names


@pytest.mark.parametrize("name", [name for name, (body, _) in REQUESTS.items() if additional_fields(body)])
def test_who_does_not_know_our_fields_skips_them_and_keeps_them(name: str) -> None:
    body, _ = REQUESTS[name]
    foreign = without_additions()[body.DESCRIPTOR.full_name].FromString(body.SerializeToString())
    assert not additional_fields(foreign)
    # What it passes on is whole.
    assert type(body).FromString(foreign.SerializeToString()) == body


def test_a_foreign_reader_sees_the_rest_of_a_tunnel_as_it_is() -> None:
    tunnel = pb.DriverWireguard(
        listen_port=51820,
        public_key="P",
        partial=True,
        peers=[pb.DriverWireguard.Peer(public_key="K", allowed_ips=["10.0.0.1/32"], alive=True, candidates=["a:1"])],
    )
    foreign: Any = without_additions()["abbot.DriverWireguard"].FromString(tunnel.SerializeToString())
    assert foreign.listen_port == 51820
    assert foreign.peers[0].public_key == "K"
    assert list(foreign.peers[0].allowed_ips) == ["10.0.0.1/32"]
    assert not hasattr(foreign, "public_key")


def test_fields_that_we_do_not_know_survive() -> None:
    # Field 2000, varint 5: 2000 << 3 = 16000 = 0x3e80: 80 7d 05.
    data = pb.DriverWireguard(listen_port=1).SerializeToString() + bytes.fromhex("807d05")
    assert pb.DriverWireguard.FromString(data).SerializeToString() == data


def test_fields_of_abbot_proto_and_additions_do_not_mix() -> None:
    for kind in all_messages():
        for field in kind.DESCRIPTOR.fields:
            assert field.number < 100 or field.number >= FIRST_ADDITION, field.full_name


SECRET: Final = b"MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="


@pytest.mark.parametrize(
    "data",
    [
        b"\x08",  # a kind without a value
        b"\x08\x1f\x12\x7f" + SECRET,  # a body that is cut off
        b"\x08\x1f\x12" + bytes([len(SECRET)]) + SECRET,  # a body that is no message
        SECRET,
    ],
)
def test_bytes_that_are_no_message_are_refused_without_repeating_them(data: bytes) -> None:
    for read in (unpack_request, unpack_response):
        with pytest.raises(InvalidMessage) as caught:
            read(data)
        assert "MDEy" not in str(caught.value)
        assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize("kind", [0, 1, 2, 13, 25, 33, 2**31 - 1])
def test_a_request_of_an_unknown_kind_is_refused_by_its_number(kind: int) -> None:
    with pytest.raises(InvalidMessage, match=f"unknown kind {kind}"):
        unpack_request(pb.Request(kind=kind).SerializeToString())  # type: ignore[arg-type]


def test_a_response_of_an_unknown_kind_is_refused_by_its_number() -> None:
    with pytest.raises(InvalidMessage, match="unknown kind 99"):
        unpack_response(pb.Response(kind=99).SerializeToString())  # type: ignore[arg-type]


@given(st.binary(max_size=200))
def test_no_bytes_break_the_reader(data: bytes) -> None:
    for read in (unpack_request, unpack_response):
        with contextlib.suppress(InvalidMessage):
            read(data)


def test_the_generated_code_is_that_of_the_proto_file(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I.", f"--python_out={tmp_path}", f"--pyi_out={tmp_path}"]
    subprocess.run([*command, "abbot.proto"], cwd=FOLDER, check=True, timeout=60)
    for name in ("abbot_pb2.py", "abbot_pb2.pyi"):
        assert (FOLDER / name).read_text() == (tmp_path / name).read_text(), f"{name} is stale: run `make proto`"
