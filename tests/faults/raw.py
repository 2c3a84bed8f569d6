"""Requests over a bare socket, for what no HTTP library would send."""

from __future__ import annotations

import json
import socket
import time
from contextlib import suppress
from typing import Any

from tests.service import User
from tests.waiting import DEADLINE

BOUNDARY = "faults"


def part(name: str, data: bytes, filename: str | None = None) -> bytes:
    """One part of a form. It is a file if it has a file name."""
    file = f'; filename="{filename}"' if filename else ""
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'
    return head.encode() + data + b"\r\n"


END = f"--{BOUNDARY}--\r\n".encode()


class Raw:
    """One connection that sends an upload piece by piece."""

    def __init__(self, user: User) -> None:
        self.user = user
        self.socket = socket.create_connection(("127.0.0.1", user.service.port), timeout=DEADLINE)

    def head(self, length: int | None, path: str = "files/upload/", *more: str) -> None:
        """Send the request's head. If there is no length, the body comes in chunks."""
        framing = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
        lines = [f"POST /api/v1/{path} HTTP/1.1", "Host: gallery", f"Authorization: Bearer {self.user.token}",
                 f"Content-Type: multipart/form-data; boundary={BOUNDARY}", framing, *more, "", ""]  # fmt: skip
        self.socket.sendall("\r\n".join(lines).encode())

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def chunk(self, data: bytes) -> None:
        self.socket.sendall(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    def answer(self) -> tuple[int, dict[str, Any]]:
        """Read the answer: its status and body."""
        data = b""
        while b"\r\n\r\n" not in data:
            more = self.socket.recv(65536)
            if not more:
                raise ConnectionError(data)
            data += more
        head, _, body = data.partition(b"\r\n\r\n")
        lines = head.decode().lower().split("\r\n")
        length = int(next(line.partition(":")[2] for line in lines if line.startswith("content-length:")))
        while len(body) < length:
            body += self.socket.recv(65536)
        return int(lines[0].split()[1]), json.loads(body)

    def close(self) -> None:
        self.socket.close()


def nothing_is_left(user: User) -> None:
    user.service.wait_until(lambda: not user.service.stored("staging"))
    assert user.used() == 0 and user.items() == []


def send_slowly(user: User, body: bytes, piece: int, pause: float) -> int:
    """Upload `body` in pieces of `piece` bytes with a pause in seconds after each; return the status.

    On a slow machine the pause may become longer, so callers that expect success send again until it is taken.
    """
    raw = Raw(user)
    raw.head(len(body))
    with suppress(OSError):  # the service refused, and reads no more
        for start in range(0, len(body), piece):
            raw.send(body[start : start + piece])
            time.sleep(pause)
    status, _ = raw.answer()
    raw.close()
    return status
