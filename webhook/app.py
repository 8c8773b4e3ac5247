"""The webhook's two applications: `POST /mutate` for the API server, and health and metrics for the kubelet."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from typing import Final

import structlog

from edgefarm.errors import InvalidReview
from webhook import review
from webhook.decision_log import DecisionLog
from webhook.http1 import Limits, Request, Response, sentence
from webhook.metrics import Metrics
from webhook.settings import Injection

#: The API server takes objects of up to 3 MiB; the rest is for the review around it.
MAX_BODY: Final = 3 * 2**20 + 2**18
ADMISSION_LIMITS: Final = Limits(body=MAX_BODY)
HEALTH_LIMITS: Final = Limits(body=0, discarded=0)
_METRICS_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


class AdmissionApplication:
    """Answers the API server."""

    def __init__(
        self, settings: Injection, metrics: Metrics, decisions: DecisionLog, log: structlog.stdlib.BoundLogger
    ) -> None:
        #: What goes into pods from the next request on: replace it where it changes.
        self.settings = settings
        self._metrics, self._decisions, self._log = metrics, decisions, log

    def handle(self, request: Request) -> Response:
        """Decide about one AdmissionReview."""
        if request.path != "/mutate":
            return _nothing_here()
        if request.method != "POST":
            return _wrong_method("POST")
        started = time.perf_counter()
        try:
            admission = review.read(request.body, request.headers.get(b"content-type", b"").decode("latin-1"))
            answer = review.answer(admission, self.settings)
        except InvalidReview as error:
            self.refused(error.status, str(error))
            return sentence(error.status, str(error))
        except Exception as error:  # noqa: BLE001 - the request boundary
            # A mistake of ours costs one answer, never the process. Only the exception's type is logged: its text may
            # quote the pod.
            self._metrics.admitted("failed", type(error).__name__)
            self._log.error("request failed", error=type(error).__name__, at=_where(error))
            return sentence(500, "the webhook failed; its log says where")
        seconds = time.perf_counter() - started
        outcome, reason = type(answer.decision).__name__.lower(), answer.decision.reason.value
        self._metrics.admitted(outcome, reason, seconds)
        self._decisions.add(admission, outcome, answer.decision, seconds)
        return Response(200, review.CONTENT_TYPE, answer.body)

    def refused(self, status: int, text: str) -> None:
        """Count and log a request that is no AdmissionReview, or not even one of HTTP."""
        self._metrics.admitted("refused", str(status))
        self._log.warning("request refused", status=status, problem=text)


class HealthApplication:
    """Health and metrics in plain HTTP; `why_not_ready` returns None or why the webhook is not ready."""

    def __init__(self, metrics: Metrics, why_not_ready: Callable[[], str | None]) -> None:
        self._metrics, self._why_not_ready = metrics, why_not_ready

    def handle(self, request: Request) -> Response:
        """Answer `/healthz`, `/readyz` and `/metrics`."""
        if request.path not in ("/healthz", "/readyz", "/metrics"):
            return _nothing_here()
        if request.method != "GET":
            return _wrong_method("GET")
        if request.path == "/metrics":
            return Response(200, _METRICS_TYPE, self._metrics.render())
        problem = self._why_not_ready() if request.path == "/readyz" else None
        return Response(503 if problem else 200, "text/plain; charset=utf-8", f"{problem or 'ok'}\n".encode())

    def refused(self, status: int, text: str) -> None:
        """Nobody needs to know: this is not the port that decides."""


def _nothing_here() -> Response:
    return sentence(404, "there is nothing at this path")


def _wrong_method(allowed: str) -> Response:
    return sentence(405, "this path does not take this method", f"allow: {allowed}")


def _where(error: Exception) -> str:
    """File and line where an exception was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else ""
