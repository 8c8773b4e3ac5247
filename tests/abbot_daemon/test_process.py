"""`abbot process`: thin, with all its ways to fail."""

from __future__ import annotations

import base64
import contextlib
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from abbot.process import request_from
from edgefarm.abbotproto import abbot_pb2 as pb
from edgefarm.abbotproto.envelope import pack_request, pack_response
from edgefarm.errors import SettingsError

#: What must not be loaded on the way of a request: each costs more than everything that is.
FORBIDDEN = {
    "abbot.settings",
    "argparse",
    "asyncio",
    "cryptography",
    "edgefarm.env",
    "google.protobuf",
    "grpc",
    "json",
    "logging",
    "prometheus_client",
    "pyroute2",
    "structlog",
    "subprocess",
    "yaml",
}
REQUEST = pack_request(pb.HostNetworkConfigQueryRequest(providers=["p"]))
RESPONSE = pack_response(pb.HostNetworkConfigResponse())
TIMEOUT = 20

names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0;"), min_size=1, max_size=300)


def process(
    *arguments: str, stdin: bytes = b"", environ: dict[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run `abbot` with these arguments and no variables of ours but `environ`."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("ABBOT_")}
    return subprocess.run(
        [sys.executable, "-m", "abbot", *arguments],
        input=stdin,
        env=inherited | (environ or {}),
        capture_output=True,
        timeout=TIMEOUT,
        check=False,
    )


@contextlib.contextmanager
def daemon(work: Path, talk: Callable[[socket.socket], None]) -> Iterator[dict[str, str]]:
    """Somebody on the raw socket who does what `talk` does with one connection; the environment of its clients."""
    path = work / "s"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{path}.raw")
        listener.listen()
        listener.settimeout(TIMEOUT)

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                talk(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield {"ABBOT_SOCKET": str(path)}
        finally:
            thread.join(TIMEOUT)


def received(connection: socket.socket) -> bytes:
    """The request in a frame."""
    with connection.makefile("rb") as stream:
        return stream.read(int.from_bytes(stream.read(4), "big"))


def frame(status: int, answer: bytes) -> bytes:
    return bytes([status]) + len(answer).to_bytes(4, "big") + answer


@given(names, st.none() | st.integers(1, 2**32 - 1))
def test_requests_about_containers_are_encoded_as_protobuf_does(container: str, pid: int | None) -> None:
    kinds: dict[str, Callable[..., object]] = {
        "container:restore": pb.ContainerNetworkRestoreRequest,
        "container:query": pb.ContainerNetworkQueryRequest,
        "container:delete": pb.ContainerNetworkDeleteRequest,
    }
    for action, kind in kinds.items():
        environ = {"ABBOT_REQ_ACTION": action, "ABBOT_REQ_CONTAINER_ID": container}
        if pid is not None:
            environ["ABBOT_REQ_CONTAINER_PID"] = str(pid)
        assert request_from(environ) == pack_request(kind(container_id=container, pid=pid or 0))  # type: ignore[arg-type]


@given(st.lists(names.filter(lambda name: name.strip() == name), max_size=5))
def test_requests_about_the_host_are_encoded_as_protobuf_does(providers: list[str]) -> None:
    environ = {"ABBOT_REQ_ACTION": "host:query", "ABBOT_REQ_HOST_PROVIDER": " ; ".join(providers)}
    assert request_from(environ) == pack_request(pb.HostNetworkConfigQueryRequest(providers=providers))


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"ABBOT_REQ_ACTION": "host:ensure"}, "write one of container:restore"),
        ({"ABBOT_REQ_ACTION": "container:query"}, "ABBOT_REQ_CONTAINER_ID is not set"),
        ({"ABBOT_REQ_ACTION": "container:query", "ABBOT_REQ_CONTAINER_ID": "\udcff"}, "is not text in UTF-8"),
        *(
            (
                {
                    "ABBOT_REQ_ACTION": "container:query",
                    "ABBOT_REQ_CONTAINER_ID": "c",
                    "ABBOT_REQ_CONTAINER_PID": pid,
                },
                "ABBOT_REQ_CONTAINER_PID is",
            )
            for pid in ("0", "-1", "x", "4294967296", "9" * 5000, "²")
        ),
    ],
)
def test_wrong_variables_are_named(environ: dict[str, str], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        request_from(environ)


def test_it_imports_nothing_heavy_on_the_way_of_a_request(work: Path) -> None:
    with daemon(work, lambda connection: connection.sendall(frame(0, RESPONSE))) as environ:
        done = subprocess.run(
            [sys.executable, "-X", "importtime", "-m", "abbot", "process"],
            input=base64.b64encode(REQUEST),
            env=os.environ | environ,
            capture_output=True,
            timeout=TIMEOUT,
            check=True,
        )
    lines = done.stderr.decode().splitlines()
    imported = {line.rpartition("|")[2].strip() for line in lines if line.startswith("import time:")}
    assert "abbot.client" in imported
    assert not imported & FORBIDDEN


def test_base64_goes_in_and_comes_out(work: Path) -> None:
    seen: list[bytes] = []

    def talk(connection: socket.socket) -> None:
        seen.append(received(connection))
        connection.sendall(frame(0, RESPONSE))

    with daemon(work, talk) as environ:
        # As `base64` writes it: in lines.
        done = process("process", stdin=base64.encodebytes(REQUEST), environ=environ)
    assert (done.returncode, done.stderr) == (0, b"")
    assert base64.b64decode(done.stdout, validate=False) == RESPONSE
    assert seen == [REQUEST]


def test_the_socket_comes_from_the_file(work: Path) -> None:
    (work / "config.yaml").write_text(f"logLevel: info\nsocket: {work / 's'}\n")
    with daemon(work, lambda connection: connection.sendall(frame(0, RESPONSE))):
        done = process("-c", str(work / "config.yaml"), "process", stdin=base64.b64encode(REQUEST))
    assert done.returncode == 0


def test_variables_make_the_request_and_stdin_is_not_read(work: Path) -> None:
    seen: list[bytes] = []

    def talk(connection: socket.socket) -> None:
        seen.append(received(connection))
        connection.sendall(frame(0, RESPONSE))

    with daemon(work, talk) as environ:
        wanted = {"ABBOT_REQ_ACTION": "host:query", "ABBOT_REQ_HOST_PROVIDER": "p"}
        done = process("process", stdin=b"no base64!", environ=environ | wanted)
    assert done.returncode == 0
    assert seen == [REQUEST]


def test_a_refusal_of_the_daemon_is_plain_text_on_stderr(work: Path) -> None:
    with daemon(work, lambda connection: connection.sendall(frame(1, "wg0: no ö".encode()))) as environ:
        done = process("process", stdin=base64.b64encode(REQUEST), environ=environ)
    assert (done.returncode, done.stdout, done.stderr.decode()) == (1, b"", "wg0: no ö\n")


@pytest.mark.parametrize("stdin", [b"", b"\n", b"not base64!", b"\xff\xfe", b"QUJD=QUJD", b"QQ"])
def test_garbage_on_stdin_is_misuse_and_not_repeated(stdin: bytes) -> None:
    done = process("process", stdin=stdin)
    assert done.returncode == 2
    assert done.stderr.startswith(b"stdin is ")
    assert b"QUJD" not in done.stderr


def test_a_stdin_without_end_is_refused() -> None:
    done = process("process", stdin=b"A" * (24 * 1024 * 1024))
    assert done.returncode == 2
    assert b"stdin is too long" in done.stderr


def test_without_a_daemon_it_says_what_to_do(work: Path) -> None:
    done = process("process", stdin=base64.b64encode(REQUEST), environ={"ABBOT_SOCKET": str(work / "none")})
    assert done.returncode == 3
    assert b"start `abbot daemon`" in done.stderr


@pytest.mark.parametrize("answer", [b"", b"\0", frame(0, RESPONSE)[:-1], b"HTTP/1.1 400 Bad Request\r\n"])
def test_half_an_answer_is_a_daemon_that_cannot_be_reached(work: Path, answer: bytes) -> None:
    def talk(connection: socket.socket) -> None:
        received(connection)
        connection.sendall(answer)

    with daemon(work, talk) as environ:
        done = process("process", stdin=base64.b64encode(REQUEST), environ=environ)
    assert done.returncode == 3
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("arguments", [[], ["serve"], ["-c"], ["process", "more"], ["daemon", "--fast"]])
def test_a_wrong_command_line_is_answered_with_the_usage(arguments: list[str]) -> None:
    done = process(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith(b"abbot: ")
    assert b"usage: abbot" in done.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["process", "--help"], ["daemon", "-h"], ["--version"]])
def test_help_is_given_on_stdout(arguments: list[str]) -> None:
    done = process(*arguments)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout


def test_it_is_a_cni_plugin_as_well() -> None:
    done = process("cni", stdin=b'{"cniVersion": "1.0.0"}', environ={"CNI_COMMAND": "VERSION"})
    assert done.returncode == 0
    assert b"supportedVersions" in done.stdout


def test_a_caller_that_has_closed_stdin_is_told_so(work: Path) -> None:
    command = ["sh", "-c", 'exec "$@" <&-', "sh", sys.executable, "-m", "abbot", "process"]
    environ = os.environ | {"ABBOT_SOCKET": str(work / "s")}
    done = subprocess.run(command, env=environ, capture_output=True, timeout=TIMEOUT, check=False)
    assert (done.returncode, done.stderr) == (2, b"stdin cannot be read: Bad file descriptor\n")
