"""Slots of HTTP File Upload (XEP-0363 1.2.0), and of its first version, whose requests and answers differ."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import lru_cache
from xml.etree.ElementTree import Element
from xml.sax.saxutils import escape

from media_gallery import media_types
from media_gallery.errors import BadRequest, GalleryError, TooLarge, TooManyRequests
from media_gallery.models import Jid
from media_gallery.names import clean_name
from media_gallery.slot_tokens import PURPOSES, Purpose
from media_gallery.slots import Wanted
from media_gallery.xmpp.query import Query, Refused, written

UPLOAD, OLD_UPLOAD = "urn:xmpp:http:upload:0", "urn:xmpp:http:upload"
PURPOSE = "urn:xmpp:http:upload:purpose:0"
_SIZE = re.compile(r"\+?0*([1-9][0-9]*)")
"""A positive integer of XML Schema."""
_MOMENT = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.\d+)?(Z|[+-]\d\d:\d\d)", re.ASCII)
"""A time by XEP-0082."""
_LONGEST_NAME, _LONGEST_TYPE = 4096, 255
"""Characters of a name before it is shortened, and of a media type."""
_DIGITS = 30
"""Digits of a size that are read: a number with so many is too large anyway."""


async def request(query: Query) -> str:
    """A slot: where to put the file, with which header, and where it can be fetched afterwards."""
    url, token = await _slot(query, UPLOAD, read)
    header = written("header", f"Bearer {token}", name="Authorization")
    return written("slot", written("put", header, url=url) + written("get", url=url), xmlns=UPLOAD)


async def old_request(query: Query) -> str:
    """The same without headers. COMPAT: Xabber for Android, voice messages of Xabber for the web."""
    url, token = await _slot(query, OLD_UPLOAD, read_old)
    put = written("put", escape(f"{url}?token={token}"))
    return written("slot", put + written("get", escape(url)), xmlns=OLD_UPLOAD)


async def _slot(query: Query, namespace: str, read: Callable[[Element, int], Wanted]) -> tuple[str, str]:
    """The address of a new slot, and the token to put the file there. Neither is stored.

    Raises Refused, with a hint in the namespace.
    """
    services = query.services
    try:
        jid = _sender(query.sender.partition("/")[0])
        wanted = read(query.element, services.clock() // 1_000_000)
        return await services.slots.give(jid, wanted, services.slot_hosts)
    except GalleryError as error:
        raise Refused.by(error, query.language, _hint(error, namespace, services.clock())) from error


@lru_cache(maxsize=1024)
def _sender(bare: str) -> Jid:
    """The JID, remembered: to prepare one takes as long as all other work for a slot."""
    return Jid.parse(bare)


def _hint(error: GalleryError, namespace: str, now: int) -> str:
    """XML that tells a client why it was refused (XEP-0363, section 5)."""
    if isinstance(error, TooLarge):
        largest = written("max-file-size", str(error.details["max_file_size"]))
        return written("file-too-large", largest, xmlns=namespace)
    if isinstance(error, TooManyRequests) and error.retry_after is not None:
        again = datetime.fromtimestamp(now // 1_000_000 + error.retry_after, UTC)
        return written("retry", xmlns=UPLOAD, stamp=f"{again:%Y-%m-%dT%H:%M:%SZ}")
    return ""


def read(asked: Element, now: int) -> Wanted:
    """The file that a request of XEP-0363 names; `now` in seconds since 1970. Raises BadRequest."""
    purpose, expires = _read_purpose(asked, now)
    said = _read(asked.get("filename"), asked.get("size"), asked.get("content-type"))
    return replace(said, purpose=purpose, expires=expires)


def read_old(asked: Element, now: int) -> Wanted:
    """The same from a request of its first version, which has elements instead of attributes. Raises BadRequest."""
    name, size, media_type = (
        asked.findtext(f"{{{OLD_UPLOAD}}}{part}") for part in ("filename", "size", "content-type")
    )
    return _read(name, size, media_type)


def _read(name: str | None, size: str | None, media_type: str | None) -> Wanted:
    if not name or not name.strip() or len(name) > _LONGEST_NAME:
        raise BadRequest(f"The file must have a name, of {_LONGEST_NAME} characters at most")
    digits = _SIZE.fullmatch((size or "").strip())
    if not digits:
        raise BadRequest("The size must be a positive integer, in bytes")
    if not media_type or len(media_type) > _LONGEST_TYPE or media_types.parse(media_type)[0] is None:
        media_type = ""  # a type that says nothing is ignored, as in an upload over HTTP
    return Wanted(clean_name(name), int(digits[1][:_DIGITS]), media_type)


def _read_purpose(asked: Element, now: int) -> tuple[Purpose, int | None]:
    """What the file is for (XEP-0363, section 8), and by when it must be deleted. Raises BadRequest."""
    told = {f"{{{PURPOSE}}}{name}": name for name in PURPOSES}
    said = [child for child in asked if child.tag.startswith(f"{{{PURPOSE}}}")]
    if not said:
        return "message", None
    if len(said) > 1 or said[0].tag not in told:
        raise BadRequest("The purpose must be one of message, profile, ephemeral, permanent")
    end = said[0].get("expire-before")
    return told[said[0].tag], None if end is None else _read_end(end, now)


def _read_end(text: str, now: int) -> int:
    moment = _MOMENT.fullmatch(text.strip())
    try:
        end = int(datetime.fromisoformat(moment[1] + moment[2]).timestamp()) if moment else 0
    except (ValueError, OverflowError):
        end = 0
    if end <= now:
        raise BadRequest("The time before which a file expires must be one to come, such as 2030-01-01T00:00:00Z")
    return end
