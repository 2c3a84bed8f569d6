"""Rates that several hosts count together in a real Redis, and rates of one host in a damaged file."""

from __future__ import annotations

import os
import socket
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from media_gallery.errors import NoSpace, NotFound, TooManyRequests, Unavailable
from media_gallery.rates import make_rates
from media_gallery.settings import Settings
from tests.redis import Redis
from tests.service import Service, User, assert_error
from tests.waiting import wait_until

# These tests are the same on every back end, or name the back end that they use.
pytestmark = pytest.mark.same_everywhere


@pytest.fixture
def redis() -> Iterator[Redis]:
    server = Redis()
    yield server
    server.stop()


def test_two_hosts_count_together(redis: Redis, start_service: Callable[..., Service]) -> None:
    one, two = (start_service(RATES_URL=redis.url, RATE_UPLOAD="5/hour", RATE_CODE_TRY_JID="4/hour") for _ in range(2))
    first = one.user(jid="anna@example.org")
    second = two.user(jid="anna@example.org")  # its database is another one, where the account has the same number
    statuses = [user.send(b"x").status_code for user in (first, second) * 4]
    assert statuses == [201] * 5 + [429] * 3
    body = {"jid": "boris@example.org", "code": "000000"}
    tries = [s.http.post("/api/v1/account/xmpp_auth/", json=body) for s in (one, two) * 3]
    assert [answer.status_code for answer in tries] == [404] * 4 + [429] * 2
    assert 0 < int(tries[-1].headers["Retry-After"]) <= 3601
    assert one.http.get("/readyz").status_code == 200
    redis.stop()
    assert_error(first.send(b"x"), 503)
    assert_error(one.http.get("/readyz"), 503)
    assert one.log().count("rates cannot be counted") == 1
    assert first.get("files/").status_code == 200


def test_a_redis_that_hangs_stops_nobody(start_service: Callable[..., Service]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # it accepts connections and answers nothing
        service = start_service(RATES_URL=f"redis://127.0.0.1:{silent.getsockname()[1]}/0")
        assert "rates cannot be counted" in service.log()
        user = service.user()
        for ask in (
            partial(user.send, b"x"),
            partial(user.get, "files/slot/", name="a.txt", size=1),
            partial(service.http.get, "/readyz"),
        ):
            answer = ask()
            assert_error(answer, 503)
            assert int(answer.headers["Retry-After"]) > 0
        assert user.get("files/").status_code == 200


def test_where_a_jid_has_signed_in_is_known_to_all_hosts(
    redis: Redis, start_service: Callable[..., Service], backend: Callable[[], dict[str, Any]], tmp_path: Path
) -> None:
    shared = {"DATABASE_URL": f"sqlite:///{tmp_path}/shared.sqlite", **backend(), "RATES_URL": redis.url}
    one, two = (start_service(**shared, RATE_CODE_REQUEST_JID="1/day") for _ in range(2))
    body = {"jid": "carla@example.org"}

    def call(host: Service, path: str, address: str, **more: str) -> int:
        headers = {"X-Forwarded-For": address}
        return host.http.post(f"/api/v1/account/{path}/", json=body | more, headers=headers).status_code

    assert call(one, "xmpp_code_request", "192.0.2.1") == 201
    [code] = [line["code"] for line in one.log_lines() if "code" in line]
    assert call(one, "xmpp_auth", "192.0.2.1", code=code) == 201
    asked = [call(two, "xmpp_code_request", f"192.0.2.{n}") for n in (2, 1, 1)]
    assert asked == [429, 201, 429]


def test_without_redis_each_host_counts_for_itself(start_service: Callable[..., Service]) -> None:
    users: list[User] = [start_service(RATE_UPLOAD="2/hour").user() for _ in range(2)]
    for user in users:
        assert [user.send(b"x").status_code for _ in range(3)] == [201, 201, 429]


def test_a_damaged_file_of_counters_is_replaced(start_service: Callable[..., Service]) -> None:
    service = start_service(RATE_UPLOAD="3/hour", WORKERS="2")
    user, path = service.user(), service.data_dir / "rates.sqlite"
    assert user.send(b"x").status_code == 201
    service.stop()
    for end in ("-wal", "-shm"):
        path.with_name(path.name + end).unlink(missing_ok=True)
    path.write_bytes(os.urandom(20_000))
    service.start()
    assert "begun anew" in service.log()
    assert [user.send(b"x").status_code for _ in range(5)] == [201] * 3 + [429] * 2


def test_counters_that_are_damaged_while_they_are_used(start_service: Callable[..., Service]) -> None:
    service = start_service(RATE_UPLOAD="30/hour", WORKERS="2")
    user, path = service.user(), service.data_dir / "rates.sqlite"

    def status() -> int:
        """The status of an upload over its own connection, which either worker may take."""
        return User(service, user.jid, user.token).send(b"x").status_code

    def noticed() -> bool:
        for place in path.parent.glob(f"{path.name}*"):
            with suppress(FileNotFoundError):  # a worker has just begun it anew
                if not place.name.endswith("-shm"):
                    place.write_bytes(os.urandom(place.stat().st_size))
        assert {status() for _ in range(10)} <= {201, 429}
        return "begun anew" in service.log()

    assert status() == 201
    wait_until(noticed)
    wait_until(lambda: status() == 429)
    assert {status() for _ in range(20)} == {429}  # both workers count in the new file


@pytest.mark.parametrize("kind", ["file", "redis"])
async def test_what_cannot_be_done_counts_for_nothing(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = request.getfixturevalue("redis").url if kind == "redis" else ""
    rates = make_rates(Settings(data_dir=tmp_path, rates_url=url))
    one, other, third = ("one", "2/hour", "x"), ("other", "3/hour; 9/day", "y"), ("third", "1/hour", "z")
    for failure in [Unavailable, NoSpace] * 3:
        with pytest.raises(failure):
            async with rates.counting(one, other):
                raise failure
    for _ in range(2):
        async with rates.counting(one, other):
            pass
    for _ in range(3):
        with pytest.raises(TooManyRequests):
            async with rates.counting(other, one):
                pytest.fail("let through")
    async with rates.counting(other):
        pass  # the third time, since what the first limit refused does not count here
    for expected in (NotFound, TooManyRequests):  # a wrong code counts as a try
        with pytest.raises(expected):
            async with rates.counting(third):
                raise NotFound
    await rates.close()


def _with_table(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path)) as other:
        other.execute(statement)
        other.commit()


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "empty": lambda path: path.write_bytes(b""),
    "zeros": lambda path: path.write_bytes(bytes(20_000)),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:100]),
    "removed": lambda path: path.unlink(),
    "no table": lambda path: _with_table(path, "DROP TABLE rates"),
    "another table": lambda path: _with_table(path, "ALTER TABLE rates DROP COLUMN count"),
}


@pytest.mark.parametrize("used", [False, True], ids=["before it is used", "while it is used"])
@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_bad_file_of_counters_is_never_an_error(damage: str, used: bool, tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    rates = make_rates(settings)
    await rates.hit("upload", "2/hour", "anna")
    if not used:
        await rates.close()
    DAMAGES[damage](tmp_path / "rates.sqlite")
    if not used:
        rates = make_rates(settings)
    await rates.check()
    for _ in range(2):
        await rates.hit("upload", "3/hour", "anna")
    for _ in range(2):
        with suppress(TooManyRequests):  # earlier counts may be lost or kept
            await rates.hit("upload", "3/hour", "anna")
    with pytest.raises(TooManyRequests):
        await rates.hit("upload", "3/hour", "anna")
    await rates.sweep()
    await rates.close()


async def test_a_service_that_cannot_count_is_not_ready(tmp_path: Path) -> None:
    rates = make_rates(settings := Settings(data_dir=tmp_path))
    with closing(sqlite3.connect(tmp_path / "rates.sqlite", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Unavailable):
            await rates.check()
        with pytest.raises(Unavailable):
            await rates.hit("upload", "2/hour", "anna")
    await rates.check()
    await rates.close()
    for end in ("", "-wal", "-shm"):
        (tmp_path / f"rates.sqlite{end}").unlink(missing_ok=True)
    (tmp_path / "rates.sqlite").mkdir()
    with pytest.raises(Unavailable, match=r"rates\.sqlite cannot be opened"):
        make_rates(settings)
