"""Migrations from nothing and from each earlier schema, even if they are interrupted."""

from __future__ import annotations

import hashlib
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection as SqlConnection
from sqlalchemy import text

from media_gallery.app import Gallery
from media_gallery.db import migrate
from media_gallery.db.tables import metadata
from media_gallery.keeping import Kept
from media_gallery.models import Digest
from media_gallery.offers import Offer
from media_gallery.settings import Settings
from tests.postgres import Postgres
from tests.service import PROGRAM, Service, environment

# These tests run on both databases, whatever the options of the run name.
pytestmark = pytest.mark.same_everywhere


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def new_database(request: pytest.FixtureRequest) -> Iterator[Callable[[], str]]:
    """Makes an empty database and returns its address. An empty address is a file in the data directory."""
    if request.param == "sqlite":
        yield str
        return
    server = Postgres()
    yield server.new_database
    server.stop()


def _upgrade(settings: Settings, revision: str) -> None:
    def work(connection: SqlConnection) -> None:
        config = migrate._config()
        config.attributes["connection"] = connection
        command.upgrade(config, revision)

    migrate._connected(settings, work)


def test_two_may_migrate_at_once(new_database: Callable[[], str], tmp_path: Path) -> None:
    url = new_database()
    command = [PROGRAM, "db", "upgrade"]
    settings = environment(DATA_DIR=tmp_path, DATABASE_URL=url)
    with ThreadPoolExecutor(4) as threads:
        done = list(
            threads.map(lambda _: subprocess.run(command, env=settings, capture_output=True, text=True), range(4))
        )
    assert [run.returncode for run in done] == [0] * 4, [run.stderr for run in done]
    assert sorted("nothing" in run.stdout for run in done) == [False, False, False, True]


def test_a_migration_that_was_cut_short_is_made_again(new_database: Callable[[], str], tmp_path: Path) -> None:
    """It is killed after each statement in turn, and then leaves nothing. The last, complete run does everything."""
    url = new_database()
    cut = f"""
import os, signal
from media_gallery.db import migrate
from media_gallery.settings import Settings
from sqlalchemy import event
from sqlalchemy.engine import Engine
settings = Settings(data_dir={str(tmp_path)!r}, database_url={url!r})
migrate._config(), __import__("asyncpg"), __import__("alembic.command")
left = 0
@event.listens_for(Engine, "after_cursor_execute")
def count(connection, cursor, statement, *_):
    global left
    left -= 1
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)
for last in range(1, 1000):
    if not (child := os.fork()):
        left = last
        assert migrate.upgrade(settings)[0] is None
        os._exit(0)
    if not os.wait()[1]:
        break
    assert migrate.current(settings) is None
print(last)
"""
    done = subprocess.run([sys.executable, "-c", cut], env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 20  # the migration had at least this many statements
    done = subprocess.run([PROGRAM, "db", "upgrade"], env=environment(DATA_DIR=tmp_path, DATABASE_URL=url),
                          capture_output=True, text=True)  # fmt: skip
    assert "up to date" in done.stdout, done.stderr


def test_migrations_lead_to_the_tables_that_are_described(new_database: Callable[[], str], tmp_path: Path) -> None:
    """All migrations from the first schema, as for a new database."""
    url = new_database()
    settings = Settings(data_dir=tmp_path, database_url=url)

    def differences(connection: SqlConnection) -> list[Any]:
        return list(compare_metadata(MigrationContext.configure(connection), metadata))

    _upgrade(settings, "0001")
    assert migrate.upgrade(settings) == ("0001", migrate.newest())
    assert migrate._connected(settings, differences) == []


ONE_FILE = """
INSERT INTO accounts (id, jid, vhost, used, files, created_at) VALUES (1, 'anna@example.org', 'example.org', 4, 1, 1);
INSERT INTO usage (account_id, category, files, used) VALUES (1, 'file', 1, 4);
INSERT INTO blobs (id, sha256, sha1, size, key, links, created_at) VALUES (1, '{sha256}', '{sha1}', 4, '{key}', 1, 1);
INSERT INTO links (id, account_id, blob_id, slot_id, name, folded, size, media_type, context, category, metadata,
                   thumbnails, created_at)
VALUES (1, 1, 1, '{slot}', 'kept.txt', 'kept.txt', 4, 'text/plain', 'file', 'file', '{{}}', TRUE, 1)
"""
"""Rows that each earlier schema could hold."""


@pytest.mark.parametrize("revision", migrate.revisions()[:-1])
def test_a_filled_database_of_each_earlier_schema_is_upgraded(
    new_database: Callable[[], str], tmp_path: Path, revision: str
) -> None:
    service, key, slot = Service(tmp_path, DATABASE_URL=new_database()), secrets.token_hex(16), secrets.token_hex(16)
    service.data_dir.mkdir()
    settings = Settings(data_dir=service.data_dir, database_url=service.settings["DATABASE_URL"])
    sha256, sha1 = hashlib.sha256(b"kept").hexdigest(), hashlib.sha1(b"kept").hexdigest()

    def fill(connection: SqlConnection) -> None:
        for statement in ONE_FILE.format(sha256=sha256, sha1=sha1, key=key, slot=slot).split(";"):
            connection.execute(text(statement))
        for table in ("accounts", "blobs", "links") if settings.database_url else ():
            connection.execute(text(f"SELECT setval('{table}_id_seq', 1)"))

    _upgrade(settings, revision)
    migrate._connected(settings, fill)
    blob = service.data_dir / "blobs" / key[:2] / key
    blob.parent.mkdir(parents=True)
    blob.write_bytes(b"kept")
    assert migrate.newest() in service.cli("db", "upgrade")
    service.cli("fsck", "--repair")  # publishes its link
    assert ", 0 wrong" in service.cli("fsck")

    async def use(gallery: Gallery) -> None:
        assert (await gallery.files.find(slot, "kept.txt")).link.blob.size == 4
        account = await gallery.accounts.get("anna@example.org")
        hit = await gallery.uploads.slot(account, Offer("again.txt", 4, Digest.parse(sha1)))
        assert isinstance(hit, Kept) and hit.quota.used == 8
        async with gallery.uploads.begin(account.id, 4) as upload:
            await upload.write(b"kept")
            assert (await upload.finish(Offer("again.txt"))).link.id == hit.link.id

    service.within(use)
