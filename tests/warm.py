"""`media-gallery` in forks of a process that has loaded it, since loading takes longer than most commands."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from media_gallery.cli import main

_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(
    [
        __name__,
        *(f"media_gallery.cli.{name}" for name in ("accounts", "doctor", "importing", "moving", "upkeep")),
        *(f"media_gallery.{name}" for name in ("serve", "db.sqlite", "db.postgres")),
    ]
)


@dataclass(frozen=True)
class Done:
    """How a command ended, and what it printed."""

    status: int
    output: str
    errors: str


class Running:
    """A command that runs in its own session, with the part of `subprocess.Popen` that the tests use."""

    def __init__(self, words: Sequence[str], environment: Mapping[str, str], output: Path, errors: Path) -> None:
        self._process = _forks.Process(target=_command, args=(list(words), dict(environment), output, errors))
        self._process.start()
        assert self._process.pid
        self.args, self.pid = words, self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return self._process.exitcode

    def terminate(self) -> None:
        self._process.terminate()

    def kill(self) -> None:
        self._process.kill()


def run(words: Sequence[str], environment: Mapping[str, str], seconds: float) -> Done:
    """Run `media-gallery` with these words in exactly this environment. Raises subprocess.TimeoutExpired."""
    with tempfile.TemporaryDirectory(prefix="gallery-command-") as directory:
        output, errors = Path(directory, "output"), Path(directory, "errors")
        command = Running(words, environment, output, errors)
        try:
            status = command.wait(seconds)
        except subprocess.TimeoutExpired:
            command.kill()
            command.wait()
            raise
        return Done(status, output.read_text(), errors.read_text())


def _command(words: list[str], environment: dict[str, str], output: Path, errors: Path) -> None:
    os.setsid()
    for number, path in ((1, output), (2, errors)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["media-gallery", *words]
    main()
