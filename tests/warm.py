"""Commands of `media-gallery` in forks of a process that has loaded them: to load it all takes longer than most run."""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from media_gallery.cli import main

_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload([__name__, *(f"media_gallery.cli.{name}" for name in ("accounts", "moving", "upkeep"))])


@dataclass(frozen=True)
class Done:
    """How a command ended, and what it printed."""

    status: int
    output: str
    errors: str


def run(words: Sequence[str], environment: Mapping[str, str], seconds: float) -> Done:
    """Run `media-gallery` with these words in this environment alone. Raises TimeoutError."""
    with tempfile.TemporaryDirectory(prefix="gallery-command-") as directory:
        files = [Path(directory, name) for name in ("output", "errors")]
        command = _forks.Process(target=_command, args=(list(words), dict(environment), *files))
        command.start()
        command.join(seconds)
        if command.exitcode is None:
            command.kill()
            command.join()
            raise TimeoutError(words)
        return Done(command.exitcode, *(path.read_text() for path in files))


def _command(words: list[str], environment: dict[str, str], output: Path, errors: Path) -> None:
    for number, path in ((1, output), (2, errors)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["media-gallery", *words]
    main()
