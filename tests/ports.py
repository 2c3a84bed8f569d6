"""Ports for servers that will be started."""

from __future__ import annotations

import random
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.waiting import DEADLINE, wait_until

FIRST = 10_000
_given: list[socket.socket] = []


def _connections_begin_at() -> int:
    """The first of the ports that the system itself gives to connections."""
    try:
        return int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except OSError:
        return 32_768


def free_port(row: int = 1) -> int:
    """The first of `row` successive ports on the loopback address that are free, and that no other test gets.

    They are below the ports that the system gives to connections, since a connection could take one before the server
    listens. For each port this process holds a name that no other test process can have while this one lives.
    """
    last = max(FIRST + 1000, _connections_begin_at() - row)
    while True:
        base = random.randrange(FIRST, last)
        if all(_claim(port) for port in range(base, base + row)):
            return base


def _claim(port: int) -> bool:
    with socket.socket() as probe:
        name = socket.socket(socket.AF_UNIX)
        try:
            name.bind(f"\0gallery-tests-{port}")
            probe.bind(("127.0.0.1", port))
        except OSError:
            name.close()
            return False
    _given.append(name)
    return True


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def is_free(port: int) -> bool:
    """Whether a server could listen there now. Connections that are closing do not count."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def wait_for_ports(
    process: subprocess.Popen[bytes], *ports: int, log: Callable[[], str] = str, ready: Path | None = None
) -> None:
    """Wait until a server that was just started listens at all these ports, and has written the file `ready`. If it
    does not, the failure shows `log`.
    """

    def there() -> bool:
        assert process.poll() is None, log()
        return all(map(listens, ports)) and (ready is None or ready.exists())

    wait_until(there, log, deadline=3 * DEADLINE)  # some need most of a minute of processor for it
