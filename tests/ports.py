"""Ports that nobody listens at, and servers that soon will."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path


def free_port(row: int = 1) -> int:
    """The first of so many free ports in a row, on the loopback address."""
    while True:
        with socket.socket() as first:
            first.bind(("127.0.0.1", 0))
            base = int(first.getsockname()[1])
        try:
            for port in range(base, base + row):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
        except (OSError, OverflowError):
            continue
        return base


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_for_ports(
    process: subprocess.Popen[bytes], *ports: int, log: Callable[[], str] = str, ready: Path | None = None
) -> None:
    """Wait until a server that was just started listens at all of them, and has written the file `ready`; `log` is told
    where it does not.
    """
    end = time.monotonic() + 40
    while not all(map(listens, ports)) or (ready and not ready.exists()):
        assert time.monotonic() < end and process.poll() is None, log()
        time.sleep(0.05)
