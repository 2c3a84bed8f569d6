"""Log lines, for people or for programs, in the same shape for ours and for those of libraries."""

from __future__ import annotations

import io
import logging
import os
import sys
from contextlib import suppress
from select import PIPE_BUF
from typing import Any, TextIO, cast

import structlog

from media_gallery.settings import Settings

_QUIET = ("slixmpp", "asyncio", "alembic", "av", "PIL", "_granian")

_LONG = 2000
"""Characters of each text that are kept if a line is too long."""


class _WholeLines(io.TextIOBase):
    """Standard error, written one line at a time: workers share it, and each write stays in one piece.

    If the disk has no room for the log, no request fails.
    """

    def write(self, line: str) -> int:
        with suppress(OSError):
            os.write(2, line.encode(errors="backslashreplace"))
        return len(line)


def _fitting(render: Any) -> Any:
    """Shorten lines to what a pipe takes in one piece (POSIX, `write`): cut the ends of long texts, but the beginning
    of a traceback.
    """

    def rendered(logger: Any, method: str, event: dict[str, Any]) -> str:
        line, most = render(logger, method, dict(event)), _LONG
        while len(line.encode(errors="backslashreplace")) >= PIPE_BUF and most:
            line = render(logger, method, {name: _cut(name, value, most) for name, value in event.items()})
            most //= 2
        return str(line)

    return rendered


def _cut(name: str, value: Any, most: int) -> Any:
    text = value if isinstance(value, str) else repr(value)
    if len(text) <= most:
        return value
    return f"… {text[-most:]}" if name == "exception" else f"{text[:most]} …"


def set_up(settings: Settings) -> None:
    """Log to standard error as the settings say."""
    level = getattr(logging, settings.log_level.upper())
    shared: list[Any] = [
        structlog.processors.add_log_level,
        structlog.contextvars.merge_contextvars,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    render: Any = structlog.processors.JSONRenderer()
    if settings.log_format == "text":
        plain = structlog.dev.plain_traceback  # the default one prints local variables
        render = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain)
    renderer, lines = [structlog.processors.format_exc_info, _fitting(render)], cast(TextIO, _WholeLines())
    structlog.configure(
        processors=[*shared, *renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(lines),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(lines)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(level, logging.INFO))
    for name in _QUIET:  # their lines below warnings may hold what must not be logged
        logging.getLogger(name).setLevel(logging.WARNING)
