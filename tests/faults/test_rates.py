"""Rates that several hosts count together, in a real Redis."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.service import Service, User, assert_error, free_port

PROGRAM = shutil.which("redis-server")


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    if PROGRAM is None:
        pytest.skip("redis-server is not installed")
    port = free_port()
    server = subprocess.Popen(
        [PROGRAM, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", tmp_path],
        stdout=subprocess.DEVNULL,
    )
    time.sleep(0.5)
    yield f"redis://127.0.0.1:{port}/0", server
    server.kill()
    server.wait()


def test_two_hosts_count_together(
    redis: tuple[str, subprocess.Popen[bytes]], start_service: Callable[..., Service]
) -> None:
    url, server = redis
    one, two = (start_service(RATES_URL=url, RATE_UPLOAD="5/minute", RATE_CODE_TRY_JID="4/minute") for _ in range(2))
    first = one.user(jid="anna@example.org")
    second = two.user(jid="anna@example.org")  # of another database here, with the same number
    statuses = [user.send(b"x").status_code for user in (first, second) * 4]
    assert statuses == [201] * 5 + [429] * 3
    body = {"jid": "boris@example.org", "code": "000000"}
    tries = [s.http.post("/api/v1/account/xmpp_auth/", json=body) for s in (one, two) * 3]
    assert [answer.status_code for answer in tries] == [404] * 4 + [429] * 2
    assert 0 < int(tries[-1].headers["Retry-After"]) <= 61
    server.kill()
    server.wait()
    assert_error(first.send(b"x"), 503)
    assert first.get("files/").status_code == 200


def test_without_it_each_host_counts_for_itself(start_service: Callable[..., Service]) -> None:
    users: list[User] = [start_service(RATE_UPLOAD="2/minute").user() for _ in range(2)]
    for user in users:
        assert [user.send(b"x").status_code for _ in range(3)] == [201, 201, 429]
