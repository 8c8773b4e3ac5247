"""The webhook's two HTTP applications: `/mutate` for the API server, and health and metrics for the kubelet."""

from __future__ import annotations

import asyncio
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from edgefarm.errors import InvalidReview
from webhook import review
from webhook.decide import Decision
from webhook.metrics import Metrics
from webhook.settings import Injection

#: The API server takes objects of up to 3 MiB; the rest is for the review around it.
MAX_BODY: Final = 3 * 2**20 + 2**18
#: What of a larger body is still read and thrown away, so that its sender gets to read our answer.
_MAX_DISCARDED: Final = 16 * 2**20
#: The API server waits at most 30 s for a webhook (and for ours 5): who sends slower is not it.
_BODY_SECONDS: Final = 10.0


@dataclass
class Lifecycle:
    """Where the process is between start and end."""

    draining: bool = False


def admission_app(
    settings: Injection, metrics: Metrics, lifecycle: Lifecycle, log: structlog.stdlib.BoundLogger
) -> Starlette:
    """The application that answers the API server."""

    async def mutate(request: Request) -> Response:
        started = time.perf_counter()
        try:
            admission = review.read(await _read_body(request), request.headers.get("content-type", ""))
            answer = review.answer(admission, settings)
        except InvalidReview as error:
            metrics.admitted("refused", str(error.status), time.perf_counter() - started)
            log.warning("request refused", status=error.status, problem=str(error))
            return _sentence(error.status, str(error))
        except Exception as error:  # noqa: BLE001 - the request boundary
            # A mistake of ours costs one answer, never the process. Only the exception's type is logged: its text may
            # quote the pod.
            metrics.admitted("failed", type(error).__name__, time.perf_counter() - started)
            log.error("request failed", error=type(error).__name__, at=_where(error))  # noqa: TRY400
            return _sentence(500, "the webhook failed; its log says where")
        seconds = time.perf_counter() - started
        metrics.admitted(_outcome(answer.decision), answer.decision.reason, seconds)
        _log_decision(log, admission, answer.decision, seconds)
        # While draining, the API server is asked to open its next connection to another replica.
        headers = {"connection": "close"} if lifecycle.draining else None
        return Response(answer.body, 200, headers, review.CONTENT_TYPE)

    return Starlette(
        routes=[Route("/mutate", mutate, methods=["POST"])], exception_handlers={HTTPException: _http_error}
    )


def health_app(metrics: Metrics, is_ready: Callable[[], str | None]) -> Starlette:
    """Health and metrics in plain HTTP; `is_ready` returns None or why the webhook is not ready."""

    async def healthz(_request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(_request: Request) -> Response:
        problem = is_ready()
        return PlainTextResponse(f"{problem or 'ok'}\n", 503 if problem else 200)

    async def show_metrics(_request: Request) -> Response:
        return Response(metrics.render(), media_type="text/plain; version=0.0.4; charset=utf-8")

    return Starlette(
        routes=[Route("/healthz", healthz), Route("/readyz", readyz), Route("/metrics", show_metrics)],
        exception_handlers={HTTPException: _http_error},
    )


async def _read_body(request: Request) -> bytes:
    """The whole body; raises InvalidReview when it is too large or comes too slowly."""
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            async for chunk in request.stream():
                size += len(chunk)
                if size <= MAX_BODY:
                    chunks.append(chunk)
                elif size > _MAX_DISCARDED:
                    break
    except TimeoutError:
        raise InvalidReview(408, f"the body did not arrive within {_BODY_SECONDS:g} seconds") from None
    except ClientDisconnect:
        raise InvalidReview(400, "the connection ended in the middle of the body") from None
    if size > MAX_BODY:
        raise InvalidReview(413, f"the body is larger than {MAX_BODY} bytes")
    return b"".join(chunks)


def _outcome(decision: Decision) -> str:
    return type(decision).__name__.lower()


def _log_decision(
    log: structlog.stdlib.BoundLogger, admission: review.Request, decision: Decision, seconds: float
) -> None:
    log.info(
        "admission",
        outcome=_outcome(decision),
        reason=decision.reason.value,
        sentence=decision.sentence,
        namespace=admission.namespace,
        pod=admission.name,
        uid=admission.uid[:64],
        dry_run=admission.dry_run,
        milliseconds=round(seconds * 1000, 3),
    )


async def _http_error(_request: Request, error: Exception) -> Response:
    """404 and 405 as one sentence; the router's own texts are a word or two."""
    assert isinstance(error, HTTPException)
    sentences = {404: "there is nothing at this path", 405: "this path does not take this method"}
    return _sentence(error.status_code, sentences.get(error.status_code, error.detail), error.headers)


def _sentence(status: int, sentence: str, headers: Mapping[str, str] | None = None) -> Response:
    # Closing also ends a body that is still being sent.
    return PlainTextResponse(f"{sentence}\n", status, {**(headers or {}), "connection": "close"})


def _where(error: Exception) -> str:
    """File and line where an exception was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else ""
