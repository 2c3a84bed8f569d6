"""The courier: the one XMPP connection of a host, and how its web workers hand it stanzas.

The stanzas of the contract are built here, purely. The courier's process speaks XMPP; a worker's `CourierClient` asks
it over a Unix socket, one JSON object a line: `{"id": 1, "stanza": "<iq …/>"}`, answered by `{"id": 1, "sent": true}`.
What others ask of us is answered by a function that the process is handed (`media_gallery.xmpp`).
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import re
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from xml.etree import ElementTree as ET
from xml.sax.saxutils import quoteattr

import structlog

from media_gallery.errors import BadRequest, Unavailable

log = structlog.get_logger()
HTTP_AUTH = "http://jabber.org/protocol/http-auth"
"""Namespace of XEP-0070."""
SENT_WITHIN = 4.0
"""Seconds until a stanza that the server has not confirmed counts as not sent; a web client waits 5."""
FRAME = 64 * 1024
KEEPALIVE = 60.0
CONNECT_WITHIN = 20.0
_UNWRITABLE = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What is no character of XML 1.0 (section 2.2)."""
AT_ONCE = 32
"""Stanzas that are answered at the same time."""
ANSWERED_WITHIN = 20.0
"""Seconds after which whoever asked gets no answer any more."""
PAUSES = (0.5, 1.0, 2.0, 5.0, 10.0)
"""Seconds before each next try to connect."""

# --- Stanzas -----------------------------------------------------------------------------------------------------


def _confirm(parent: ET.Element, code: str, url: str) -> None:
    ET.SubElement(parent, "confirm", {"xmlns": HTTP_AUTH, "id": code, "method": "POST", "url": url})


def _written(stanza: ET.Element) -> str:
    """The stanza's text. Raises BadRequest for what XML cannot say: a server closes the stream that it comes on."""
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
    """Hands stanzas to the XMPP server; `jid` is the address they come from."""

    @property
    def jid(self) -> str: ...

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    async def check(self) -> None:
        """Raises Unavailable without a connection, before anything is done for a stanza."""

    async def send(self, stanza: str) -> None:
        """Returns when the XMPP server has taken the stanza. Raises Unavailable, at once without a connection."""


class LogCourier:
    """Development without an XMPP server: what would be sent is written to the log."""

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
    """A worker's line to the courier of its host; opened with the first stanza, and again after it broke.

    `path` is its socket; where there is none, nothing can be sent.
    """

    def __init__(self, path: Path | None, jid: str) -> None:
        self.path, self._jid = path, jid
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[bool]] = {}
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None
        self._opening = asyncio.Lock()

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
                writer = await self._open()
                writer.write(json.dumps({"id": number, "stanza": stanza}).encode() + b"\n")
                await writer.drain()
                sent = await answer
        except OSError:  # a TimeoutError too
            sent = False
        finally:
            self._waiting.pop(number, None)
        if not sent:
            raise Unavailable("The XMPP server cannot be reached right now")

    async def _open(self) -> asyncio.StreamWriter:
        async with self._opening:
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


# --- The courier's process ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class XmppConfig:
    """How to connect: as a component where there is a secret for one, else as a client account."""

    jid: str
    password: str = ""
    host: str = ""
    port: int = 5222
    tls: str = "required"
    ca_file: Path | None = None
    component_host: str = "127.0.0.1"
    component_port: int = 5347
    component_secret: str = ""


Answer = Callable[[ET.Element], Awaitable[str | None]]
"""Gives the answer to an IQ of type get or set; None where there is none to give. Raises nothing."""


async def run_courier(config: XmppConfig, path: Path, answer: Answer) -> None:
    """Stay connected, and serve the workers of this host at a Unix socket, until cancelled."""
    courier = _Courier(config, answer)
    path.unlink(missing_ok=True)  # noqa: ASYNC240, before anything runs
    before = os.umask(0o177)
    try:
        server = await asyncio.start_unix_server(courier.serve, str(path), limit=FRAME)
    finally:
        os.umask(before)
    async with server:
        await courier.stay_connected()


class _Courier:
    """Holds the session, passes stanzas into it."""

    def __init__(self, config: XmppConfig, answer: Answer) -> None:
        self.config, self.answer = config, answer
        self._session: Any = None
        """The stream, while it is of use."""
        self._started, self._lost = asyncio.Event(), asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One worker's connection; its stanzas are sent in the order they come, and confirmed as they are."""
        tasks: set[asyncio.Task[None]] = set()

        async def answer(number: int, stanza: str) -> None:
            writer.write(json.dumps({"id": number, "sent": await self.send(stanza)}).encode() + b"\n")

        try:
            while line := await reader.readline():
                asked = json.loads(line)
                task = asyncio.create_task(answer(asked["id"], asked["stanza"]))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
        except (OSError, ValueError, KeyError) as error:
            log.warning("a worker's line broke", reason=str(error))
        finally:
            for task in tasks:
                task.cancel()
            writer.close()

    async def send(self, stanza: str) -> bool:
        """Whether the server has taken the stanza: it has, once it answers a ping that was sent behind it.

        An empty one asks for the connection alone.
        """
        session = self._session
        if session is None or not stanza:
            return session is not None
        try:
            session.send_raw(self._addressed(stanza))
            await self._ping(session)
        except Exception as error:  # slixmpp raises what its transport does
            log.warning("a stanza was not taken", reason=repr(error))
            self._lost.set()
            return False
        return session is self._session

    def _addressed(self, stanza: str) -> str:
        """A component names itself in what it sends (XEP-0114, section 3); a client is named by its server."""
        if not self.config.component_secret:
            return stanza
        name, _, rest = stanza.partition(" ")
        return f"{name} from={quoteattr(self.config.jid)} {rest}"

    async def _ping(self, session: Any) -> None:
        """Raises TimeoutError, or IqTimeout, where no answer comes."""
        from slixmpp.exceptions import IqError

        sender = session.boundjid if self.config.component_secret else None
        ping = session.plugin["xep_0199"].send_ping(session.boundjid.bare, ifrom=sender, timeout=SENT_WITHIN)
        answer, lost = asyncio.ensure_future(ping), asyncio.ensure_future(self._lost.wait())
        try:
            await asyncio.wait([answer, lost], timeout=SENT_WITHIN, return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                raise TimeoutError
            with suppress(IqError):  # a refusal is an answer
                answer.result()
        finally:
            answer.cancel()
            lost.cancel()

    async def stay_connected(self) -> None:
        """Connect, and again whenever the connection is lost, more and more patiently while it fails."""
        stream, failures = self._stream(), 0
        try:
            while True:
                if await self._hold(stream):
                    failures = 0
                pause = PAUSES[min(failures, len(PAUSES) - 1)]
                failures += 1
                await asyncio.sleep(pause * random.uniform(0.8, 1.2))  # noqa: S311, spreads hosts, guards nothing
        finally:
            await stream.disconnect()

    def _stream(self) -> Any:
        stream = _new_stream(self.config)
        _Answering(self.answer, stream, lambda: self._started.is_set() and not self._lost.is_set())
        stream.add_event_handler("session_start", lambda _: self._started.set())
        stream.add_event_handler("failed_auth", lambda _: log.error("the XMPP server refuses our password"))
        stream.add_event_handler("disconnected", lambda _: self._lost.set())
        # Every address failed; slixmpp would try again by itself from here on, but at its own pace.
        stream.add_event_handler("reconnect_delay", lambda _: self._lost.set())
        return stream

    async def _hold(self, stream: Any) -> bool:
        """One session from its beginning to its end; whether it came to be."""
        self._started, self._lost = asyncio.Event(), asyncio.Event()
        try:
            stream.connect(*_address(self.config))
            await self._first(self._started, self._lost, within=CONNECT_WITHIN)
            if not self._started.is_set():
                log.warning("no connection to the XMPP server", jid=self.config.jid)
                return False
            if not self.config.component_secret:
                stream.send_presence(ppriority=-1)  # reachable at its full JID, but no message of people comes to it
            self._session = stream
            log.info("connected to the XMPP server", jid=self.config.jid)
            while not self._lost.is_set():
                await self._first(self._lost, within=KEEPALIVE)
                if not self._lost.is_set():
                    await self._keep_alive(stream)
            log.warning("the connection to the XMPP server was lost", jid=self.config.jid)
            return True
        finally:
            self._session = None
            stream.cancel_connection_attempt()
            stream.abort()

    async def _keep_alive(self, session: Any) -> None:
        try:
            await self._ping(session)
        except Exception as error:  # as in `send`
            log.warning("the XMPP server does not answer", reason=repr(error))
            self._lost.set()

    @staticmethod
    async def _first(*events: asyncio.Event, within: float) -> None:
        """Return when one of the events has happened, or `within` seconds have passed."""
        waits = [asyncio.create_task(event.wait()) for event in events]
        await asyncio.wait(waits, timeout=within, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()


class _Answering:
    """Answers what is asked over a stream, each within a bounded time, and a bounded number of them at once."""

    def __init__(self, answer: Answer, stream: Any, is_open: Callable[[], bool]) -> None:
        self.answer, self.stream, self.is_open = answer, stream, is_open
        self._waiting: deque[ET.Element] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._starting = False
        # slixmpp hands each stanza to this method of its own. To build an object of its classes from one, and to look
        # for what they match, takes longer than the answer.
        self._others, stream._spawn_event = stream._spawn_event, self._take

    def _take(self, xml: ET.Element) -> None:
        if not (xml.tag.endswith("}iq") and xml.get("type") in ("get", "set")):
            self._others(xml)
            return
        self._waiting.append(xml)
        self._start()

    def _start(self) -> None:
        """Have one more task answer, which runs when those before it wait for something, or have ended."""
        if not self._starting and len(self._tasks) < AT_ONCE:
            self._starting = True
            task = asyncio.create_task(self._answer_all())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _answer_all(self) -> None:
        """Answer one after the other, until none waits."""
        self._starting = False
        while self._waiting:
            xml = self._waiting.popleft()
            if self._waiting:
                self._start()
            try:
                async with asyncio.timeout(ANSWERED_WITHIN):
                    answer = await self.answer(xml)
                if answer is not None and self.is_open():
                    self.stream.send_raw(answer)
            except Exception as error:  # whatever it is, the next ones are answered
                log.error("a stanza was not answered", reason=repr(error))


def _address(config: XmppConfig) -> tuple[str, int] | tuple[()]:
    """Where to connect; () leaves it to DNS (SRV records of the JID's domain)."""
    if config.component_secret:
        return (config.component_host, config.component_port)
    return (config.host, config.port) if config.host else ()


def _new_stream(config: XmppConfig) -> Any:
    """A slixmpp stream that has not connected yet."""
    from slixmpp import ClientXMPP, ComponentXMPP

    if config.component_secret:
        session: Any = ComponentXMPP(config.jid, config.component_secret, fix_error_ns=True)
    else:
        session = ClientXMPP(config.jid, config.password)
        session.ca_certs = config.ca_file
        if config.tls == "off":
            session.enable_starttls = session.enable_direct_tls = False
            session.enable_plaintext = True
            session.plugin["feature_mechanisms"].unencrypted_scram = True
    session.register_plugin("xep_0199")
    return session
