"""`python -m bench.growth`: the same calls on a small database and on one with millions of links, side by side."""

from __future__ import annotations

import argparse
import os
import random
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.rows import OWN, fill, fill_account, ready
from media_gallery.app import Gallery
from media_gallery.db import upkeep
from tests.service import RATES, Service, User

CALLS = 300
"""How often each call is timed."""
console = Console(width=None if sys.stdout.isatty() else 150)


def furnished(directory: Path, links: int, database: str) -> Service:
    """A running service with so many links. A database that an earlier run has filled is used as it is."""
    service = Service(directory, DEFAULT_QUOTA="1 TB", LOG_LEVEL="warning", DATABASE_URL=database,
                      **{f"RATE_{name}": "none" for name in RATES})  # fmt: skip
    service.cli("db", "upgrade")
    step = 200_000

    async def work(gallery: Gallery) -> None:
        if not await gallery.db.read(upkeep.is_empty):
            return
        for first in range(0, links, step):
            last = min(links, first + step)
            await gallery.db.write(partial(fill, first=first, last=last), long=True)
        await gallery.db.write(ready, long=True)

    service.within(work)
    return service.start()


class _Owner(User):
    """A user who knows their own oldest files."""

    oldest: list[int]


CALLS_MADE: dict[str, Callable[[_Owner], Any]] = {
    "list": lambda user: user.get("files/"),
    "images by name": lambda user: user.get("files/", type="image", order_by="name"),
    "name and size": lambda user: user.get("files/", name="file 1", size_gte=2000),
    "statistics": lambda user: user.get("files/stats/"),
    "filtered statistics": lambda user: user.get("files/stats/", media_type="image/"),
    "slot, a miss": lambda user: user.get("files/slot/", name="a", size=9, hash=os.urandom(20).hex()),
    "upload 4 KB": lambda user: user.send(os.urandom(4096), "new.bin", "application/x-new"),
    "media, a miss": lambda user: user.service.http.get(f"/media/{os.urandom(16).hex()}/a"),
    "delete by id": lambda user: user.delete("files/", id=user.oldest.pop()),
}
"""The calls that are timed, each by another account."""


def _owners(service: Service, links: int) -> list[_Owner]:
    found = []
    for account in random.Random(1).sample(range(links // OWN), min(CALLS, links // OWN)):
        user = service.user(jid=f"user{account}@example.org")
        owner = _Owner(service, user.jid, user.token)
        share = CALLS * OWN // links + 1
        owner.oldest = [item["id"] for item in owner.items(order_by="id", obj_per_page=share)]
        found.append(owner)
    return found


def _seconds(call: Callable[[], Any]) -> float:
    begun = time.perf_counter()
    answer = call()
    taken = time.perf_counter() - begun
    assert answer.status_code < 500, answer.text
    return taken


@dataclass(frozen=True, slots=True)
class Times:
    """Median and p99, in milliseconds."""

    median: float
    p99: float

    @staticmethod
    def of(seconds: list[float]) -> Times:
        return Times(statistics.median(seconds) * 1000, sorted(seconds)[int(len(seconds) * 0.99)] * 1000)


def times(services: list[tuple[Service, int]]) -> dict[str, list[Times]]:
    """Each call on each service. The services take turns, so that noise affects all of them."""
    owners = [_owners(service, links) for service, links in services]
    found = {}
    for name, call in CALLS_MADE.items():
        taken: list[list[float]] = [[] for _ in services]
        for number in range(CALLS):
            pairs = list(zip(taken, owners, strict=True))
            for seconds, users in pairs if number % 2 else reversed(pairs):  # what one leaves, the next pays for
                user = users[number % len(users)]
                seconds.append(_seconds(partial(call, user)))
        found[name] = [Times.of(seconds) for seconds in taken]
    return found


def large_account(service: Service, files: int) -> Iterator[tuple[str, str]]:
    """The time of deep pages of one account with many files, and what others wait while it is deleted."""
    jid = "large@example.org"
    large, other = service.user(jid=jid), service.user(jid="user7@example.org")
    fill_account(service, jid, files)
    large.http.timeout = other.http.timeout = 3600
    last = files // 50
    for page in (1, min(1000, last), last):
        seen = Times.of([_seconds(partial(large.get, "files/", page=page)) for _ in range(20)])
        yield f"page {page:,} of {files:,} files", f"{seen.median:.1f} ms, p99 {seen.p99:.1f}"
    calls = {name: CALLS_MADE[name] for name in ("list", "slot, a miss", "upload 4 KB")}
    owner = _Owner(service, other.jid, other.token)

    def everything() -> dict[str, float]:
        return {name: _seconds(partial(call, owner)) for name, call in calls.items()}

    before = [everything() for _ in range(CALLS)]
    deletion = threading.Thread(target=lambda: large.http.request("DELETE", "account/"))
    begun = time.perf_counter()
    deletion.start()
    during = []
    while deletion.is_alive():
        during.append(everything())
    yield f"deletion of an account of {files:,} files", f"{time.perf_counter() - begun:.0f} s"
    for name in calls:
        first, then = (Times.of([round_[name] for round_ in rounds]) for rounds in (before, during))
        text = f"{first.median:.1f} ms, p99 {first.p99:.1f} -> {then.median:.1f} ms, p99 {then.p99:.1f}"
        yield f"{name} of another account, before -> during", text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--links", type=int, default=10_000_000)
    parser.add_argument(
        "--account", type=int, default=1_000_000, help="files of the account that is deleted at the end"
    )
    parser.add_argument(
        "--database", help="URL of a PostgreSQL server; databases gallery_small and gallery_large are used"
    )
    options = parser.parse_args()
    table = Table(box=None)
    for name in ("call", "10,000: median", "p99", f"{options.links:,}: median", "p99", "ratio"):
        table.add_column(name, justify="left" if name == "call" else "right")
    with tempfile.TemporaryDirectory(prefix="gallery-growth-") as place, ExitStack() as running:
        services = []
        for name, links in (("small", 10_000), ("large", options.links)):
            directory = Path(place) / name
            directory.mkdir()
            begun = time.perf_counter()
            service = furnished(directory, links, f"{options.database}/gallery_{name}" if options.database else "")
            running.callback(service.stop)
            console.print(f"{links:,} links in {time.perf_counter() - begun:.0f} s", highlight=False)
            services.append((service, links))
        for name, (few, many) in times(services).items():
            table.add_row(name, f"{few.median:.2f} ms", f"{few.p99:.2f}", f"{many.median:.2f} ms", f"{many.p99:.2f}",
                          f"{many.median / few.median:.2f}")  # fmt: skip
        console.print(table)
        for name, text in large_account(services[-1][0], options.account):
            console.print(f"{name}: {text}", highlight=False)


if __name__ == "__main__":
    main()
