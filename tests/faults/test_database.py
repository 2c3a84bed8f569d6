"""The database is away or locked, or two processes migrate it at once."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import asyncpg
import pytest

from media_gallery.db import Connection, migrate, started_database
from media_gallery.db.accounts import list_closed
from media_gallery.db.postgres import PostgresDatabase, translate
from media_gallery.errors import Unavailable
from media_gallery.settings import Settings
from tests.postgres import Postgres
from tests.service import MIB, Service, assert_error
from tests.waiting import wait_until

# These tests are the same on every back end, or name the back end that they use.
pytestmark = pytest.mark.same_everywhere


@pytest.fixture
def postgres() -> Iterator[Postgres]:
    server = Postgres()
    yield server
    server.stop()


def test_a_server_that_goes_and_comes_back(postgres: Postgres, start_service: Callable[..., Service]) -> None:
    service = start_service(DATABASE_URL=postgres.new_database())
    user = service.user()
    file = user.upload(b"before")
    postgres.pause()
    assert_error(user.get("files/"), 503)
    answer = user.send(b"while it is away")
    assert_error(answer, 503)
    assert int(answer.headers["Retry-After"]) > 0
    assert_error(service.http.get("/readyz"), 503)
    assert service.http.get("/healthz").is_success
    postgres.resume()
    service.wait_until(lambda: user.get("files/").status_code == 200)
    assert user.upload(b"after")["used"] == len(b"before") + len(b"after")
    assert user.http.get(file["file"]).content == b"before"
    assert "0 wrong" in service.cli("fsck")


def test_a_server_that_stands_still(postgres: Postgres, start_service: Callable[..., Service]) -> None:
    service = start_service(DATABASE_URL=postgres.new_database())
    user = service.user()
    user.upload(b"before")
    taken, stop = [user.upload(b"again")], threading.Event()

    def ask(path: str) -> None:
        assert_error(service.http.get(path) if path.startswith("/") else user.get(path), 503)

    def upload(number: int) -> None:
        while not stop.is_set():
            answer = user.send(f"{number} {len(taken)}".encode())
            if answer.status_code == 201:
                taken.append(answer.json())
            else:
                assert_error(answer, 503)

    with ThreadPoolExecutor(20) as threads:
        uploading = [threads.submit(upload, number) for number in range(4)]
        service.wait_until(lambda: len(taken) > 8)
        with postgres.hanging():  # it hangs until all requests are answered
            for _ in threads.map(ask, ["files/", "files/", "files/?name=x", "account/quota/", "/readyz"] * 2):
                pass
        service.wait_until(lambda: user.get("files/").status_code == 200)
        stop.set()
        for done in uploading:
            done.result()
    assert user.upload(b"after")
    assert {file["id"] for file in taken} <= {item["id"] for item in user.everything()}
    assert "0 wrong" in service.cli("fsck")


async def test_a_connection_goes_back_to_the_pool_without_a_round_trip(postgres: Postgres) -> None:
    """What its session was asked last is our own query. The turn of upkeep is free again, nevertheless."""
    database = PostgresDatabase(postgres.new_database())
    locks = (
        "SELECT COUNT(*) FROM pg_locks JOIN pg_database ON pg_database.oid = database"
        " WHERE locktype = 'advisory' AND datname = current_database()"
    )
    await database.start()
    for _ in range(2):
        async with database.turn() as ours:
            other = await asyncpg.connect(database.url)
            assert ours and await other.fetchval(locks) == 1
            await other.close()
    row = await database.read(lambda c: c.one("SELECT pg_backend_pid() AS mine"))
    other = await asyncpg.connect(database.url)
    last = await other.fetchval("SELECT query FROM pg_stat_activity WHERE pid = $1", row[0] if row else 0)
    assert last == "SELECT pg_backend_pid() AS mine" and await other.fetchval(locks) == 0
    await other.close()
    await database.close()


def test_a_connection_that_broke_when_it_went_back_to_the_pool_counts_as_unavailable() -> None:
    assert isinstance(translate(asyncpg.InternalClientError("cannot switch to state 15")), Unavailable)


def test_a_locked_file_is_503_and_then_works_again(start_service: Callable[..., Service]) -> None:
    service = start_service(DATABASE_URL="")
    user = service.user()
    lock = sqlite3.connect(service.data_dir / "gallery.sqlite", isolation_level=None)
    kept = user.upload(b"before")
    before = service.stored("blobs", "links", "staging")
    lock.execute("BEGIN IMMEDIATE")
    assert user.get("files/").status_code == 200  # it can still be read
    for data in (b"cannot be written", os.urandom(MIB), b"before"):
        assert_error(user.send(data), 503)
    assert_error(user.get("files/slot/", name="b.txt", size=6, hash=kept["hash"]), 503)
    assert_error(service.http.get("/readyz"), 503)
    assert user.get("files/stats/").status_code == 200
    assert service.stored("blobs", "links", "staging") == before, "nothing of what surely has not happened"
    lock.execute("ROLLBACK")
    assert user.upload(b"can be")["used"] == 12
    lock.close()


def test_a_stopped_command_that_holds_the_lock_delays_nobody(
    start_service: Callable[..., Service],
) -> None:
    service = start_service(DATABASE_URL="")
    user = service.user()
    with (service.data_dir / "gallery.sqlite.turn").open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        with ThreadPoolExecutor(10) as threads:
            for answer in threads.map(lambda _: user.send(b"cannot be written"), range(10)):
                assert_error(answer, 503)
        assert_error(service.http.get("/readyz"), 503)
        assert user.get("files/").status_code == 200
    assert service.http.get("/readyz").status_code == 200
    assert user.upload(b"can be")["used"] == 6, "nothing that was refused has come later"
    assert "0 wrong" in service.cli("fsck")


def test_the_service_does_not_start_if_its_lock_file_cannot_be_opened(tmp_path: Path) -> None:
    service = Service(tmp_path, DATABASE_URL="")
    (service.data_dir / "gallery.sqlite.turn").mkdir(parents=True)
    assert "gallery.sqlite.turn cannot be opened" in service.cli("serve", code=1)


async def test_the_writer_goes_on_after_unexpected_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    migrate.upgrade(settings := Settings(data_dir=tmp_path))
    async with started_database(settings) as db:

        async def never(c: Connection) -> None:
            await asyncio.sleep(1)  # a query must not await anything else

        with monkeypatch.context() as broken:
            broken.setattr(db._writer, "_one", lambda query: 1 / 0)  # type: ignore[attr-defined]
            failed = await asyncio.gather(*(db.write(list_closed) for _ in range(3)), return_exceptions=True)
        assert [type(error) for error in failed] == [ZeroDivisionError] * 3
        with pytest.raises(RuntimeError):
            await db.write(never)
        assert not await db.write(list_closed)


def test_options_and_several_hosts_in_the_address(postgres: Postgres, start_service: Callable[..., Service]) -> None:
    url = postgres.new_database()
    several = url.replace("@", "@127.0.0.1:1,") + "?sslmode=disable&application_name=elsewhere"
    service = start_service(DATABASE_URL=several)
    service.user().upload(b"taken")
    assert "0 wrong" in service.cli("fsck")
    assert "up to date" in service.cli("db", "upgrade")

    async def names() -> set[str]:
        connection = await asyncpg.connect(url)
        rows = await connection.fetch(
            "SELECT application_name FROM pg_stat_activity WHERE datname = current_database()"
        )
        await connection.close()
        return {row[0] for row in rows}

    assert "elsewhere" in asyncio.run(names())
    name = url.rpartition("/")[2]
    socket = f"postgresql://postgres@/{name}?host={postgres.directory}&port={postgres.port}"
    assert "0 wrong" in service.cli("fsck", DATABASE_URL=socket)
    again = postgres.new_database()
    by_socket = f"postgresql:///{again.rpartition('/')[2]}?user=postgres&host={postgres.directory}&port={postgres.port}"
    assert "Migrated from nothing" in service.cli("db", "upgrade", DATABASE_URL=by_socket)
    for wrong in ("?sslmode=sometimes", "?no_such_option=1", "?sslmode=verify-full&sslrootcert=/none"):
        told = service.cli("fsck", code=1, DATABASE_URL=url + wrong)
        assert "database cannot be reached" in told and "Traceback" not in told


def test_a_deadlock_is_broken_and_nobody_sees_it(postgres: Postgres, start_service: Callable[..., Service]) -> None:
    """Another transaction locks rows in the wrong order. PostgreSQL ends that of the upload, which is run again.

    PostgreSQL looks for a deadlock once, a second after the upload began to wait. If the other transaction is not
    waiting by then, PostgreSQL ends the other one, and the upload may be refused. Then the test tries again.
    """
    url = postgres.new_database()
    service = start_service(DATABASE_URL=url)
    user = service.user()
    taken, others = [user.upload(b"first")], list[Exception]()

    async def deadlocks() -> int:
        one = await asyncpg.connect(url)
        found = await one.fetchval("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
        await one.close()
        return int(found)

    async def cross() -> bool:
        one, ours = await asyncpg.connect(url), True
        await one.execute("SET deadlock_timeout = '3s'")
        try:
            async with one.transaction():
                await one.execute("SELECT 1 FROM usage FOR UPDATE")
                sending = asyncio.create_task(asyncio.to_thread(user.send, b"another"))
                while not await one.fetchval("SELECT COUNT(*) FROM pg_locks WHERE NOT granted"):  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
                await one.execute("SELECT 1 FROM accounts FOR UPDATE")
        except asyncpg.DeadlockDetectedError as error:
            ours = False
            others.append(error)
        answer = await sending
        await one.close()
        if answer.status_code == 201:
            taken.append(answer.json())
        else:
            assert_error(answer, 503)
        return ours and answer.status_code == 201

    wait_until(lambda: asyncio.run(cross()))
    wait_until(lambda: asyncio.run(deadlocks()) > len(others))
    assert user.used() == sum(file["size"] for file in taken)
    assert "0 wrong" in service.cli("fsck")


def test_a_password_in_the_address_is_not_shown(tmp_path: Path) -> None:
    service = Service(tmp_path, DATABASE_URL="postgresql://gallery:s3cret@127.0.0.1:1/gallery")
    shown = service.cli("config")
    assert "s3cret" not in shown and "postgresql://gallery:" in shown
    told = service.cli("serve", code=1)
    assert "database cannot be reached" in told and "s3cret" not in told


def test_two_services_on_one_database_and_one_directory(
    postgres: Postgres, start_service: Callable[..., Service]
) -> None:
    url = postgres.new_database()
    one = start_service(DATABASE_URL=url)
    two = start_service(DATABASE_URL=url, DATA_DIR=one.data_dir, STORAGE_URL=one.settings.get("STORAGE_URL", ""))
    user = one.user()
    elsewhere = type(user)(two, user.jid, user.token)
    files = [place.upload(os.urandom(3000), f"{n}.bin") for n, place in enumerate([user, elsewhere] * 5)]
    assert (
        {item["id"] for item in elsewhere.items()}
        == {file["id"] for file in files}
        == {item["id"] for item in user.items()}
    )
    assert one.process
    os.killpg(one.process.pid, signal.SIGKILL)
    for file in files:
        path = file["file"].replace(one.url, two.url)
        assert len(elsewhere.http.get(path).content) == 3000
        assert elsewhere.delete("files/", id=file["id"]).status_code == 204
    assert elsewhere.used() == 0
