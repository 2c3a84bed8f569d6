"""Log lines, for people or for programs: one shape for ours and for the libraries'."""

from __future__ import annotations

import logging
import sys
from typing import Any

import structlog

from media_gallery.settings import Settings

_QUIET = ("slixmpp", "asyncio", "alembic", "av", "PIL", "_granian")


def set_up(settings: Settings) -> None:
    """Log to standard error as the settings say."""
    level = getattr(logging, settings.log_level.upper())
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if settings.log_format == "json":
        renderer: list[Any] = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    else:
        renderer = [
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(),
                exception_formatter=structlog.dev.plain_traceback,  # not the default one: it prints local variables
            )
        ]
    structlog.configure(
        processors=[structlog.processors.add_log_level, *shared[:1], *shared[2:], *renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(level, logging.INFO))
    for name in _QUIET:  # what they say below warnings is for their developers, and may hold what must not be logged
        logging.getLogger(name).setLevel(logging.WARNING)
