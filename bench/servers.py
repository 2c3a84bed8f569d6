"""Our service with accounts of many files, and the memory that a family of processes holds."""

from __future__ import annotations

import threading
from pathlib import Path

from media_gallery.app import Gallery
from media_gallery.db import Connection, upkeep
from media_gallery.models import Jid
from tests.service import RATES, Service


def start_service(directory: Path) -> Service:
    """Two workers, durable as always, without rates or quotas in the way."""
    rates = {f"RATE_{name}": "none" for name in RATES}
    settings = {"WORKERS": 2, "DEFAULT_QUOTA": "10 TB", "MAX_FILE_SIZE": "10 GB", "LOG_LEVEL": "warning", **rates}
    service = Service(directory, **settings)
    service.http.timeout = 120
    return service.start()


def token_of(service: Service, jid: str) -> str:
    return service.user(jid=jid).token


def fill(service: Service, jid: str, count: int) -> None:
    """Give an account `count` files that are in the database alone: enough to list and to count."""
    types = ("image/jpeg", "video/mp4", "text/plain", "audio/ogg")

    async def rows(c: Connection) -> None:
        row = await c.one("SELECT id FROM accounts WHERE jid = $1", jid)
        last = await c.one("SELECT COALESCE(MAX(id), 0) FROM blobs")
        assert row and last
        for number in range(last[0] + 1, last[0] + 1 + count):
            kind, key = types[number % 4], f"{number:032x}"
            category = {"image/jpeg": "image", "video/mp4": "video"}.get(kind, "file")
            await c.run(
                "INSERT INTO blobs (id, key, size, sha256, sha1, links, created_at) VALUES ($1, $2, $3, $4, $5, 1, $6)",
                number, key, 1000 + number % 5000, f"{number:064x}", f"{number:040x}", number,
            )  # fmt: skip
            await c.run(
                "INSERT INTO links (account_id, blob_id, slot_id, name, folded, size, media_type, context, category,"
                " metadata, thumbnails, created_at) VALUES ($1, $2, $3, $4, $4, $5, $6, 'file', $7, '{}', TRUE, $8)",
                row[0], number, key, f"file {number}.bin", 1000 + number % 5000, kind, category,
                1_700_000_000_000_000 + number,
            )  # fmt: skip
        await upkeep.recount(c)

    async def work(gallery: Gallery) -> None:
        await gallery.accounts.issue_token(Jid.parse(jid), "", "", admin=False)
        await gallery.db.write(rows)

    service.within(work)


def _family(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children")
    try:
        return [pid, *(found for child in children.read_text().split() for found in _family(int(child)))]
    except OSError:
        return []


def memory(pid: int) -> float:
    """Megabytes that a family of processes holds, what they share counted once (proportional set size)."""
    total = 0
    for member in _family(pid):
        try:
            lines = Path(f"/proc/{member}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1000


class Peak:
    """The most memory that a family holds while a block runs, in MB."""

    def __init__(self, pid: int) -> None:
        self.pid, self.before, self.most = pid, memory(pid), 0.0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def _watch(self) -> None:
        while not self._done.wait(0.2):
            self.most = max(self.most, memory(self.pid))

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    @property
    def growth(self) -> float:
        return max(0.0, self.most - self.before)
