"""Many requests at once: quotas hold, bytes are stored once and never lost. Each race is run `--rounds` times."""

from __future__ import annotations

import os
import random
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest

from media_gallery.app import Gallery
from media_gallery.models import Jid
from tests.service import Service, User, assert_error


@pytest.fixture(scope="module")
def pair(start_service: Callable[..., Service]) -> Service:
    return start_service(WORKERS="2")


@pytest.fixture(scope="module")
def admin(pair: Service) -> User:
    return pair.user(jid="admin@example.org")


@pytest.fixture
def rounds(request: pytest.FixtureRequest) -> int:
    return int(request.config.getoption("--rounds"))


def at_once(jobs: list[Callable[[], Any]]) -> list[Any]:
    with ThreadPoolExecutor(len(jobs)) as threads:
        return [job.result() for job in [threads.submit(job) for job in jobs]]


def is_sound(service: Service) -> None:
    """Check that rows, bytes and counts agree, and that there are no spare bytes."""
    assert "0 for gc, 0 wrong" in service.cli("fsck", GC_GRACE="0")


@pytest.mark.parametrize("known", [False, True])
def test_a_quota_is_never_passed(pair: Service, known: bool) -> None:
    user = pair.user()
    pair.cli("account", "set-quota", user.jid, "10000")
    data = os.urandom(1000)
    bodies = [data if known else os.urandom(1000) for _ in range(25)]
    answers = at_once([partial(user.send, body) for body in bodies])
    assert sorted(answer.status_code for answer in answers) == [201] * 10 + [403] * 15
    assert user.used() == 10000 == sum(item["size"] for item in user.items())
    is_sound(pair)


def test_the_number_of_files_of_an_account_is_limited(start_service: Callable[..., Service]) -> None:
    """Empty files count, too. Other accounts still have room."""
    service = start_service(WORKERS="2", FILES_PER_ACCOUNT="5")
    user, other = service.user(), service.user("boris")
    known = user.upload(b"")
    ask = partial(user.get, "files/slot/", name="a", size=0, hash=known["hashes"]["sha-256"])
    answers = at_once([lambda: user.send(b""), lambda: user.send(os.urandom(600_000)), ask, ask] * 3)
    refused = [answer for answer in answers if not answer.is_success]
    assert {answer.status_code for answer in refused} == {403} and len(user.items()) == 5
    assert "as many files" in assert_error(refused[0], 403)["error"]
    assert_error(ask(), 403)
    assert other.upload(b"")
    user.delete("files/", id=known["id"])
    assert user.upload(b"")
    is_sound(service)


def test_slots_count_against_the_quota_at_once(pair: Service) -> None:
    user = pair.user()
    file = user.upload(os.urandom(1000))
    pair.cli("account", "set-quota", user.jid, "5000")
    answers = at_once([partial(user.get, "files/slot/", name="a", size=1000, hash=file["hash"])] * 12)
    assert sorted(answer.status_code for answer in answers) == [200] * 4 + [403] * 8
    assert user.used() == 5000


def test_the_same_bytes_uploaded_at_once_are_stored_once(pair: Service) -> None:
    users, before = [pair.user() for _ in range(4)], pair.stored_bytes()
    data = os.urandom(700_000)
    files = at_once([partial(user.upload, data) for user in users for _ in range(3)])
    assert pair.stored_bytes() == before + 1
    for file in files:
        assert users[0].http.get(file["file"]).content == data
    is_sound(pair)


def test_uploads_against_deletions_of_the_same_bytes(pair: Service, rounds: int) -> None:
    """Who gets a 201 has the file, although others delete its last link all the time."""
    data = [os.urandom(2000) for _ in range(2)]

    def live(user: User, seed: int) -> int:
        dice, done = random.Random(seed), 0
        for _ in range(rounds):
            body = dice.choice(data)
            file = user.upload(body)
            assert user.http.get(file["file"]).content == body
            if dice.random() < 0.3:
                found = user.get("files/slot/", name="again", size=len(body), hash=file["hash"]).json()
                assert user.http.get(found["file"]).content == body
                assert user.delete("files/", id=found["id"]).status_code == 204
            assert user.delete("files/", id=file["id"]).status_code == 204
            assert user.http.get(file["file"]).status_code == 404
            done += 1
        return done

    before = pair.stored_bytes()
    users = [pair.user() for _ in range(6)]
    assert at_once([partial(live, user, n) for n, user in enumerate(users)]) == [rounds] * 6
    assert pair.stored_bytes() == before
    assert all(user.used() == 0 for user in users)
    is_sound(pair)


def test_the_last_link_goes_while_the_same_bytes_come(pair: Service, rounds: int) -> None:
    """Files small and large, in memory and in staging; who deletes asks for a new link at the same moment."""
    before, dice = pair.stored_bytes(), random.Random(rounds)
    anna, *others = users = [pair.user() for _ in range(3)]
    for _ in range(rounds):
        data = os.urandom(600_000 if dice.random() < 0.1 else dice.randint(1, 3000))
        last = anna.upload(data)
        asked = {"name": "again", "size": len(data), "hash": last["hash"]}
        deleted, slot, *files = at_once([
            partial(anna.delete, "files/", id=last["id"]),
            partial(anna.get, "files/slot/", **asked),
            *[partial(user.upload, data) for user in others],
        ])  # fmt: skip
        assert deleted.status_code == 204 and anna.http.get(last["file"]).status_code == 404
        for file in [*files, *([slot.json()] if "id" in slot.json() else [])]:
            assert anna.http.get(file["file"]).content == data
        assert [user.delete("files/percent/100/").status_code for user in users] == [204] * 3
    assert pair.stored_bytes() == before and [user.used() for user in users] == [0, 0, 0]
    is_sound(pair)


def test_the_last_room_in_a_quota_goes_to_one(pair: Service, admin: User, rounds: int) -> None:
    """Uploads and slots over several connections at the edge of a quota. Deletions give back just what was taken."""
    user = pair.user()
    file = user.upload(os.urandom(100))
    asked = {"name": "again", "size": 100, "hash": file["hash"]}
    admin.put("account/quota/", jid=user.jid, value=299)
    for _ in range(rounds):
        jobs: list[Callable[[], Any]] = [lambda: user.send(os.urandom(100)), lambda: user.send(b"a" * 100)]
        jobs += [lambda: user.get("files/slot/", **asked)] * 2
        answers = at_once(jobs)
        assert sorted(answer.status_code for answer in answers)[-3:] == [403] * 3
        [made] = [answer.json() for answer in answers if answer.is_success]
        assert made["used"] == user.used() == 200
        answers = at_once([
            partial(user.delete, "files/", id=made["id"]),
            partial(user.send, b"b" * 100),
        ])  # fmt: skip
        assert answers[0].status_code == 204
        if answers[1].status_code == 201:
            user.delete("files/", id=answers[1].json()["id"])
        assert user.used() == 100
    is_sound(pair)


def test_a_code_is_exchanged_once(pair: Service, rounds: int) -> None:
    codes: dict[str, str] = {}

    class Catching:
        jid = "gallery.invalid"

        async def check(self) -> None: ...

        async def send(self, stanza: str) -> None:
            confirm = ElementTree.fromstring(stanza).find("{http://jabber.org/protocol/http-auth}confirm")
            assert confirm is not None
            codes[f"{len(codes)}@codes.example"] = confirm.attrib["id"]

    async def ask(gallery: Gallery) -> None:
        gallery.accounts.courier = Catching()  # type: ignore[assignment]
        for number in range(rounds):
            jid = Jid.parse(f"{number}@codes.example")
            await gallery.accounts.request_code(jid, "message", "en", "192.0.2.1")

    pair.within(ask)
    for jid, code in codes.items():
        said = {"jid": jid, "code": code}
        answers = at_once([partial(pair.http.post, "/api/v1/account/xmpp_auth/", json=said)] * 3)
        assert sorted(answer.status_code for answer in answers) == [201, 404, 404]


def test_an_account_deleted_while_it_uploads(pair: Service, rounds: int) -> None:
    for _ in range(max(1, rounds // 10)):
        user, before = pair.user(), pair.stored_bytes()
        file = user.upload(os.urandom(3000))
        asked = {"name": "again", "size": 3000, "hash": file["hash"]}

        def upload(user: User = user, asked: dict[str, Any] = asked) -> set[int]:
            got = {user.send(os.urandom(size)).status_code for size in (5000, 600_000, 3000)}
            return got | {user.get("files/slot/", **asked).status_code}

        *results, deleted = at_once([*[upload] * 4, partial(user.delete, "account/")])
        assert deleted.status_code == 204
        assert set().union(*results) <= {200, 201, 401}
        again = pair.user(jid=user.jid)
        assert again.items() == [] and again.used() == 0
        assert pair.stored_bytes() == before
    is_sound(pair)


def test_one_file_deleted_twice_at_once_goes_once(pair: Service, rounds: int) -> None:
    user = pair.user()
    for _ in range(rounds):
        file, kept = user.upload(os.urandom(100)), user.upload(os.urandom(50))
        answers = at_once([partial(user.delete, "files/", id=file["id"])] * 4)
        assert sorted(answer.status_code for answer in answers) == [204, 404, 404, 404]
        assert user.used() == 50
        user.delete("files/", id=kept["id"])
