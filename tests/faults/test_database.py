"""The database is away, locked, or migrated by two at once."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.postgres import Postgres
from tests.service import PROGRAM, Service, assert_error, environment


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


def test_a_locked_file_is_503_and_then_works_again(start_service: Callable[..., Service]) -> None:
    service = start_service(DATABASE_URL="")
    user = service.user()
    lock = sqlite3.connect(service.data_dir / "gallery.sqlite", isolation_level=None)
    lock.execute("BEGIN IMMEDIATE")
    assert user.get("files/").status_code == 200  # reading goes on
    assert_error(user.send(b"cannot be written"), 503)
    assert user.get("files/stats/").status_code == 200
    lock.execute("ROLLBACK")
    assert user.upload(b"can be")["used"] == 6
    lock.close()


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_two_may_migrate_at_once(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    url = request.getfixturevalue("postgres").new_database() if kind == "postgres" else ""
    command = [PROGRAM, "db", "upgrade"]
    settings = environment(DATA_DIR=tmp_path, DATABASE_URL=url)
    with ThreadPoolExecutor(4) as threads:
        done = list(
            threads.map(lambda _: subprocess.run(command, env=settings, capture_output=True, text=True), range(4))
        )
    assert [run.returncode for run in done] == [0] * 4, [run.stderr for run in done]
    assert sorted("nothing" in run.stdout for run in done) == [False, False, False, True]


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
    two = start_service(DATABASE_URL=url, DATA_DIR=one.data_dir)
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
