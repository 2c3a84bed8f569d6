"""A real PostgreSQL for one test run, with a database for each service that asks for one. Loopback only."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

from media_gallery.db import migrate
from media_gallery.settings import Settings
from tests.ports import free_port
from tests.waiting import wait_until


def _programs() -> Path | None:
    """The folder of programs of the newest installed server."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    return found[-1].parent if found else None


class Postgres:
    """A separate cluster. PostgreSQL refuses to run as root, so root runs it as the user postgres.

    Unless it is `durable`, it does not sync: tests kill its processes and never the machine, whose disk may be slow.
    """

    def __init__(self, durable: bool = False) -> None:
        programs = _programs()
        assert programs, "PostgreSQL is not installed: run make setup"
        self.directory = Path(tempfile.mkdtemp(prefix="gallery-postgres-"))
        self.port, self._numbers = free_port(), count(1)
        self._template = ""
        self._user = "postgres" if os.getuid() == 0 else None
        if self._user:
            shutil.chown(self.directory, self._user, self._user)
        self._run(
            programs / "initdb", "-D", self.directory / "data", "-U", "postgres", "--auth=trust", "-E", "UTF8", "-N"
        )
        self._programs, self._durable = programs, durable
        self.resume()

    def resume(self) -> None:
        """Start the server on its data. Try again while processes of a killed server have not ended yet."""
        wait_until(self._starts, (self.directory / "log").read_text, pause=0.1)

    def _starts(self) -> bool:
        self._server = subprocess.Popen(
            [self._programs / "postgres", "-D", self.directory / "data", "-p", str(self.port), "-k", self.directory,
             "-c", "listen_addresses=127.0.0.1", "-c", "max_connections=300", "-c", f"fsync={self._durable}"],
            user=self._user, group=self._user, extra_groups=[] if self._user else None, cwd=self.directory,
            stderr=(self.directory / "log").open("wb"),
        )  # fmt: skip
        ready: list[str | Path] = [self._programs / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        while subprocess.run(ready).returncode:
            if self._server.poll() is not None:
                return False
        return True

    def pause(self, how: signal.Signals = signal.SIGQUIT) -> None:
        """End the server at once, even if clients are connected. SIGKILL ends each of its processes."""
        children = self._children()
        self._server.send_signal(how)
        if how == signal.SIGKILL:
            self._signal(children, how)
        self._server.wait()

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """During the block the server accepts connections and answers nothing."""
        self._server.send_signal(signal.SIGSTOP)  # so that it starts no more children
        processes = [self._server.pid, *self._children()]
        self._signal(processes, signal.SIGSTOP)
        try:
            yield
        finally:
            self._signal(processes, signal.SIGCONT)

    @staticmethod
    def _signal(processes: list[int], how: signal.Signals) -> None:
        for process in processes:
            with suppress(ProcessLookupError):  # that of a client which has just gone
                os.kill(process, how)

    def _children(self) -> list[int]:
        return [
            int(child)
            for child in Path(f"/proc/{self._server.pid}/task/{self._server.pid}/children").read_text().split()
        ]

    def _run(self, *command: str | Path) -> None:
        subprocess.run(command, check=True, capture_output=True, user=self._user, group=self._user, cwd=self.directory)

    def new_database(self, template: str = "template1") -> str:
        """The URL of an empty database."""
        name = f"gallery_{next(self._numbers)}"
        self._run(
            self._programs / "createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", "-T", template, name
        )
        return f"postgresql://postgres@127.0.0.1:{self.port}/{name}"

    def ready_database(self) -> str:
        """The URL of a database with its tables. They are copied, which is faster than to make them."""
        if not self._template:
            url = self.new_database()
            migrate.upgrade(Settings.model_validate({"database_url": url}))
            self._template = url.rpartition("/")[2]
        return self.new_database(self._template)

    def stop(self) -> None:
        self.pause()
        shutil.rmtree(self.directory, ignore_errors=True)
