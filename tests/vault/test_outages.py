"""What callers see when Vault is away, sealed, slow or not itself: the right error, quickly, without secrets."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from edgefarm.errors import VaultRefused, VaultUnavailable
from edgefarm.vault import Vault, VaultSettings, VaultSetup
from edgefarm.vault.transport import Operation
from localcluster.stack import Authority, OpenBao

TOKEN = "s.secretSecretSecretSecret"

#: Starts a server that gives every request this status and body; returns its settings.
Answering = Callable[[int, bytes], VaultSettings]


@pytest.fixture
def answering() -> Iterator[Answering]:
    servers: list[ThreadingHTTPServer] = []

    def start(status: int, body: bytes) -> VaultSettings:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.send_header("Location", "http://127.0.0.1:1/elsewhere")
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return VaultSettings(address=f"http://127.0.0.1:{server.server_port}")

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_a_stopped_vault_is_unavailable_at_once_and_the_same_client_goes_on_when_it_is_back(
    authority: Authority, work: Path
) -> None:
    server = OpenBao.start(work, authority)
    vault = Vault(VaultSettings(address=server.address, ca_pem=authority.pem), token=server.root_token)
    VaultSetup(vault).ensure_mounts()
    key = vault.ensure_key("policy.a.b.c")
    server.stop()
    started = time.monotonic()
    with pytest.raises(VaultUnavailable, match=server.address):
        vault.key(key.name)
    assert time.monotonic() - started < 5
    server = OpenBao.start(work, authority, port=int(server.address.rpartition(":")[2]))
    assert vault.key(key.name) == key
    vault.transport.send(Operation("seal", "PUT"), "sys/seal")
    with pytest.raises(VaultUnavailable, match=r"HTTP 503.*sealed"):
        vault.key(key.name)
    server.stop()


def test_a_server_of_another_authority_is_not_spoken_to(openbao: OpenBao, tmp_path: Path) -> None:
    for ca_pem in (Authority.create(tmp_path).pem, None):
        stranger = Vault(VaultSettings(address=openbao.address, ca_pem=ca_pem), token=TOKEN)
        with pytest.raises(VaultUnavailable, match="certificate verify failed"):
            stranger.keys()


def test_an_authority_that_is_no_pem_text_is_reported_at_once(openbao: OpenBao) -> None:
    with pytest.raises(VaultRefused, match="not PEM"):
        Vault(VaultSettings(address=openbao.address, ca_pem="no certificate"))


def test_a_server_that_accepts_and_says_nothing_is_given_up_after_the_timeout() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings = VaultSettings(address=f"http://127.0.0.1:{silent.getsockname()[1]}", timeout_seconds=0.2)
        started = time.monotonic()
        with pytest.raises(VaultUnavailable, match="does not answer"):
            Vault(settings, token=TOKEN).keys()
        assert time.monotonic() - started < 5


@pytest.mark.parametrize("status", [307, 412, 429, 500, 502, 503])
def test_answers_about_the_moment_mean_try_again(answering: Answering, status: int) -> None:
    settings = answering(status, b'{"errors": ["busy"]}')
    with pytest.raises(VaultUnavailable, match=settings.address):
        Vault(settings, token=TOKEN).key("x")


@pytest.mark.parametrize(
    ("status", "expected"), [(400, VaultRefused), (403, VaultRefused), (405, VaultRefused), (500, VaultUnavailable)]
)
def test_no_error_repeats_a_secret(answering: Answering, status: int, expected: type[Exception]) -> None:
    jwt = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJ4In0.c2ln"
    vault = Vault(answering(status, json.dumps({"errors": [f"bad {jwt} {TOKEN}"]}).encode()), token=TOKEN)
    with pytest.raises(expected) as caught:
        vault.key("x")
    assert jwt not in str(caught.value)
    assert TOKEN not in str(caught.value)
    assert TOKEN not in repr(vault)


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>", b"[]", b'{"data": null}', b'{"data": {"keys": 3, "data": 3}}', b'{"data": {"type": "ed25519"}}'],
)
def test_an_answer_that_is_not_vaults_is_refused_and_not_a_crash(answering: Answering, body: bytes) -> None:
    vault = Vault(answering(200, body), token=TOKEN)
    for call in (vault.key, vault.policy, vault.read_document, vault.role, vault.list_documents):
        with pytest.raises(VaultRefused, match="cannot be read"):
            call("x")


def test_an_expired_or_unknown_token_is_refused_with_403(vault: Vault) -> None:
    with pytest.raises(VaultRefused, match="login is no longer valid") as caught:
        Vault(vault.settings, token=TOKEN).key("x")
    assert caught.value.status == 403


def test_missing_mounts_are_named(vault: Vault, openbao: OpenBao) -> None:
    lost = Vault(
        replace(vault.settings, kv_mount="lost-kv", transit_mount="lost-transit", auth_mount="lost-auth"),
        token=openbao.root_token,
    )
    with pytest.raises(VaultRefused, match="lost-kv"):
        lost.write_document("x", {})
    with pytest.raises(VaultRefused, match="lost-transit"):
        lost.create_key("policy.x")
    with pytest.raises(VaultRefused, match="lost-auth"):
        lost.login("role", "token")
