"""Structured logs of every program: JSON lines on stderr, one logger set-up, secrets masked as a last defence."""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Any, cast

import structlog

from edgefarm.secrets import mask_secrets


def configure_logging(program: str, level: str = "info") -> structlog.stdlib.BoundLogger:
    """Send structlog and the standard library's logging to stderr as JSON lines; return the program's logger."""
    numeric = getattr(logging, level.upper(), logging.INFO)
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        _mask_event,
    ]
    structlog.configure(
        processors=[*shared, structlog.processors.JSONRenderer()],
        wrapper_class=structlog.make_filtering_bound_logger(numeric),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    # Libraries speak at warning: their info lines are about themselves, not about our users' objects.
    root.setLevel(max(numeric, logging.WARNING))
    # asyncio warns whenever a peer ends a TLS connection ("eof_received"); its errors are what matters.
    logging.getLogger("asyncio").setLevel(logging.ERROR)
    return cast(structlog.stdlib.BoundLogger, structlog.get_logger().bind(program=program))


def _mask_event(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for key, value in event.items():
        if isinstance(value, str):
            event[key] = mask_secrets(value)
        elif isinstance(value, BaseException):
            event[key] = mask_secrets(str(value))
    return event
