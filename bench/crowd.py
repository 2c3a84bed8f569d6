"""`python -m bench.crowd`: what a user waits while somebody holds thousands of connections for nothing."""

from __future__ import annotations

import argparse
import resource
import socket
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from statistics import median, quantiles

import httpx
from rich.console import Console

from tests.service import Service, User

CALLS = 200


def waited(user: User) -> str:
    """Median and 99th percentile of a list, each over a connection of its own."""
    times = []
    for _ in range(CALLS):
        begun = time.perf_counter()
        with httpx.Client(base_url=user.http.base_url, headers=user.http.headers, timeout=60) as client:
            client.get("files/").raise_for_status()
        times.append((time.perf_counter() - begun) * 1000)
    return f"median {median(times):.1f} ms, 99th percentile {quantiles(times, n=100)[98]:.1f} ms"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--connections", type=int, default=2000)
    options = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    console = Console()
    with ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory())
        service = Service(Path(directory), WORKERS="2", IDLE_TIMEOUT="10 min").start()
        stack.callback(service.stop)
        user = service.user()
        console.print(f"alone: {waited(user)}")
        for begun, name in ((b"", "silent"), (b"GET / HTTP/1.1\r\nHost: x\r\n", "with half a head")):
            with ExitStack() as held:
                for _ in range(options.connections):
                    connection = held.enter_context(socket.create_connection(("127.0.0.1", service.port), timeout=60))
                    connection.sendall(begun)
                console.print(f"beside {options.connections} connections {name}: {waited(user)}")


if __name__ == "__main__":
    main()
