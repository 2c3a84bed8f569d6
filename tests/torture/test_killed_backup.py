"""A backup is killed at a random moment: then either the earlier one is whole, or the new one."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from media_gallery.backup import blob_path
from tests.service import PROGRAM, Service, environment
from tests.torture.seed import seeded

pytestmark = pytest.mark.timeout(0)  # the long forms take long; each single wait has its own deadline


def contents(target: Path) -> set[int]:
    """Ids of the links in a backup. Checks that it has the bytes of each."""
    with closing(sqlite3.connect(f"file:{target / 'gallery.sqlite'}?mode=ro", uri=True)) as database:
        rows = database.execute("SELECT l.id, b.key, b.size FROM links l JOIN blobs b ON b.id = l.blob_id").fetchall()
    for id_, key, size in rows:
        assert blob_path(target, key).stat().st_size == size, f"the bytes of {id_} are not in the backup"
    return {id_ for id_, _, _ in rows}


def test_a_killed_backup_leaves_the_earlier_one_whole(
    request: pytest.FixtureRequest, start_service: Callable[..., Service], tmp_path: Path
) -> None:
    service, dice = start_service(), seeded(request)
    user, target = service.user(), tmp_path / "copy"
    for _ in range(60):
        user.upload(os.urandom(500))
    begun = time.monotonic()
    service.cli("backup", str(target))
    whole = time.monotonic() - begun
    earlier, cut = contents(target), 0
    for _ in range(request.config.getoption("--kills")):
        user.delete("files/percent/20/")
        for _ in range(15):
            user.upload(os.urandom(500))
        now = {item["id"] for item in user.items(obj_per_page=500)}
        run = subprocess.Popen(
            [PROGRAM, "backup", str(target)], env=environment(**service.settings), stdout=subprocess.DEVNULL
        )
        time.sleep(dice.uniform(whole * 0.3, whole))
        run.send_signal(signal.SIGKILL)
        cut += run.wait() == -signal.SIGKILL
        found = contents(target)
        assert found in (earlier, now)
        earlier = found
    print(f"{cut} backups were cut short")
    service.cli("backup", str(target))
    assert contents(target) == now
    files = [path for path in target.rglob("*") if path.is_file()]
    assert len(files) == 1 + len(now), "what was cut short has left something"
