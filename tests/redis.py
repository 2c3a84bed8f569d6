"""A real Redis for one test run. Loopback only; keeps nothing."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.ports import free_port
from tests.waiting import DEADLINE

PROGRAM = shutil.which("redis-server")


class Redis:
    def __init__(self) -> None:
        assert PROGRAM, "Redis is not installed: run make setup"
        port = free_port()
        # The service gives Redis two seconds, unless the address says more: a busy machine may need them.
        self.url = f"redis://127.0.0.1:{port}/0?socket_timeout={DEADLINE}&socket_connect_timeout={DEADLINE}"
        self.directory = Path(tempfile.mkdtemp(prefix="gallery-redis-"))
        self._server = subprocess.Popen(
            [PROGRAM, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", self.directory],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self._server.stdout
        while "Ready to accept connections" not in (line := self._server.stdout.readline()):
            assert line, "Redis did not start"

    def stop(self) -> None:
        self._server.kill()
        self._server.wait()
        shutil.rmtree(self.directory, ignore_errors=True)
