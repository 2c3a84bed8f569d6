"""A bare XMPP server for one component (XEP-0114). It asks for upload slots as fast as the component gives them."""

from __future__ import annotations

import socket
import time
from types import TracebackType

from bench.stream import UPLOAD, WINDOW

COMPONENT = "upload.localhost"
SECRET = "bench"
PATIENCE = 60
"""Seconds to wait for the component, and for each answer."""


class Server:
    """Listens at `port` from the start. Raises RuntimeError if the component says anything unexpected."""

    def __init__(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._listening.settimeout(PATIENCE)
        self.port: int = self._listening.getsockname()[1]
        self._stream: socket.socket | None = None
        self._rest = b""

    def __enter__(self) -> Server:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for one in (self._stream, self._listening):
            if one is not None:
                one.close()

    def settings(self) -> dict[str, object]:
        """The settings of a service that connects here."""
        return {"SLOTS": "true", "XMPP_JID": COMPONENT, "XMPP_COMPONENT_SECRET": SECRET,
                "XMPP_COMPONENT_HOST": "127.0.0.1", "XMPP_COMPONENT_PORT": self.port}  # fmt: skip

    def accept(self) -> None:
        """Wait for the component, and accept it with any secret."""
        self._stream, _ = self._listening.accept()
        self._stream.settimeout(PATIENCE)
        self._stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._until(b"<stream:stream")
        self._stream.sendall(
            f"<?xml version='1.0'?><stream:stream xmlns='jabber:component:accept' from='{COMPONENT}' id='bench'"
            " xmlns:stream='http://etherx.jabber.org/streams'>".encode()
        )
        self._until(b"</handshake>")
        self._stream.sendall(b"<handshake/>")

    def _came(self, mark: bytes) -> int:
        """Read what has come; return how many times it has `mark`."""
        assert self._stream
        piece = self._stream.recv(65536)
        if not piece:
            raise RuntimeError("the component closed the stream")
        data, self._rest = self._rest + piece, (self._rest + piece)[1 - len(mark) :]
        if b'type="error"' in data:
            raise RuntimeError(data[:300].decode(errors="replace"))
        return data.count(mark)

    def _until(self, mark: bytes) -> None:
        while not self._came(mark):
            pass

    def slots_per_second(self, size: int, count: int) -> float:
        """How many requests it answers per second, if up to WINDOW of them wait at the same time."""
        assert self._stream
        asked = [
            f"<iq type='get' to='{COMPONENT}' from='bench@localhost/x' id='{number}'><request xmlns='{UPLOAD}'"
            f" filename='f{number}.bin' size='{size}' content-type='application/octet-stream'/></iq>".encode()
            for number in range(count)
        ]
        begun, sent, came = time.perf_counter(), 0, 0
        while came < count:
            some = asked[sent : came + WINDOW]
            self._stream.sendall(b"".join(some))
            sent += len(some)
            came += self._came(b"</iq>")
        return count / (time.perf_counter() - begun)
