"""The webhook's certificate: loaded from a mounted folder and exchanged while requests are served."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Final

import structlog
from cryptography import x509

from webhook import mounted


class Certificates:
    """Keeps an SSLContext whose certificate follows `tls.crt` and `tls.key` in `folder`.

    A new pair is loaded into a context of its own and handshakes are pointed at it only when it is complete and
    matches; a pair that cannot be loaded leaves the former one in force. Connections keep the certificate they began
    with, so an exchange closes nothing.
    """

    def __init__(
        self,
        folder: Path,
        log: structlog.stdlib.BoundLogger,
        on_load: Callable[[datetime], None] = lambda _not_after: None,
    ) -> None:
        """`on_load` is told the end (UTC) of each certificate that is put into use."""
        self._certificate = folder / "tls.crt"
        self._key = folder / "tls.key"
        self._log = log
        self._on_load = on_load
        self._seen: object = None
        self._current: ssl.SSLContext | None = None
        #: Give this one to the server: its handshakes always use the newest certificate.
        self.context: Final = _server_context()
        self.context.sni_callback = self._use_current

    @property
    def loaded(self) -> bool:
        """Whether there is a certificate to serve."""
        return self._current is not None

    def refresh(self) -> bool:
        """Load the files if they changed since the last look; whether a new certificate came into use."""
        stamp = mounted.stamp(self._certificate, self._key)
        if stamp == self._seen:
            return False
        self._seen = stamp
        if stamp is None:
            self._log.warning("waiting for the certificate", folder=str(self._certificate.parent))
            return False
        context = _server_context()
        try:
            context.load_cert_chain(self._certificate, self._key)
            not_after = x509.load_pem_x509_certificates(self._certificate.read_bytes())[0].not_valid_after_utc
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            self._log.error("certificate not usable", error=type(error).__name__, kept_former=self.loaded)
            return False
        self._current = context
        self._on_load(not_after)
        self._log.info("certificate loaded", not_after=not_after.isoformat())
        return True

    def _use_current(
        self, connection: ssl.SSLObject | ssl.SSLSocket, _server_name: str | None, _context: ssl.SSLContext
    ) -> None:
        # OpenSSL calls this for every handshake, also for clients that send no server name (addressed by IP).
        if self._current is not None:
            connection.context = self._current


def _server_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
