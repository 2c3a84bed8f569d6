"""Dates, times and sizes as people and clients write them: on the wire, in settings, on the command line.

Inside the service a moment is microseconds since 1970, a duration seconds, a size bytes.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from pydantic import ByteSize, TypeAdapter, ValidationError

LAST = 2**63 - 1
"""The latest moment, in microseconds: the largest number that databases take."""
_DATE = re.compile(r"([+-]?\d{4,})-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01])(?:[T ].*)?", re.DOTALL)
_UNITS = {
    "s": 1,
    "sec": 1,
    "second": 1,
    "min": 60,
    "minute": 60,
    "h": 3600,
    "hour": 3600,
    "d": 86400,
    "day": 86400,
    "week": 604800,
}
_BYTE_SIZE = TypeAdapter(ByteSize)


def parse_moment(text: str, end: bool) -> int:
    """A date or a time (ISO 8601) -> microseconds; as an `end`, a date means the last moment of that day.

    Raises ValueError, OverflowError. Years that Python does not know become the latest or the earliest moment.
    """
    text = text.strip()
    far = _DATE.fullmatch(text)
    if far and not 1 <= int(far[1]) <= 9999:
        return LAST if int(far[1]) > 0 else -LAST
    try:
        moment = datetime.combine(date.fromisoformat(text), time.max if end else time.min, UTC)
    except ValueError:
        # COMPAT: clients that do not encode the + of a time zone send a space
        head, tail = text[:11], text[11:].replace(" ", "+")
        moment = datetime.fromisoformat(head + tail)
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def iso(microseconds: int) -> str:
    """ISO 8601 in UTC with microseconds, as the contract writes times."""
    whole, part = divmod(microseconds, 1_000_000)
    return f"{datetime.fromtimestamp(whole, UTC).isoformat()[:19]}.{part:06d}Z"


def parse_seconds(value: Any) -> Any:
    """`10 min`, `30 days`, `90` (seconds) -> seconds. Raises ValueError. Other types pass unchanged."""
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", value.strip().lower())
    unit = match and (_UNITS.get(match[2] or "s") or _UNITS.get(match[2].removesuffix("s")))
    if not match or not unit:
        raise ValueError("must be a time such as 90, 10 min, 12 h or 30 days")
    return float(match[1]) * unit


def parse_bytes(value: Any) -> int:
    """`100 MiB`, `2GB`, `4096` (bytes) -> bytes. Raises ValueError."""
    try:
        size = int(_BYTE_SIZE.validate_python(value))
    except ValidationError:
        size = -1
    if not 0 <= size < 2**63:
        raise ValueError("must be a size such as 4096, 100 MiB or 2 GB")
    return size


def readable(size: int) -> str:
    """A size for people: `1.5 MiB`."""
    value, unit = float(size), "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024 or unit == "TiB":
            break
        value /= 1024
    return f"{size} B" if unit == "B" else f"{value:.1f} {unit}"
