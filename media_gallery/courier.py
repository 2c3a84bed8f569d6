"""How a web worker sends stanzas: the courier's process holds the host's one XMPP connection (`connection.py`).

The stanzas of the contract are built here. A worker's `CourierClient` asks that process over a Unix socket, one
JSON object a line: `{"id": 1, "stanza": "<iq …/>"}`, answered by `{"id": 1, "sent": true}`.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import re
from pathlib import Path
from typing import Protocol
from xml.etree import ElementTree as ET

import structlog

from media_gallery.errors import BadRequest, Unavailable

log = structlog.get_logger()
HTTP_AUTH = "http://jabber.org/protocol/http-auth"
"""Namespace of XEP-0070."""
SENT_WITHIN = 4.0
"""Seconds after which a stanza counts as not sent if the server has not confirmed it; a web client waits 5."""
FRAME = 64 * 1024
_UNWRITABLE = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 does not have (section 2.2)."""

# --- Stanzas -----------------------------------------------------------------------------------------------------


def _confirm(parent: ET.Element, code: str, url: str) -> None:
    ET.SubElement(parent, "confirm", {"xmlns": HTTP_AUTH, "id": code, "method": "POST", "url": url})


def _written(stanza: ET.Element) -> str:
    """The stanza's text. Raises BadRequest for characters that XML does not have: servers close the stream for them."""
    text = ET.tostring(stanza, "unicode")
    if _UNWRITABLE.search(text):
        raise BadRequest(
            "This cannot be sent over XMPP", fields={"jid": "must hold no character that XML does not have"}
        )
    return text


def code_iq(to: str, request_id: str, code: str, url: str) -> str:
    """The one-time code as a request (XEP-0070, section 4; contract, "The one-time code")."""
    iq = ET.Element("iq", {"type": "get", "to": to, "id": request_id})
    _confirm(iq, code, url)
    return _written(iq)


def code_message(to: str, request_id: str, code: str, url: str, body: str, language: str) -> str:
    """The one-time code as a message to a person, which no server copies or keeps (XEP-0280, XEP-0334)."""
    message = ET.Element("message", {"type": "chat", "to": to, "id": request_id, "xml:lang": language})
    ET.SubElement(message, "body").text = body
    _confirm(message, code, url)
    ET.SubElement(message, "private", {"xmlns": "urn:xmpp:carbons:2"})
    for hint in ("no-store", "no-copy"):
        ET.SubElement(message, hint, {"xmlns": "urn:xmpp:hints"})
    return _written(message)


# --- The worker's side -------------------------------------------------------------------------------------------


class Courier(Protocol):
    """Hands stanzas to the XMPP server; `jid` is their sender."""

    @property
    def jid(self) -> str: ...

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    async def check(self) -> None:
        """Raise Unavailable if there is no connection, before work is done for a stanza."""

    async def send(self, stanza: str) -> None:
        """Return once the XMPP server has the stanza. Raises Unavailable, at once if there is no connection."""


class LogCourier:
    """For development without an XMPP server: writes codes to the log instead of sending them."""

    jid = "gallery.invalid"

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    async def check(self) -> None: ...

    async def send(self, stanza: str) -> None:
        element = ET.fromstring(stanza)  # noqa: S314, made by the functions above
        confirm = element.find(f"{{{HTTP_AUTH}}}confirm")
        code = confirm.get("id") if confirm is not None else None
        log.warning("DEVELOPMENT MODE: one-time code", jid=element.get("to"), code=code)


class CourierClient:
    """A worker's connection to the courier of its host; made for the first stanza, and anew if it broke.

    `path` is the courier's socket; if it is None, nothing can be sent.
    """

    def __init__(self, path: Path | None, jid: str) -> None:
        self.path, self._jid = path, jid
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[bool]] = {}
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None
        self._connecting = asyncio.Lock()

    @property
    def jid(self) -> str:
        return self._jid

    async def start(self) -> None: ...

    async def close(self) -> None:
        if self._reading:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)

    async def check(self) -> None:
        await self.send("")

    async def send(self, stanza: str) -> None:
        number, answer = next(self._ids), asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        try:
            async with asyncio.timeout(SENT_WITHIN + 0.5):
                writer = await self._connect()
                writer.write(json.dumps({"id": number, "stanza": stanza}).encode() + b"\n")
                await writer.drain()
                sent = await answer
        except OSError:  # a TimeoutError too
            sent = False
        finally:
            self._waiting.pop(number, None)
        if not sent:
            raise Unavailable("The XMPP server cannot be reached right now")

    async def _connect(self) -> asyncio.StreamWriter:
        async with self._connecting:
            if self._writer is None:
                if self.path is None:
                    raise ConnectionRefusedError("no courier was started")
                reader, self._writer = await asyncio.open_unix_connection(str(self.path), limit=FRAME)
                self._reading = asyncio.create_task(self._read(reader, self._writer))
            return self._writer

    async def _read(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                answer = json.loads(line)
                waiting = self._waiting.get(answer["id"])
                if waiting and not waiting.done():
                    waiting.set_result(answer["sent"])
        except (OSError, ValueError) as error:
            log.warning("the line to the courier broke", reason=str(error))
        finally:
            writer.close()
            self._writer = None
            for waiting in self._waiting.values():
                if not waiting.done():
                    waiting.set_result(False)
