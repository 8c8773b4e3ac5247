"""What pods verify servers against follows the file that is mounted into the webhook."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import jsonpatch
import pytest
from structlog.testing import CapturingLogger

from edgefarm import pki
from localcluster.stack import Authority
from tests.webhook.conftest import StartWebhook, Webhook, env_of, make_pod, make_review, patch_of, sidecar_of
from webhook.authorities import Authorities


def other_authority() -> str:
    return pki.make_authority("other", now=datetime.now(UTC), lifetime=timedelta(days=1)).certificate.decode()


def replace(file: Path, text: str) -> None:
    """Exchange the content in one step, as kubelet does."""
    file.with_suffix(".new").write_text(text)
    file.with_suffix(".new").rename(file)


def given_to_pods(webhook: Webhook) -> object:
    """What a pod that is created now is told to verify servers against."""
    pod = make_pod()
    patched = jsonpatch.apply_patch(pod, patch_of(webhook.admit(make_review(pod))))
    return env_of(sidecar_of(patched))["EDGEFARM_CA_BUNDLE"]


def test_pods_get_the_authorities_of_the_day_they_start_on(
    start_webhook: StartWebhook, tmp_path: Path, authority: Authority
) -> None:
    file = tmp_path / "ca.crt"
    file.write_text("")
    webhook = start_webhook(wait=False, EDGEFARM_CA_FILE=str(file))
    waiting = f"EDGEFARM_CA_FILE is {str(file)!r}, which holds no PEM certificates\n"
    webhook.process.wait_until(lambda: webhook.get("/readyz") == (503, waiting), "waiting")
    replace(file, authority.pem)
    webhook.process.wait_until(webhook.is_ready, "ready")
    assert given_to_pods(webhook) == authority.pem
    both = authority.pem + other_authority()
    replace(file, both)
    webhook.process.wait_until(lambda: given_to_pods(webhook) == both, "the new authorities")
    replace(file, "garbage")
    webhook.process.wait_until(lambda: "authorities not usable" in webhook.process.log.read_text(), "complaint")
    assert given_to_pods(webhook) == both
    assert webhook.is_ready()


class Told:
    """Authorities of `file`, and what was told of them."""

    def __init__(self, file: Path | None) -> None:
        self.log = CapturingLogger()
        self.texts: list[str] = []
        self.authorities = Authorities(file, self.log, self.texts.append)  # type: ignore[arg-type]


def test_without_a_file_there_is_nothing_to_wait_for() -> None:
    told = Told(None)
    assert told.authorities.loaded
    assert not told.authorities.refresh()
    assert told.texts == []


@pytest.mark.parametrize("what", ["missing", "folder", "garbage", "other letters"])
def test_a_file_without_certificates_is_complained_of_once_until_it_has_some(
    what: str, tmp_path: Path, authority: Authority
) -> None:
    file = tmp_path / "ca.crt"
    match what:
        case "folder":
            file.mkdir()
        case "garbage":
            file.write_text("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n")
        case "other letters":
            file.write_text(f"ü{authority.pem}")
    told = Told(file)
    assert not told.authorities.refresh()
    assert not told.authorities.refresh()
    assert not told.authorities.loaded
    assert told.authorities.problem.startswith(f"EDGEFARM_CA_FILE is {str(file)!r}, which ")
    assert [call.method_name for call in told.log.calls] == ["error"]
    if what == "folder":
        file.rmdir()
    replace(file, authority.pem)
    assert told.authorities.refresh()
    assert (told.authorities.loaded, told.authorities.problem) == (True, "")
    assert told.texts == [authority.pem]


def test_a_file_that_goes_away_takes_nothing_with_it(tmp_path: Path, authority: Authority) -> None:
    file = tmp_path / "ca.crt"
    file.write_text(authority.pem)
    told = Told(file)
    assert told.authorities.refresh()
    file.unlink()
    assert not told.authorities.refresh()
    assert told.authorities.loaded
    assert told.texts == [authority.pem]
    file.write_text(authority.pem)
    assert told.authorities.refresh()
