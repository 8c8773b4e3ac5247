"""Both sockets of the daemon: whatever comes in, whoever asks, and however slowly."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import grpc.aio
import pytest
import structlog

from abbot import sockets
from abbot.client import MAX_FRAME, DaemonUnreachable, RequestFailed, call, raw_socket
from abbot.frames import FrameServer
from abbot.metrics import Metrics
from abbot.requests import Networks, Requests
from abbot.server import GrpcServer
from abbot.worker import Worker
from edgefarm.abbotproto import abbot_pb2 as pb
from edgefarm.abbotproto.envelope import RequestBody, ResponseBody, pack_request, unpack_response
from edgefarm.errors import SettingsError
from tests.abbot_daemon.fakes import FakeContainers, FakeHost

CLIENT_TIMEOUT = 0.4
Ensure = pb.HostNetworkConfigEnsureRequest


@dataclass
class Served:
    """Both sockets in this process, before networks without interfaces."""

    path: Path
    host: FakeHost
    containers: FakeContainers
    metrics: Metrics
    changes: list[None]
    frames: FrameServer

    async def raw(self, request: bytes) -> bytes:
        return await asyncio.to_thread(call, str(self.path), request, timeout=15)

    async def ask(self, body: RequestBody) -> ResponseBody:
        return unpack_response(await self.raw(pack_request(body)))

    async def grpc(self, request: bytes, seconds: float = 15) -> bytes:
        options = [("grpc.max_receive_message_length", MAX_FRAME)]
        async with grpc.aio.insecure_channel(f"unix:{self.path}", options=options) as channel:
            answer: bytes = await channel.unary_unary("/abbot.NetworkManager/Process")(request, timeout=seconds)
            return answer


async def eventually(holds: Callable[[], bool]) -> None:
    """Return when it holds."""
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110 (it holds somewhere else, in another thread)
            await asyncio.sleep(0.01)


@pytest.fixture(autouse=True)
def silent() -> Iterator[None]:
    with structlog.testing.capture_logs():
        yield


@pytest.fixture
async def served(work: Path) -> AsyncIterator[Served]:
    host, containers, metrics = FakeHost(), FakeContainers(), Metrics()
    changes: list[None] = []
    networks = Networks(host, Worker("host"), containers, Worker("containers"))
    requests = Requests(networks, metrics, structlog.get_logger(), lambda: changes.append(None))
    frames, rpc = FrameServer(requests.answer, client_timeout=CLIENT_TIMEOUT), GrpcServer(requests.answer)
    path = work / "abbot.sock"
    with sockets.private():
        await rpc.start(path)
        await frames.start(Path(raw_socket(str(path))))
    yield Served(path, host, containers, metrics, changes, frames)
    host.go.set()
    await frames.close(1)
    await rpc.close(1)


async def test_each_kind_of_request_gets_its_kind_of_answer(served: Served) -> None:
    answers: list[tuple[RequestBody, ResponseBody]] = [
        (
            pb.HostNetworkConfigQueryRequest(providers=["a"]),
            served.host.query(pb.HostNetworkConfigQueryRequest(providers=["a"])),
        ),
        (Ensure(provider="p"), pb.HostNetworkConfigResponse()),
        (
            pb.ContainerNetworkConfigEnsureRequest(),
            served.containers.ensure_config(pb.ContainerNetworkConfigEnsureRequest()),
        ),
        (pb.ContainerNetworkConfigQueryRequest(), pb.ContainerNetworkConfigResponse(ipv4_subnet="10.0.0.0/24")),
        (pb.ContainerNetworkEnsureRequest(container_id="c", pid=5), pb.ContainerNetworkStatusResponse(pid=5)),
        (pb.ContainerNetworkRestoreRequest(container_id="c", pid=6), pb.ContainerNetworkStatusResponse(pid=6)),
        (pb.ContainerNetworkQueryRequest(container_id="c1"), pb.ContainerNetworkStatusResponse(pid=1)),
        (pb.ContainerNetworkDeleteRequest(container_id="c2"), None),
    ]
    for request, answer in answers:
        assert await served.ask(request) == answer
        assert unpack_response(await served.grpc(pack_request(request))) == answer
    assert served.containers.deleted == ["c2", "c2"]
    assert len(served.changes) == 2


async def test_errors_reach_clients_of_both_sockets_in_one_sentence(served: Served) -> None:
    cases = [
        (pack_request(Ensure(provider="broken")), grpc.StatusCode.FAILED_PRECONDITION, "wg0: cannot be made"),
        (pack_request(Ensure(provider="static")), grpc.StatusCode.INVALID_ARGUMENT, "is reserved"),
        (b"\x08\x1f\x12\x09", grpc.StatusCode.INVALID_ARGUMENT, "is not the protobuf message"),
        (b"", grpc.StatusCode.INVALID_ARGUMENT, "unknown kind 0"),
        (pack_request(Ensure(provider="crash")), grpc.StatusCode.INTERNAL, "abbot made a mistake"),
        (
            pack_request(pb.ContainerNetworkQueryRequest(container_id="c")),
            grpc.StatusCode.FAILED_PRECONDITION,
            "'c' is not",
        ),
    ]
    for request, status, said in cases:
        with pytest.raises(RequestFailed, match=said) as failed:
            await served.raw(request)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await served.grpc(request)
        assert refused.value.code() is status
        assert refused.value.details() == str(failed.value)
        assert "private text" not in str(failed.value)
        assert "Traceback" not in str(failed.value)


async def test_requests_are_counted_by_kind_and_result(served: Served) -> None:
    await served.ask(pb.HostNetworkConfigQueryRequest())
    for bad in (b"\xff", pack_request(Ensure(provider="broken"))):
        with pytest.raises(RequestFailed):
            await served.raw(bad)
    text = served.metrics.render().decode()
    assert 'abbot_requests_total{kind="HostNetworkConfigQuery",result="done"} 1.0' in text
    assert 'abbot_requests_total{kind="unknown",result="invalid"} 1.0' in text
    assert 'abbot_requests_total{kind="HostNetworkConfigEnsure",result="failed"} 1.0' in text


async def test_fifty_clients_are_served_one_after_the_other_in_one_thread(served: Served) -> None:
    requests = [pack_request(Ensure(provider=f"p{number}")) for number in range(50)]
    answers = await asyncio.gather(
        *(served.raw(request) for request in requests[:25]), *map(served.grpc, requests[25:])
    )
    assert [unpack_response(answer) for answer in answers] == [pb.HostNetworkConfigResponse()] * 50
    assert sorted(served.host.ensured) == sorted(f"p{number}" for number in range(50))
    assert len(served.host.threads) == 1


async def test_a_request_that_takes_long_does_not_keep_containers_waiting(served: Served) -> None:
    slow = asyncio.create_task(served.ask(Ensure(provider="slow")))
    assert await served.ask(pb.ContainerNetworkQueryRequest(container_id="c1")) is not None
    assert not slow.done()
    served.host.go.set()
    await slow


async def test_a_client_may_take_its_time_for_the_answer_but_not_for_the_request(served: Served) -> None:
    slow = asyncio.create_task(served.ask(Ensure(provider="slow")))
    reader, writer = await asyncio.open_unix_connection(raw_socket(str(served.path)))
    writer.write(b"\0\0\0\x05\x08")
    # Nothing more comes, so the connection is closed; the other one, which waits for its answer, is not.
    assert await asyncio.wait_for(reader.read(), 5) == b""
    writer.close()
    assert not slow.done()
    served.host.go.set()
    assert await slow == pb.HostNetworkConfigResponse()


@pytest.mark.parametrize("sent", [b"", b"\0", b"\0\0\0\x05\x08\x1f", b"GET / HTTP/1.1\r\n\r\n"])
async def test_half_a_frame_harms_nobody(served: Served, sent: bytes) -> None:
    _, writer = await asyncio.open_unix_connection(raw_socket(str(served.path)))
    writer.write(sent)
    writer.close()
    await writer.wait_closed()
    assert await served.ask(Ensure(provider="p")) == pb.HostNetworkConfigResponse()


async def test_a_frame_that_is_too_long_is_refused_before_it_is_read(served: Served) -> None:
    reader, writer = await asyncio.open_unix_connection(raw_socket(str(served.path)))
    writer.write((MAX_FRAME + 1).to_bytes(4, "big"))
    answer = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    assert answer[0] == 1
    assert b"is the most" in answer[5:]
    with pytest.raises(RequestFailed, match="takes 16777216 at most"):
        await served.raw(b"\0" * (MAX_FRAME + 1))


async def test_a_large_request_and_answer_pass(served: Served) -> None:
    interface = pb.HostNetworkInterface(metadata=pb.NetworkInterface(name="x" * 1000))
    request = Ensure(provider="p", expected=[interface] * 10_000)
    answer = await served.ask(request)
    assert isinstance(answer, pb.HostNetworkConfigResponse)
    assert len(answer.actual) == 10_000
    assert unpack_response(await served.grpc(pack_request(request))) == answer


async def test_a_client_that_went_away_takes_back_what_has_not_begun(served: Served) -> None:
    slow = asyncio.create_task(served.ask(Ensure(provider="slow")))
    await eventually(lambda: served.host.busy)
    with pytest.raises(DaemonUnreachable, match=r"within 0\.2 s"):
        await asyncio.to_thread(call, str(served.path), pack_request(Ensure(provider="late")), timeout=0.2)
    with pytest.raises(grpc.aio.AioRpcError):
        await served.grpc(pack_request(Ensure(provider="gone")), seconds=0.2)
    await eventually(lambda: b'result="cancelled"} 1.0' in served.metrics.render())
    served.host.go.set()
    await slow
    await served.ask(Ensure(provider="last"))
    assert "gone" not in served.host.ensured


async def test_at_the_end_requests_that_have_begun_are_finished(served: Served) -> None:
    slow = asyncio.create_task(served.ask(Ensure(provider="slow")))
    await served.ask(pb.ContainerNetworkConfigQueryRequest())
    closing = asyncio.create_task(served.frames.close(10))
    await asyncio.sleep(0)
    served.host.go.set()
    assert await slow == pb.HostNetworkConfigResponse()
    await closing


def test_the_sockets_are_for_the_owner_and_its_group(work: Path) -> None:
    folder = work / "run"
    sockets.claim(folder / "abbot.sock")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o750

    async def made() -> int:
        server = FrameServer(_nothing)
        with sockets.private():
            await server.start(folder / "abbot.sock")
        mode = stat.S_IMODE((folder / "abbot.sock").stat().st_mode)
        await server.close(0)
        return mode

    assert asyncio.run(made()) == 0o660


async def _nothing(request: bytes) -> bytes:
    return request


async def test_a_socket_of_a_dead_daemon_is_replaced_and_that_of_a_live_one_is_not(served: Served, work: Path) -> None:
    with pytest.raises(SettingsError, match="another abbot daemon serves"):
        await asyncio.to_thread(sockets.claim, served.path)
    with pytest.raises(SettingsError, match="another abbot daemon serves"):
        await asyncio.to_thread(sockets.claim, Path(raw_socket(str(served.path))))
    stale = work / "stale"
    server = FrameServer(_nothing)
    await server.start(work / "other")
    os.rename(work / "other", stale)
    await server.close(0)
    assert stale.exists()
    sockets.claim(stale)
    assert not stale.exists()


def test_what_is_no_socket_is_never_removed(work: Path) -> None:
    (work / "abbot.sock").write_text("mine")
    with pytest.raises(SettingsError, match="is no socket"):
        sockets.claim(work / "abbot.sock")
    assert (work / "abbot.sock").read_text() == "mine"
