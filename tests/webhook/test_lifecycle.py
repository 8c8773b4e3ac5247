"""Start, certificate exchange and end of the real webhook process, with requests in flight."""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import json
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import structlog

from edgefarm import pki
from localcluster.process import StartError
from localcluster.stack import Authority
from tests.webhook.conftest import StartWebhook, Webhook, install_certificate, make_pod, make_review
from webhook.tls import Certificates

_BODY = json.dumps(make_review(make_pod())).encode()


class Load:
    """Clients that post reviews until told to stop, some on kept connections, and remember what went wrong."""

    def __init__(self, webhook: Webhook, clients: int = 4) -> None:
        self._webhook = webhook
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(number % 2 == 0,)) for number in range(clients)]
        self.answered = 0
        self.failures: list[str] = []

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(20)

    def wait_for_more(self, count: int) -> None:
        """Wait until `count` more requests were answered."""
        goal = self.answered + count
        wait_until(lambda: self.answered >= goal or bool(self.failures), "more requests")

    def _run(self, keep: bool) -> None:
        connection = self._webhook.connect()
        while not self._stop.is_set():
            try:
                connection.request("POST", "/mutate", _BODY, {"Content-Type": "application/json"})
                response = connection.getresponse()
                response.read()
                if response.status != 200:
                    self.failures.append(f"status {response.status}")
                self.answered += 1
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(repr(error))
            if not keep:
                connection.close()
        connection.close()


def wait_until(condition: Callable[[], bool], what: str, timeout: float = 20.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"no {what} within {timeout:g} s"
        time.sleep(0.01)


def served_serial(webhook: Webhook) -> str:
    """Serial number of the certificate that a new connection gets."""
    with contextlib.closing(webhook.connect()) as connection:
        connection.connect()
        assert isinstance(connection.sock, ssl.SSLSocket)
        certificate = connection.sock.getpeercert()
        assert certificate is not None
        return str(certificate["serialNumber"])


def test_it_is_healthy_but_not_ready_until_its_certificate_exists(start_webhook: StartWebhook) -> None:
    webhook = start_webhook(certificate=False)
    assert webhook.get("/healthz")[0] == 200
    assert webhook.get("/readyz") == (503, "waiting for the certificate\n")
    install_certificate(webhook.authority, webhook.certificates, "late")
    webhook.process.wait_until(webhook.is_ready, "ready")
    assert webhook.admit(make_review(make_pod()))["allowed"] is True


def test_it_ends_at_once_while_it_waits_for_its_certificate(start_webhook: StartWebhook) -> None:
    webhook = start_webhook(certificate=False, EDGEFARM_WEBHOOK_DRAIN="60s")
    webhook.process.signal(signal.SIGTERM)
    assert webhook.process.wait(10) == 0


def test_certificates_are_exchanged_under_load_without_a_failed_request(start_webhook: StartWebhook) -> None:
    webhook = start_webhook()
    with Load(webhook) as load:
        for number in range(3):
            load.wait_for_more(50)
            before = served_serial(webhook)
            install_certificate(webhook.authority, webhook.certificates, f"exchange-{number}-{webhook.port}")
            wait_until(lambda serial=before: served_serial(webhook) != serial, "new certificate")  # type: ignore[misc]
        load.wait_for_more(50)
    assert load.failures == []
    assert load.answered >= 200


def test_a_broken_certificate_leaves_the_former_one_in_force(start_webhook: StartWebhook) -> None:
    webhook = start_webhook()
    serial = served_serial(webhook)
    (webhook.certificates / "..data" / "tls.key").write_text("no key")
    wait_until(lambda: "certificate not usable" in webhook.process.log.read_text(), "complaint")
    assert served_serial(webhook) == serial
    assert webhook.is_ready()


def test_clients_that_name_the_server_by_address_or_by_name_or_speak_tls_1_2_are_served(
    start_webhook: StartWebhook,
) -> None:
    webhook = start_webhook()
    assert webhook.admit(make_review(make_pod()))["allowed"] is True  # by address: no SNI
    context = ssl.create_default_context(cafile=str(webhook.authority.certificate))
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    connection = http.client.HTTPSConnection("127.0.0.1", webhook.port, context=context, timeout=5)
    connection.connect()
    plain = connection.sock
    assert isinstance(plain, ssl.SSLSocket)
    assert plain.version() == "TLSv1.2"
    connection.close()
    named = ssl.create_default_context(cafile=str(webhook.authority.certificate))
    with contextlib.closing(http.client.HTTPSConnection("127.0.0.1", webhook.port, timeout=5)) as raw:
        http.client.HTTPConnection.connect(raw)
        assert raw.sock is not None
        with named.wrap_socket(raw.sock, server_hostname="network-webhook.network.svc") as secure:
            assert secure.version() == "TLSv1.3"


def test_tls_1_1_is_refused(start_webhook: StartWebhook) -> None:
    webhook = start_webhook()
    context = ssl.create_default_context(cafile=str(webhook.authority.certificate))
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    connection = http.client.HTTPSConnection("127.0.0.1", webhook.port, context=context, timeout=5)
    with contextlib.closing(connection), pytest.raises(ssl.SSLError, match=r"PROTOCOL_VERSION|EOF"):
        connection.connect()


def test_sigterm_first_ends_readiness_then_drains_without_a_failed_request(start_webhook: StartWebhook) -> None:
    webhook = start_webhook(EDGEFARM_WEBHOOK_DRAIN="4s")
    slow = webhook.connect()
    slow.putrequest("POST", "/mutate")
    slow.putheader("Content-Type", "application/json")
    slow.putheader("Content-Length", str(len(_BODY)))
    with Load(webhook) as load:
        load.wait_for_more(20)
        slow.endheaders(_BODY[:100])
        webhook.process.signal(signal.SIGTERM)
        wait_until(lambda: webhook.get("/readyz") == (503, "shutting down\n"), "end of readiness")
        assert webhook.get("/healthz")[0] == 200
        load.wait_for_more(20)  # an API server that has not noticed yet is still served
    assert load.failures == []
    # A request that had begun before the listener closed is answered after it.
    wait_until(lambda: not _connects(webhook), "closed listener")
    slow.send(_BODY[100:])
    response = slow.getresponse()
    assert response.status == 200
    assert response.getheader("connection") == "close"
    response.read()
    slow.close()
    assert webhook.process.wait(10) == 0


def test_sigterm_ends_in_time_although_a_request_never_ends(start_webhook: StartWebhook) -> None:
    webhook = start_webhook()
    hanging = webhook.connect()
    hanging.putrequest("POST", "/mutate")
    hanging.putheader("Content-Type", "application/json")
    hanging.putheader("Content-Length", "1000")
    hanging.endheaders(b"{")
    webhook.process.signal(signal.SIGTERM)
    assert webhook.process.wait(15) == 0
    hanging.close()


def test_sigterm_does_not_wait_for_idle_connections(start_webhook: StartWebhook) -> None:
    webhook = start_webhook()
    with contextlib.closing(webhook.connect()) as idle:
        idle.request("POST", "/mutate", _BODY, {"Content-Type": "application/json"})
        idle.getresponse().read()
        webhook.process.signal(signal.SIGTERM)
        assert webhook.process.wait(4.5) == 0


def test_a_port_that_is_taken_is_said_in_the_log_and_ends_the_process(
    start_webhook: StartWebhook, webhook: Webhook
) -> None:
    with pytest.raises(StartError) as error:
        start_webhook(EDGEFARM_WEBHOOK_HEALTH_PORT=str(webhook.health_port)).process.wait(10)
    assert "address already in use" in str(error.value)
    assert "Traceback" not in str(error.value)


def test_replicas_share_an_address_and_each_says_at_its_own_whether_it_is_ready(start_webhook: StartWebhook) -> None:
    first, own = start_webhook(), "127.0.0.2"
    ports = {"EDGEFARM_WEBHOOK_PORT": first.port, "EDGEFARM_WEBHOOK_HEALTH_PORT": first.health_port}
    texts = {name: str(port) for name, port in ports.items()}
    started = start_webhook(wait=False, EDGEFARM_WEBHOOK_HEALTH_HOST=own, **texts)
    second = dataclasses.replace(started, port=first.port, health_port=first.health_port, health_host=own)
    second.process.wait_until(second.is_ready, "ready")
    assert first.is_ready()
    assert first.process.stop() == 0
    assert not first.is_ready()
    assert second.is_ready()
    assert second.admit(make_review(make_pod()))["allowed"] is True


def test_the_wrong_environment_is_named_variable_by_variable() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "webhook"],
        env={"EDGEFARM_VAULT_ADDR": "vault:8200", "EDGEFARM_WEBHOOK_PORT": "none"},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert ended.returncode == 2
    lines = ended.stderr.splitlines()
    for variable in (
        "EDGEFARM_VAULT_ADDR",
        "EDGEFARM_WEBHOOK_PORT",
        "EDGEFARM_SIDECAR_IMAGE",
        "EDGEFARM_NATS_URL",
    ):
        assert [line for line in lines if line.startswith(f"webhook: {variable} ")]
    assert len(lines) == 4


@pytest.fixture
def certificate_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "mounted"
    folder.mkdir()
    return folder


def test_each_loaded_certificate_is_reported_once_with_its_end(certificate_folder: Path, authority: Authority) -> None:
    ends: list[datetime] = []
    certificates = Certificates(certificate_folder, structlog.get_logger(), ends.append)
    assert not certificates.refresh()
    install_certificate(authority, certificate_folder, f"first-{certificate_folder.parent.name}")
    assert certificates.refresh()
    assert not certificates.refresh()
    assert certificates.loaded
    [end] = ends
    assert end > datetime.now(UTC)


def test_a_key_that_does_not_match_is_not_used(certificate_folder: Path, authority: Authority) -> None:
    certificates = Certificates(certificate_folder, structlog.get_logger())
    install_certificate(authority, certificate_folder, f"half-{certificate_folder.parent.name}")
    other = pki.issue(authority.pair, ["other"], now=datetime.now(UTC), lifetime=timedelta(days=1))
    (certificate_folder / "tls.key").write_bytes(other.private_key)
    assert not certificates.refresh()
    assert not certificates.loaded


def _connects(webhook: Webhook) -> bool:
    try:
        with contextlib.closing(webhook.connect(timeout=1)) as connection:
            connection.connect()
    except OSError:
        return False
    return True
