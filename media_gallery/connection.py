"""The courier's process: it holds the host's one XMPP connection and sends what workers hand it (`courier.py`). What
others ask of us is answered by `media_gallery.xmpp`, which it is given as `Answers`.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import ssl
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol
from xml.etree import ElementTree as ET
from xml.sax.saxutils import quoteattr

import structlog

from media_gallery import metrics
from media_gallery.courier import FRAME, SENT_WITHIN
from media_gallery.models import Jid

log = structlog.get_logger()
KEEPALIVE = 60.0
CONNECT_WITHIN = 20.0
AT_ONCE = 32
"""Stanzas that are answered at the same time."""
WAITING = 8 * 1024 * 1024
"""Bytes of memory for stanzas that are not answered yet, and for answers that the server has not read yet."""
ANSWERED_WITHIN = 20.0
"""Seconds after which a stanza that waits for its answer is refused."""
PAUSES = (0.5, 1.0, 2.0, 5.0)
"""Seconds before the next tries to connect, the last for all further ones. A host that stands by for another one tries
for months.
"""


@dataclass(frozen=True, slots=True)
class XmppConfig:
    """How to connect: as a component if its secret is set, else as a client account."""

    jid: str
    password: str = ""
    host: str = ""
    port: int = 5222
    tls: str = "required"
    ca_file: Path | None = None
    component_host: str = "127.0.0.1"
    component_port: int = 5347
    component_secret: str = ""


class Answers(Protocol):
    """Answers an IQ of type get or set. Neither method raises; None means that no answer is sent."""

    async def answer(self, iq: ET.Element) -> str | None: ...

    def refuse(self, iq: ET.Element) -> str | None:
        """The answer if there is no time or memory for a real one."""


async def run_courier(config: XmppConfig, path: Path, answers: Answers) -> None:
    """Stay connected, and serve the workers of this host at a Unix socket, until cancelled."""
    courier = _Courier(config, answers)
    path.unlink(missing_ok=True)  # noqa: ASYNC240, before anything runs
    before = os.umask(0o177)
    try:
        server = await asyncio.start_unix_server(courier.serve, str(path), limit=FRAME)
    finally:
        os.umask(before)
    async with server:
        await courier.stay_connected()


async def try_connection(config: XmppConfig) -> str | None:
    """Connect once, as the courier does, and leave; None if the server took us, else why it did not."""
    courier = _Courier(config, _Silence())
    return None if await courier.try_once() else courier.reason


class _Silence:
    """Answers nothing."""

    async def answer(self, iq: ET.Element) -> None: ...

    def refuse(self, iq: ET.Element) -> None: ...


class _Courier:
    """Holds the session and sends stanzas over it."""

    def __init__(self, config: XmppConfig, answers: Answers) -> None:
        self.config, self.answers = config, answers
        self._session: Any = None
        """The stream while it is connected, else None."""
        self._started, self._lost = asyncio.Event(), asyncio.Event()
        self.reason = ""
        """Why the last try to connect failed."""
        self._kind = "component" if config.component_secret else "client"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one worker: send its stanzas in the order they come, and confirm each once the server has it."""
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
        """Send a stanza; whether the server has taken it: it has once it answers a ping that was sent after it.

        For an empty stanza: whether there is a connection.
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
        """Wait for the server's answer to a ping. Raises TimeoutError or IqTimeout if none comes."""
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
        """Connect, and connect again when the connection is lost; after each failure, wait longer."""
        stream, failures, told = self._stream(), 0, set[str]()
        metrics.xmpp_connected.labels(self._kind).set(0)
        try:
            while True:
                if await self._hold(stream):
                    failures, told = 0, set()
                elif self.reason not in told:
                    told.add(self.reason)
                    log.warning("no connection to the XMPP server, trying on", jid=self.config.jid, reason=self.reason)
                pause = PAUSES[min(failures, len(PAUSES) - 1)]
                failures += 1
                await asyncio.sleep(pause * random.uniform(0.8, 1.2))  # noqa: S311, spreads hosts, guards nothing
        finally:
            await stream.disconnect()

    def _stream(self) -> Any:
        stream = _new_stream(self.config)
        _Answering(self.answers, stream, lambda: self._started.is_set() and not self._lost.is_set())
        stream.add_event_handler("session_start", lambda _: self._started.set())
        for event in _REASONS:
            stream.add_event_handler(event, partial(self._note, event))
        stream.add_event_handler("disconnected", lambda _: self._lost.set())
        # Every address failed. slixmpp would now try again by itself, but with pauses of its own.
        stream.add_event_handler("reconnect_delay", lambda _: self._lost.set())
        return stream

    def _note(self, event: str, told: Any) -> None:
        self.reason = _REASONS[event](told, self.config)
        if event == "ssl_invalid_chain":  # slixmpp leaves it to us to end the connection
            self._lost.set()

    async def try_once(self) -> bool:
        """Begin a session and end it at once; whether it began, else `reason` tells why not."""
        stream = self._stream()
        try:
            return await self._begin(stream)
        finally:
            stream.cancel_connection_attempt()
            stream.abort()
            await stream.disconnect()

    async def _begin(self, stream: Any) -> bool:
        """Connect and sign in; whether that was done."""
        self._started, self._lost = asyncio.Event(), asyncio.Event()
        self.reason = "it does not answer"
        stream.connect(*_address(self.config))
        await self._first(self._started, self._lost, within=CONNECT_WITHIN)
        return self._started.is_set()

    async def _hold(self, stream: Any) -> bool:
        """Hold one session from its beginning to its end; whether it began."""
        try:
            if not await self._begin(stream):
                return False
            if not self.config.component_secret:
                stream.send_presence(ppriority=-1)  # reachable at its full JID, but messages of people do not come here
            self._session = stream
            metrics.xmpp_connected.labels(self._kind).set(1)
            log.info("connected to the XMPP server", jid=self.config.jid)
            while not self._lost.is_set():
                await self._first(self._lost, within=KEEPALIVE)
                if not self._lost.is_set():
                    await self._keep_alive(stream)
            log.warning("the connection to the XMPP server was lost", jid=self.config.jid)
            return True
        finally:
            self._session = None
            metrics.xmpp_connected.labels(self._kind).set(0)
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
        """Wait until one of the events has happened, or `within` seconds have passed."""
        waits = [asyncio.create_task(event.wait()) for event in events]
        await asyncio.wait(waits, timeout=within, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()


class _Answering:
    """Answers the IQs of a stream. Time, number at once and memory (WAITING) are limited, however many stanzas come and
    however slowly the server reads the answers.
    """

    def __init__(self, answers: Answers, stream: Any, is_connected: Callable[[], bool]) -> None:
        self.answers, self.stream, self.is_connected = answers, stream, is_connected
        self._waiting: deque[tuple[ET.Element, int]] = deque()
        self._ready: list[str] = []
        self._weight = 0
        self._tasks: set[asyncio.Task[None] | None] = set()
        self._starting = False
        # slixmpp calls this method of its own for each stanza. To build its objects from a stanza, and to look for
        # handlers that match, takes it longer than our answer takes.
        self._others, stream._spawn_event = stream._spawn_event, self._take

    def _take(self, xml: ET.Element) -> None:
        if xml.tag.endswith(("}message", "}presence")):
            return  # not for us, and slixmpp would keep every presence for ever
        if not (xml.tag.endswith("}iq") and xml.get("type") in ("get", "set")):
            self._others(xml)
            return
        weight = _weigh(xml)
        if self._weight + weight > WAITING:
            self._send(self.answers.refuse(xml))
            return
        self._waiting.append((xml, weight))
        self._weight += weight
        self._start()

    def _start(self) -> None:
        """Start one more task that answers; it runs while the others wait for something."""
        if not self._starting and len(self._tasks) < AT_ONCE:
            self._starting = True
            task = asyncio.create_task(self._answer_all())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)  # whatever ended it

    async def _answer_all(self) -> None:
        """Answer stanzas one after the other, until none waits. The next stanza starts a new task."""
        self._starting, ours = False, asyncio.current_task()
        while self._waiting:
            xml, weight = self._waiting.popleft()
            if self._waiting:
                self._start()
            try:
                async with asyncio.timeout(ANSWERED_WITHIN):
                    self._send(await self.answers.answer(xml))
            except TimeoutError:
                self._send(self.answers.refuse(xml))
            except Exception as error:  # whatever it is, the next stanzas must be answered
                log.error("a stanza was not answered", reason=repr(error))
            finally:
                self._weight -= weight
        self._tasks.discard(ours)

    def _send(self, answer: str | None) -> None:
        """Send an answer, together with others that are ready now: to send each alone takes longer than to make it."""
        if answer is not None:
            if not self._ready:
                asyncio.get_running_loop().call_soon(self._flush)
            self._ready.append(answer)

    def _flush(self) -> None:
        """Send what is ready, unless the connection is lost, or the server reads nothing."""
        answers, self._ready = "".join(self._ready), []
        if self.is_connected() and self.stream.transport.get_write_buffer_size() < WAITING:
            self.stream.send_raw(answers)


def _weigh(xml: ET.Element) -> int:
    """About how many bytes of memory an element takes."""
    return sum(
        200 + len(part.tag) + len(part.text or "") + sum(len(value) for value in part.attrib.values())
        for part in xml.iter()
    )


def _unreachable(told: Any, config: XmppConfig) -> str:
    """slixmpp tells the error, or a text if the name of the server has no address."""
    host, port = _address(config) or (Jid.parse(config.jid).domain, config.port)
    if isinstance(told, str):
        return f"the name {host} is not found in DNS"
    if isinstance(told, ssl.SSLError):
        return _untrusted(told, config)
    return f"nothing answers at {host} port {port}: {told.strerror or told}"


def _untrusted(told: ssl.SSLError, _: XmppConfig) -> str:
    return f"its certificate is not trusted: {getattr(told, 'verify_message', '') or told.reason or told}"


def _refused(told: Any, config: XmppConfig) -> str:
    """What a stream error says (RFC 6120, section 4.9.3; XEP-0114, section 3)."""
    condition = told["condition"]
    meaning = {
        "not-authorized": "it refuses our secret",
        "host-unknown": f"it knows no component {config.jid}",
        "conflict": f"another connection has the place of {config.jid}",
    }.get(condition)
    return f"{meaning or 'it ends the stream'} ({condition}{told['text'] and ': '}{told['text'][:200]})"


_REASONS: dict[str, Callable[[Any, XmppConfig], str]] = {
    "connection_failed": _unreachable,
    "ssl_invalid_chain": _untrusted,
    "failed_auth": lambda *_: "it refuses our password",
    "stream_error": _refused,
}
"""Events of slixmpp that tell why there is no connection."""


def _address(config: XmppConfig) -> tuple[str, int] | tuple[()]:
    """Host and port to connect to; () if DNS tells them (SRV records of the JID's domain)."""
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
