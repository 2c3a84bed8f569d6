"""`python -m bench.upkeep`: the time and memory that `gc` and `fsck` need for a few files and for many."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.rows import OWN, fill
from media_gallery.app import Gallery
from media_gallery.backup import blob_path
from media_gallery.db import upkeep
from media_gallery.storage import Slot
from tests.service import PROGRAM, Service, environment

FEW = 10_000
STEP = 200_000
console = Console(width=None if sys.stdout.isatty() else 150)


def furnish(service: Service, files: int) -> None:
    """Make rows, and for each its file and its published slot, as an upload leaves them. The files are sparse."""
    service.cli("db", "upgrade")

    async def work(gallery: Gallery) -> None:
        for first in range(0, files, STEP):
            last = min(files, first + STEP)
            await gallery.db.write(partial(fill, first=first, last=last), long=True)
        after = -1
        while links := await gallery.db.scan(partial(upkeep.links_after, link_id=after)):
            after = links[-1].id
            for link in links:
                path = blob_path(gallery.settings.data_dir, link.blob.key)
                path.touch()
                os.truncate(path, link.blob.size)
                assert gallery.store.tree
                await gallery.store.tree.publish(link.blob.key, Slot.of(link, link.blob))

    service.within(work)


def measured(service: Service, *words: str) -> tuple[float, float, str]:
    """Run a command; return its seconds, its most megabytes, and its last line."""
    begun = time.perf_counter()
    process = subprocess.Popen(
        [PROGRAM, *words], env=environment(**service.settings), stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    said = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0, said
    return time.perf_counter() - begun, usage.ru_maxrss / 1000, said.strip().splitlines()[-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=1_000_000)
    options = parser.parse_args()
    table = Table("files", "command", "seconds", "MB", "says", box=None)
    for files in (FEW, options.files):
        assert files % OWN == 0
        with tempfile.TemporaryDirectory(prefix="gallery-upkeep-") as place:
            service = Service(Path(place))
            furnish(service, files)
            for command in ("gc", "fsck"):
                seconds, memory, said = measured(service, command)
                table.add_row(f"{files:,}", command, f"{seconds:.1f}", f"{memory:.0f}", said)
    console.print(table)


if __name__ == "__main__":
    main()
