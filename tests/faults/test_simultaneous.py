"""Many requests at once: quotas hold, bytes are stored once and never lost."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.service import Service, User


@pytest.fixture(scope="module")
def pair(start_service: Callable[..., Service]) -> Service:
    return start_service(WORKERS="2")


def at_once(jobs: list[Callable[[], Any]]) -> list[Any]:
    with ThreadPoolExecutor(len(jobs)) as threads:
        return [job.result() for job in [threads.submit(job) for job in jobs]]


def is_sound(service: Service) -> None:
    """Rows, bytes and counts agree, and nothing is spare."""
    assert "0 for gc, 0 wrong" in service.cli("fsck", GC_GRACE="0")


@pytest.mark.parametrize("known", [False, True])
def test_a_quota_is_never_passed(pair: Service, known: bool) -> None:
    user = pair.user()
    pair.cli("account", "set-quota", user.jid, "10000")
    data = os.urandom(1000)
    bodies = [data if known else os.urandom(1000) for _ in range(25)]
    answers = at_once([lambda body=body: user.send(body).status_code for body in bodies])  # type: ignore[misc]
    assert sorted(answers) == [201] * 10 + [403] * 15
    assert user.used() == 10000 == sum(item["size"] for item in user.items())
    is_sound(pair)


def test_slots_count_against_the_quota_at_once(pair: Service) -> None:
    user = pair.user()
    file = user.upload(os.urandom(1000))
    pair.cli("account", "set-quota", user.jid, "5000")
    ask = lambda: user.get("files/slot/", name="a", size=1000, hash=file["hash"]).status_code  # noqa: E731
    assert sorted(at_once([ask] * 12)) == [200] * 4 + [403] * 8
    assert user.used() == 5000


def test_the_same_bytes_uploaded_at_once_are_stored_once(pair: Service) -> None:
    users, before = [pair.user() for _ in range(4)], pair.stored_bytes()
    data = os.urandom(700_000)
    files = at_once([lambda user=user: user.upload(data) for user in users for _ in range(3)])  # type: ignore[misc]
    assert pair.stored_bytes() == before + 1
    for file in files:
        assert users[0].http.get(file["file"]).content == data
    is_sound(pair)


def test_uploads_against_deletions_of_the_same_bytes(pair: Service) -> None:
    """Whoever gets a 201 has the file, although others take its last link away all the time."""
    data = [os.urandom(2000) for _ in range(2)]

    def live(user: User, seed: int) -> int:
        dice, rounds = random.Random(seed), 0
        for _ in range(40):
            body = dice.choice(data)
            file = user.upload(body)
            assert user.http.get(file["file"]).content == body
            if dice.random() < 0.3:
                found = user.get("files/slot/", name="again", size=len(body), hash=file["hash"]).json()
                assert user.http.get(found["file"]).content == body
                assert user.delete("files/", id=found["id"]).status_code == 204
            assert user.delete("files/", id=file["id"]).status_code == 204
            assert user.http.get(file["file"]).status_code == 404
            rounds += 1
        return rounds

    before = pair.stored_bytes()
    users = [pair.user() for _ in range(6)]
    assert at_once([lambda user=user, n=n: live(user, n) for n, user in enumerate(users)]) == [40] * 6  # type: ignore[misc]
    assert pair.stored_bytes() == before
    assert all(user.used() == 0 for user in users)
    is_sound(pair)


def test_an_account_deleted_while_it_uploads(pair: Service) -> None:
    user = pair.user()

    def upload() -> list[int]:
        return [user.send(os.urandom(5000)).status_code for _ in range(10)]

    jobs: list[Callable[[], Any]] = [upload] * 4
    results = at_once([*jobs, lambda: user.delete("account/").status_code])
    assert results.pop() == 204
    assert {status for uploads in results for status in uploads} <= {201, 401}
    again = pair.user(jid=user.jid)
    assert again.items() == [] and again.used() == 0
    is_sound(pair)


def test_one_file_deleted_twice_at_once_goes_once(pair: Service) -> None:
    user = pair.user()
    for _ in range(10):
        file, kept = user.upload(os.urandom(100)), user.upload(os.urandom(50))
        answers = at_once([lambda file=file: user.delete("files/", id=file["id"]).status_code] * 4)  # type: ignore[misc]
        assert sorted(answers) == [204, 404, 404, 404]
        assert user.used() == 50
        user.delete("files/", id=kept["id"])
