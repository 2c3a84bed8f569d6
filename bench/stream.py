"""A bare XMPP client that asks for upload slots (XEP-0363) as fast as a server gives them: loopback, without TLS."""

from __future__ import annotations

import base64
import socket
import time
from types import TracebackType
from typing import Any, cast
from urllib.parse import urlsplit
from xml.etree import ElementTree as ET

UPLOAD = "urn:xmpp:http:upload:0"
WINDOW = 8
"""How many requests wait for an answer at the same time."""
Slot = tuple[str, str, dict[str, str]]
"""Path and query to PUT at, path to GET from, headers to send."""


class Stream:
    """A signed-in stream to 127.0.0.1. Raises RuntimeError if the server says anything unexpected."""

    def __init__(self, port: int, domain: str, user: str, password: str) -> None:
        self._domain = domain
        self._socket = socket.create_connection(("127.0.0.1", port), 30)
        self._open()
        secret = base64.b64encode(f"\0{user}\0{password}".encode()).decode()
        self._send(f"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{secret}</auth>")
        self._expect("success")
        self._open()
        self._send("<iq type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>")
        self._expect("iq")

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._socket.close()

    def _send(self, text: str) -> None:
        self._socket.sendall(text.encode())

    def _open(self) -> None:
        self._parser: ET.XMLPullParser[Any] = ET.XMLPullParser(["start", "end"])
        self._depth = 0
        self._send(
            f"<?xml version='1.0'?><stream:stream to='{self._domain}' version='1.0' xmlns='jabber:client'"
            " xmlns:stream='http://etherx.jabber.org/streams'>"
        )
        self._expect("features")

    def _next(self) -> ET.Element:
        """The next whole element below the stream's own."""
        while True:
            for found in self._parser.read_events():
                event, element = cast(tuple[str, ET.Element], found)
                self._depth += 1 if event == "start" else -1
                if event == "end" and self._depth == 1:
                    return element
            data = self._socket.recv(65536)
            if not data:
                raise RuntimeError("the server closed the stream")
            self._parser.feed(data)

    def _expect(self, name: str) -> ET.Element:
        element = self._next()
        if element.tag.rpartition("}")[2] != name or element.get("type") == "error":
            raise RuntimeError(ET.tostring(element, "unicode"))
        return element

    def slots(self, service: str, size: int, count: int) -> tuple[list[Slot], float]:
        """Ask for so many slots for files of `size` bytes; return them and the seconds that it took."""

        def ask(number: int) -> None:
            self._send(
                f"<iq type='get' to='{service}' id='{number}'><request xmlns='{UPLOAD}' filename='f{number}.bin'"
                f" size='{size}' content-type='application/octet-stream'/></iq>"
            )

        found, begun = [], time.perf_counter()
        for number in range(min(WINDOW, count)):
            ask(number)
        for number in range(WINDOW, WINDOW + count):
            found.append(self._expect("iq"))
            if number < count:
                ask(number)
        return [_slot(answer) for answer in found], time.perf_counter() - begun


def _slot(answer: ET.Element) -> Slot:
    put, get = answer.find(f".//{{{UPLOAD}}}put"), answer.find(f".//{{{UPLOAD}}}get")
    assert put is not None and get is not None
    there, back = urlsplit(put.get("url", "")), urlsplit(get.get("url", ""))
    headers = {header.get("name", ""): header.text or "" for header in put}
    return there.path + (f"?{there.query}" if there.query else ""), back.path, headers
