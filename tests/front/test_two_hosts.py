"""Two hosts behind nginx, on one PostgreSQL, one S3 store and one Redis."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import httpx
import pytest

from tests import samples
from tests.front.nginx import PROGRAM, Nginx
from tests.postgres import Postgres
from tests.redis import Redis
from tests.s3 import S3
from tests.service import Service, User, anyone, assert_error, http_client

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="nginx is not installed")


@pytest.fixture(scope="module")
def shared(bucket: S3) -> Iterator[dict[str, str]]:
    """Settings that all hosts have in common."""
    postgres, redis = Postgres(), Redis()
    yield {"DATABASE_URL": postgres.new_database(), "RATES_URL": redis.url, **bucket.settings()}
    postgres.stop()
    redis.stop()


@dataclass
class Hosts:
    one: Service
    two: Service
    front: Nginx

    def user(self, host: Service, user: User) -> User:
        """The same account, at one of the hosts."""
        return User(host, user.jid, user.token)

    def at_front(self, url: str) -> str:
        """The same address at nginx."""
        return self.front.url + url[url.index("/media/") :]

    def through_front(self, user: User) -> User:
        reached = User(self.one, user.jid, user.token)
        reached.http = http_client(f"{self.front.url}/api/v1/", {"Authorization": f"Bearer {user.token}"})
        return reached


@contextmanager
def two_hosts(shared: dict[str, str], start_service: Callable[..., Service], directory: Path) -> Iterator[Hosts]:
    one, two = (start_service(**shared, RATE_SLOT="6/day") for _ in range(2))
    front = Nginx(directory / "nginx", one, tls=False, others=[two])
    yield Hosts(one, two, front)
    front.stop()


@pytest.fixture(scope="module")
def hosts(
    shared: dict[str, str], start_service: Callable[..., Service], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Hosts]:
    with two_hosts(shared, start_service, tmp_path_factory.mktemp("front")) as hosts:
        yield hosts


def test_begun_on_one_and_finished_on_the_other(hosts: Hosts) -> None:
    user = hosts.one.user()
    there = hosts.user(hosts.two, user)
    data = samples.picture("jpeg", 500, 400)
    file = user.upload(data, "photo.jpg")
    assert there.items()[0]["id"] == file["id"]
    path = file["file"].removeprefix(hosts.one.url)
    assert hosts.two.http.get(path).content == data
    assert hosts.two.http.get(file["thumbnail"]["url"].removeprefix(hosts.one.url)).content[8:12] == b"WEBP"
    found = there.get("files/slot/", name="again.jpg", size=len(data), hash=hashlib.sha1(data).hexdigest())
    assert found.json()["slot_id"] != file["slot_id"]
    assert there.delete("files/", id=file["id"]).status_code == 204
    assert_error(hosts.one.http.get(path), 404)
    assert [item["name"] for item in user.items()] == ["again.jpg"]
    [token] = there.items("account/tokens/")
    assert there.delete("account/tokens/", token_id=token["token_id"]).status_code == 204
    assert user.get("files/").status_code == 401


def test_a_code_of_one_is_taken_by_the_other_and_tries_are_counted_together(hosts: Hosts) -> None:
    jid = "anna@two-hosts.example"
    assert hosts.one.http.post("/api/v1/account/xmpp_code_request/", json={"jid": jid}).status_code == 201
    hosts.one.wait_until(lambda: any(line.get("jid") == jid for line in hosts.one.log_lines()))
    code = next(line["code"] for line in hosts.one.log_lines() if line.get("jid") == jid)
    token = hosts.two.http.post("/api/v1/account/xmpp_auth/", json={"jid": jid, "code": code})
    assert token.status_code == 201
    anna = User(hosts.one, jid, token.json()["token"])
    asked = [hosts.user(host, anna).get("files/slot/", name="x", size=1) for host in (hosts.one, hosts.two) * 4]
    assert [answer.status_code for answer in asked] == [200] * 6 + [429] * 2


@dataclass
class Kept:
    """What the service has acknowledged to one client."""

    files: list[tuple[str, bytes]] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    failed: int = 0


@pytest.fixture
def doomed(shared: dict[str, str], start_service: Callable[..., Service], tmp_path: Path) -> Iterator[Hosts]:
    """Hosts of which a test may end one."""
    with two_hosts(shared, start_service, tmp_path) as hosts:
        yield hosts


def test_a_host_that_is_killed_under_load_loses_nothing(doomed: Hosts) -> None:
    hosts = doomed
    stop, accounts = threading.Event(), [hosts.one.user() for _ in range(4)]

    def live(user: User, kept: Kept) -> None:
        reached = hosts.through_front(user)
        for round in count():
            if stop.is_set():
                return
            data = os.urandom(20_000)
            try:
                answer = reached.send(data, "file.bin")
                if answer.status_code == 201:
                    kept.files.append((answer.json()["file"], data))
                kept.failed += answer.status_code != 201
                if round % 3 == 2 and kept.files:
                    url, _ = kept.files.pop()  # unless there is an answer, it may be deleted or not
                    slot = url.split("/")[-2]
                    gone = next(item for item in reached.items() if item["slot_id"] == slot)
                    if reached.delete("files/", id=gone["id"]).status_code == 204:
                        kept.deleted.append(url)
            except httpx.TransportError:
                kept.failed += 1

    all_kept = [Kept() for _ in accounts]
    threads = [threading.Thread(target=live, args=pair) for pair in zip(accounts, all_kept, strict=True)]
    for thread in threads:
        thread.start()
    hosts.one.wait_until(lambda: all(kept.deleted for kept in all_kept))
    assert hosts.two.process
    os.killpg(hosts.two.process.pid, signal.SIGKILL)
    before = sum(len(kept.files) for kept in all_kept)
    hosts.one.wait_until(lambda: sum(len(kept.files) for kept in all_kept) > before + 8)
    stop.set()
    for thread in threads:
        thread.join()
    hosts.two.process.wait()
    shutil.rmtree(hosts.two.data_dir)  # that host does not come back
    for user, kept in zip(accounts, all_kept, strict=True):
        for url, data in kept.files:
            assert anyone.get(hosts.at_front(url)).content == data
        for url in kept.deleted:
            assert anyone.get(hosts.at_front(url)).status_code == 404
        assert len(user.everything()) >= len(kept.files)
    assert any(kept.deleted for kept in all_kept)
    assert ", 0 wrong" in hosts.one.cli("fsck")
