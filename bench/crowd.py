"""`python -m bench.crowd`: how long a user waits while thousands of slow clients hold connections."""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import resource
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from statistics import median, quantiles

import httpx
from rich.console import Console

from tests.service import PROGRAM, Service, User

CALLS = 200
DRIP = 1.0
"""Seconds between two bytes of a slow client."""
USERS = 50
"""Accounts whose uploads come slowly. There are several, since each may have only some uploads at once."""


def lines(path: str, token: str, length: int) -> bytes:
    """The head of a request whose body will come slowly."""
    return (
        f"POST /api/v1/{path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Length: {length}\r\n"
        "Content-Type: multipart/form-data; boundary=x\r\n\r\n"
    ).encode()


def crowd(tokens: list[str]) -> list[bytes | None]:
    """What each kind of slow client sends at first, before it goes on slowly. None: it never sends anything."""
    return [
        None,
        b"GET / HTTP/1.1\r\nX: ",
        *(lines("files/upload/", token, 10**6) for token in tokens),
        *[lines("files/upload/", "unknown", 10**6)] * len(tokens),
        *[lines("account/xmpp_code_request/", "", 60_000)] * len(tokens),
    ]


async def hold(port: int, begun: bytes | None) -> None:
    """One slow client. It connects again whenever its connection is closed."""
    while True:
        with suppress(OSError):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            if begun is None:
                await reader.read()
            else:
                writer.write(begun)
                while not writer.is_closing() and not reader.at_eof():
                    await asyncio.sleep(DRIP)
                    writer.write(b"x")
                    await writer.drain()
            writer.close()
        await asyncio.sleep(DRIP)


def come(port: int, connections: int, tokens: list[str]) -> None:
    """A process of slow clients: a third is silent, a third sends a head slowly, a third sends a body slowly."""
    silent, head, *bodies = crowd(tokens)

    async def main() -> None:
        third = connections // 3
        kinds = [silent] * third + [head] * third
        kinds += [bodies[number % len(bodies)] for number in range(connections - len(kinds))]
        await asyncio.gather(*(hold(port, kind) for kind in kinds))

    asyncio.run(main())


@contextmanager
def beside(service: Service, connections: int) -> Iterator[None]:
    tokens = [service.user().token for _ in range(USERS)]
    process = multiprocessing.get_context("spawn").Process(target=come, args=(service.port, connections, tokens))
    process.start()
    assert service.process
    while open_connections(service.port) < connections * 0.9:
        time.sleep(0.5)
    yield
    process.terminate()
    process.join()


def open_connections(port: int) -> int:
    """The number of established connections to a port of this machine."""
    rows = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return sum(row.split()[1].endswith(f":{port:04X}") and row.split()[3] == "01" for row in rows)


def waited(user: User) -> list[float]:
    """Milliseconds for an upload, a download and a list, each over its own connection."""
    times = []
    for _ in range(CALLS):
        begun = time.perf_counter()
        with httpx.Client(base_url=user.http.base_url, headers=user.http.headers, timeout=60, verify=False) as client:
            file = client.post("files/upload/", files={"file": ("a.bin", os.urandom(4096))}).raise_for_status().json()
            client.get(file["file"]).raise_for_status()
        with httpx.Client(base_url=user.http.base_url, headers=user.http.headers, timeout=60, verify=False) as client:
            client.get("files/").raise_for_status()
        times.append((time.perf_counter() - begun) * 1000)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--connections", type=int, default=3000)
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    console = Console(highlight=False)
    with ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="gallery-bench-"))
        service = Service(Path(directory), (PROGRAM, "serve"), WORKERS="2").start()
        stack.callback(service.stop)
        user = service.user()
        waited(user)  # warms the service
        quiet = waited(user)
        show(console, "alone", quiet)
        stack.enter_context(beside(service, options.connections))
        slow: list[float] = []
        for _ in range(options.turns):
            slow += waited(user)
            held = open_connections(service.port)
            show(console, f"beside {held} slow clients", slow)
        ratio = quantiles(slow, n=100)[94] / quantiles(quiet, n=100)[94]
        console.print(f"95th percentile: {ratio:.1f} times that alone")


def show(console: Console, name: str, times: list[float]) -> None:
    percentiles = quantiles(times, n=100)
    console.print(f"{name}: median {median(times):.1f} ms, 95th percentile {percentiles[94]:.1f} ms, "
                  f"99th {percentiles[98]:.1f} ms")  # fmt: skip


if __name__ == "__main__":
    main()
