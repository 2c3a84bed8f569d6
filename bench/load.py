"""The load: uploads over bare sockets, so that the client costs little; `wrk` for reading."""

from __future__ import annotations

import os
import re
import secrets
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from media_gallery.slot_tokens import VALID, Claims, sign

MB = 1_000_000
BLOCK = os.urandom(1 << 20)
_BOUNDARY = "bench-boundary"
PATIENCE = 20
"""Seconds for which a server may stand still before it counts as too slow."""


class Target(Protocol):
    """A server that takes uploads."""

    port: int

    def head(self, size: int, number: int) -> tuple[bytes, bytes]:
        """What is sent before the file's bytes and after them."""


@dataclass
class Gallery:
    """Our service: its form, with a token."""

    port: int
    token: str
    path: str = "/api/v1/files/upload/"
    ext: str = "bin"
    media_type: str = "application/x-bench"

    def head(self, size: int, number: int) -> tuple[bytes, bytes]:
        first = (
            f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="{number}.{self.ext}"\r\n'
            f"Content-Type: {self.media_type}\r\n\r\n"
        )
        last = f"\r\n--{_BOUNDARY}--\r\n"
        length = len(first) + size + len(last)
        head = (
            f"POST {self.path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {self.token}\r\n"
            f"Content-Type: multipart/form-data; boundary={_BOUNDARY}\r\nContent-Length: {length}\r\n\r\n"
        )
        return (head + first).encode(), last.encode()


@dataclass
class Slots:
    """Our PUT, to slots that are signed here without a request."""

    port: int
    jid: str
    secret: str
    media_type: str = Gallery.media_type

    def head(self, size: int, number: int) -> tuple[bytes, bytes]:
        slot, name, now = secrets.token_hex(16), f"{number}.bin", int(time.time())
        claims = Claims(
            sub=self.jid, slot=slot, filename=name, filesize=size, filetype=self.media_type, iat=now, exp=now + VALID
        )
        head = (
            f"PUT /media/{slot}/{name} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {sign(self.secret, claims)}\r\n"
            f"Content-Type: {self.media_type}\r\nContent-Length: {size}\r\n\r\n"
        )
        return head.encode(), b""


def _answer(connection: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        data += _received(connection)
    head, _, body = data.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)content-length: (\d+)", head)
    while length and len(body) < int(length[1]):
        body += _received(connection)
    if not head.startswith((b"HTTP/1.1 200", b"HTTP/1.1 201", b"HTTP/1.1 204")):
        raise RuntimeError(data[:300])
    return body


def _received(connection: socket.socket) -> bytes:
    data = connection.recv(65536)
    if not data:
        raise ConnectionError("closed before the end of an answer")
    return data


def _connected(port: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), PATIENCE)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def _blocks(size: int) -> Iterator[bytes]:
    yield os.urandom(32)[: min(32, size)]  # no two bodies are the same
    left = size - 32
    while left > 0:
        yield BLOCK[: min(left, len(BLOCK))]
        left -= len(BLOCK)


def upload(target: Target, size: int, number: int = 0) -> bytes:
    """Make one streamed upload; return the answer's body."""
    with _connected(target.port) as connection:
        head, tail = target.head(size, number)
        connection.sendall(head)
        for block in _blocks(size):
            connection.sendall(block)
        connection.sendall(tail)
        return _answer(connection)


def _timed(jobs: Sequence[Callable[[], object]]) -> float:
    """Run these at once; return the seconds. Raises what one of them raises."""
    with ThreadPoolExecutor(len(jobs)) as threads:
        begun = time.perf_counter()
        for done in [threads.submit(job) for job in jobs]:
            done.result()
        return time.perf_counter() - begun


def megabytes_per_second(target: Target, size: int, at_once: int) -> float:
    """Large uploads, each over its own connection."""
    seconds = _timed([partial(upload, target, size, number) for number in range(at_once)])
    return size * at_once / MB / seconds


def uploads_per_second(target: Target, size: int, connections: int, count: int) -> float:
    """Small uploads over connections that stay open. All requests are built before the clock starts."""
    shares = []
    for share in range(connections):
        requests = []
        for number in range(count // connections):
            head, tail = target.head(size, share * count + number)
            requests.append(head + os.urandom(size) + tail)
        shares.append(requests)

    def send(requests: list[bytes]) -> None:
        with _connected(target.port) as connection:
            for request in requests:
                connection.sendall(request)
                _answer(connection)

    seconds = _timed([partial(send, requests) for requests in shares])
    return sum(map(len, shares)) / seconds


@dataclass(frozen=True, slots=True)
class Reading:
    """What wrk measured. Latencies are in milliseconds."""

    per_second: float
    megabytes: float
    median: float
    p99: float


def read(url: str, connections: int, seconds: int, token: str = "") -> Reading:
    """Request one address as fast as the connections allow. Raises RuntimeError if any answer is not a success."""
    headers = ["-H", f"Authorization: Bearer {token}"] if token else []
    text = subprocess.run(
        ["wrk", "-t", "1", "-c", str(connections), "-d", str(seconds), "--timeout", str(PATIENCE), "--latency",
         *headers, url],
        capture_output=True, text=True, check=True, timeout=seconds + 2 * PATIENCE,
    ).stdout  # fmt: skip
    if "Non-2xx" in text or "Socket errors" in text:
        raise RuntimeError(next(line.strip() for line in text.splitlines() if "Non-2xx" in line or "Socket" in line))
    rate = float(re.search(r"Requests/sec:\s+([\d.]+)", text)[1])  # type: ignore[index]
    amount, unit = re.search(r"Transfer/sec:\s+([\d.]+)([KMG]?)B", text).groups()  # type: ignore[union-attr]
    return Reading(
        rate,
        float(amount) * {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3}[unit] / MB,
        _milliseconds(text, "50%"),
        _milliseconds(text, "99%"),
    )


def _milliseconds(text: str, mark: str) -> float:
    value, unit = re.search(rf"{mark}\s+([\d.]+)(us|ms|s)", text).groups()  # type: ignore[union-attr]
    return float(value) * {"us": 0.001, "ms": 1, "s": 1000}[unit]
