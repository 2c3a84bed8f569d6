"""The service or its database is killed at random moments under mixed load: exactly what was acknowledged is there."""

from __future__ import annotations

import json
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from media_gallery.maintenance import Finding
from tests.postgres import Postgres
from tests.service import SMALL, Service
from tests.torture.ledger import Ledger
from tests.torture.load import LARGE, Client, fresh, picture
from tests.torture.seed import seeded
from tests.waiting import DEADLINE, wait_until

pytestmark = pytest.mark.timeout(0)  # the long forms take long; each single wait has its own deadline
CLIENTS = 6
GRACE = "1 h"
_XMPP = {"XMPP_JID": "gallery.localhost", "XMPP_COMPONENT_SECRET": "none", "XMPP_COMPONENT_PORT": "1"}
"""Settings for a courier without a server, so that it is killed with the other processes."""


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Iterator[Postgres | None]:
    """A database server only for this test, if the run uses PostgreSQL."""
    if request.config.getoption("--database") == "sqlite":
        yield None
        return
    server = Postgres()
    yield server
    server.stop()


class Torture:
    """One service that is killed and started again on the same data, and ledgers that outlive it."""

    def __init__(self, directory: Path, backend: dict[str, Any], server: Postgres | None, dice: random.Random) -> None:
        database = {"DATABASE_URL": server.new_database()} if server else {}
        settings = _XMPP | backend | database
        self.service = Service(directory, WORKERS="2", GC_GRACE=GRACE, SMALL_FILE_SIZE=SMALL, **settings)
        self.server, self.dice = server, dice
        self.ledgers = [Ledger(self.service, f"client{number}@example.org") for number in range(CLIENTS)]
        self.shared = [fresh(self.dice) for _ in range(16)] + [picture(self.dice) for _ in range(4)]
        self.kills, self.counts = 0, Counter[str]()

    def round(self) -> None:
        """Load, kill, start again, compare."""
        clients = [Client(ledger, random.Random(self.dice.random()), self.shared) for ledger in self.ledgers]
        with ThreadPoolExecutor(CLIENTS) as threads:
            for _ in threads.map(Ledger.sign_in, self.ledgers):
                pass
            stop = threading.Event()
            lives = [threads.submit(client.live, stop) for client in clients]
            time.sleep(self.dice.uniform(0.05, 1.2))
            restarted = self._kill()
            stop.set()
            for life in lives:
                life.result()
            self.counts["files and thumbnails read back"] += sum(
                threads.map(lambda ledger: ledger.check(restarted), self.ledgers)
            )
        found: list[Finding] = []
        self.service.within(lambda gallery: gallery.maintenance.fsck(tell=found.append))
        assert found == []
        print(f"{self.kills} kills, {sum(sum(ledger.acknowledged.values()) for ledger in self.ledgers)} acknowledged")

    def _kill(self) -> bool:
        """Kill the service, the database, or both; return whether the service was started again."""
        self.kills += 1
        what = self.dice.choice(["service", "service", "both", "database"]) if self.server else "service"
        self.counts[f"kills of {what}"] += 1
        if what != "service" and self.server:
            self.server.pause(self.dice.choice([signal.SIGKILL, signal.SIGQUIT]))
        if what != "database":
            time.sleep(self.dice.choice([0, 0.05]) if what == "both" else 0)
            self.kill_service()
        if what != "service" and self.server:
            self.server.resume()
        if what == "database":
            self.service.wait_until(lambda: self.service.http.get("/readyz").is_success)
            return False
        if self.dice.random() < 0.15:  # kill it while it starts, when its upkeep repairs what the last kill has left
            self.kills += 1
            self.counts["kills of a starting service"] += 1
            self.service.launch()
            time.sleep(self.dice.uniform(0.3, 3))
            self.kill_service()
        self.service.start()
        return True

    def kill_service(self) -> None:
        process = self.service.process
        assert process
        if process.poll() is None:
            wait_until(lambda: os.getpgid(process.pid) == process.pid)  # it may have begun just now
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def finish(self) -> None:
        """Check that gc, while no service runs, leaves only what rows name: in files and in the database."""
        self.ledgers[0].sign_in()
        last = Client(self.ledgers[0], self.dice, self.shared)
        for size in (1, LARGE):  # what the rounds have left may all be of one sort
            last.upload(self.dice.randbytes(size))
        self.service.stop()
        found = json.loads(self.service.cli("gc", "--older-than", "0", "--all-lost", "--json"))
        self.service.start()
        self.counts |= {f"gc removed {name}": found[name] for name in ("staged", "orphans", "slots")}
        for ledger in self.ledgers:
            ledger.check(restarted=True)
        stats = json.loads(self.service.cli("stats", "--json"))
        assert stats["links"] == sum(len(ledger.files) for ledger in self.ledgers)
        assert stats["used"] == sum(entry.size for ledger in self.ledgers for entry in ledger.files.values())
        stored = self.service.stored
        assert 0 < len(stored("blobs")) < stats["blobs"] == self.service.stored_bytes()
        assert len({name.rpartition("/")[0] for name in stored("thumbs")}) <= stats["blobs"]
        assert sum(1 for _ in (self.service.data_dir / "links").glob("*/*")) <= stats["links"]
        report = json.loads(self.service.cli("fsck", "--json", GC_GRACE="0"))
        assert (report["spare"], report["findings"]) == (0, [])

    def has_done(self, least: int) -> bool:
        done = self.acknowledged()
        return all(
            sum(count for name, count in done.items() if name.startswith(what)) >= least
            for what in ("uploads", "deletions")
        )

    def acknowledged(self) -> Counter[str]:
        return sum((ledger.acknowledged for ledger in self.ledgers), Counter[str]())


def test_what_was_acknowledged_survives_any_kill(
    request: pytest.FixtureRequest,
    backend: Callable[[], dict[str, Any]],
    server: Postgres | None,
    tmp_path: Path,
) -> None:
    kills = request.config.getoption("--kills")
    torture = Torture(tmp_path, backend(), server, seeded(request))
    try:
        torture.service.start()
        while torture.kills < kills:
            torture.round()
        # A service that refuses everything would lose nothing, so some must succeed; a slow machine needs more rounds.
        end = time.monotonic() + DEADLINE
        while not torture.has_done(kills) and time.monotonic() < end:
            torture.round()
        assert torture.has_done(kills), torture.acknowledged()
        torture.finish()
    finally:
        torture.kill_service()
        counts = torture.acknowledged() + torture.counts
        print(*(f"{count:8}  {what}" for what, count in sorted(counts.items())), sep="\n")
