"""Clients that stop, vanish, or send more than they may: they get a clear answer, and nothing is left."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress

import pytest

from tests.faults.raw import END, Raw, nothing_is_left, part, send_slowly
from tests.service import MIB, Service, User
from tests.waiting import DEADLINE, wait_until

# These tests are the same on every back end, or name the back end that they use.
pytestmark = pytest.mark.same_everywhere

LIMITS = {"MIN_UPLOAD_RATE": "10", "MAX_FILE_SIZE": "2 MiB", "DEFAULT_QUOTA": "3 MiB"}


@pytest.fixture(scope="module")
def strict(start_service: Callable[..., Service]) -> Service:
    """A service that waits for a client longer than a test does."""
    return start_service(**LIMITS, IDLE_TIMEOUT="10 min", LINGER_TIME="10 min", LINGER_SIZE="16 MiB")


@pytest.fixture(scope="module")
def impatient(start_service: Callable[..., Service]) -> Service:
    return start_service(**LIMITS, IDLE_TIMEOUT="1 s", LINGER_TIME="2 s")


@pytest.fixture
def user(strict: Service) -> User:
    return strict.user()


def test_a_body_that_stops_gets_408(impatient: Service) -> None:
    user = impatient.user()
    raw = Raw(user)
    raw.head(2 * MIB)
    _send_quietly(raw, part("file", b"x" * MIB, "film.bin"))  # if the machine pauses, it is refused meanwhile
    status, body = raw.answer()
    assert (status, body["status"]) == (408, 408)
    nothing_is_left(user)


def test_a_body_that_comes_slowly_but_steadily_is_taken(impatient: Service) -> None:
    user, body = impatient.user(), part("file", b"slow", "slow.txt") + END
    impatient.wait_until(lambda: send_slowly(user, body, len(body) // 4, 0.4) == 201)


@pytest.mark.parametrize("sent", [0, 100, MIB])
def test_a_connection_that_is_cut_leaves_nothing(user: User, sent: int) -> None:
    raw = Raw(user)
    raw.head(2 * MIB)
    raw.send(part("file", b"x" * (2 * MIB), "film.bin")[:sent])
    if sent == MIB:
        user.service.wait_until(lambda: user.service.stored("staging"))
    raw.close()
    nothing_is_left(user)


def test_a_form_that_ends_too_early_is_refused(user: User) -> None:
    body = part("file", b"x" * 100, "film.bin")[:-20]
    raw = Raw(user)
    raw.head(len(body))
    raw.send(body)
    status, answer = raw.answer()
    assert (status, answer["status"]) == (400, 400)
    nothing_is_left(user)


def test_a_declared_length_over_the_limit_is_refused_before_the_body(user: User) -> None:
    raw = Raw(user)
    raw.head(100 * MIB)
    status, body = raw.answer()
    assert (status, body["details"]) == (413, {"max_file_size": 2 * MIB})
    nothing_is_left(user)


def test_a_declared_length_over_the_quota_is_refused_before_the_body(user: User) -> None:
    first = user.upload(os.urandom(2 * MIB - 1000))
    raw = Raw(user)
    raw.head(int(1.5 * MIB))
    status, body = raw.answer()
    known = {"quota": 3 * MIB, "used": first["size"], "required": int(1.5 * MIB)}  # with the form around it
    assert (status, body["details"]) == (403, known)
    assert user.used() == first["size"]


def test_a_size_field_over_the_limit_is_refused_before_the_file(user: User) -> None:
    raw = Raw(user)
    raw.head(None)
    raw.chunk(part("size", str(50 * MIB).encode()) + part("file", b"", "film.bin")[:-2])
    status, body = raw.answer()
    assert (status, body["details"]) == (413, {"max_file_size": 2 * MIB})
    nothing_is_left(user)


def test_an_undeclared_size_is_refused_as_soon_as_it_passes_the_limit(user: User) -> None:
    raw = Raw(user)
    raw.head(None)
    raw.chunk(part("file", b"", "film.bin")[:-2])
    sent, told = 0, False
    with pytest.raises(OSError):  # the connection is closed while we send
        while sent < 100 * MIB:
            raw.chunk(b"x" * 65536)
            sent += 65536
            if not told and sent > 10 * MIB:
                told = raw.socket.recv(12, socket.MSG_PEEK) == b"HTTP/1.1 413"
    assert told
    nothing_is_left(user)


def test_a_client_that_goes_on_sending_still_reads_the_refusal(user: User) -> None:
    raw = Raw(user)
    body = part("file", b"x" * int(2.5 * MIB), "film.bin") + END
    raw.head(len(body))
    sender = threading.Thread(target=lambda: _send_quietly(raw, body))
    sender.start()
    assert raw.answer()[0] == 413
    sender.join()
    nothing_is_left(user)


def test_a_refusal_comes_at_once_and_the_rest_of_the_body_is_read(user: User) -> None:
    raw = Raw(user)
    raw.head(12 * MIB)
    assert raw.answer()[0] == 413  # although no body has come, and the service waits ten minutes for one
    for _ in range(12):
        raw.send(bytes(MIB))
    assert raw.socket.recv(1) == b""  # the whole body was read, and the connection closed without an error


def test_the_rest_of_a_refused_body_is_read_for_a_limited_time(impatient: Service) -> None:
    raw = Raw(impatient.user())
    raw.head(100 * MIB)
    assert raw.answer()[0] == 413

    def closed() -> bool:
        try:
            raw.send(b"x")
        except OSError:
            return True
        return False

    wait_until(closed)


def test_a_client_that_waits_to_be_asked_is_refused_without_being_asked(user: User) -> None:
    """`Expect: 100-continue` is answered with `100`, or with the refusal, even if the client then sends the body."""
    asks = "Expect: 100-continue"
    body = part("file", b"x", "a.txt") + END
    stranger = User(user.service, "stranger@example.org", "unknown")
    for who, length, status in ((user, 100 * MIB, 413), (stranger, len(body), 401), (user, len(body), 100)):
        raw = Raw(who)
        raw.head(length, "files/upload/", asks)
        assert int(raw.socket.recv(12, socket.MSG_PEEK).split()[1]) == status
        if status != 100:
            assert raw.answer()[0] == status
        raw.send(body)
        if status == 100:
            assert raw.socket.recv(25) == b"HTTP/1.1 100 Continue\r\n\r\n"
            assert raw.answer()[0] == 201
        raw.close()


def test_parameters_that_are_too_long_are_refused_by_their_declared_length(user: User) -> None:
    raw = Raw(user)
    raw.head(MIB, "account/xmpp_code_request/", "Expect: 100-continue")
    assert raw.answer()[0] == 413


def _send_quietly(raw: Raw, body: bytes) -> None:
    with suppress(OSError):
        raw.send(body)


def test_a_reader_that_vanishes_harms_nobody(user: User) -> None:
    file = user.upload(os.urandom(MIB))
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", user.service.port)) as reader:
            reader.sendall(f"GET /media/{file['slot_id']}/{file['name']} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            reader.recv(10)
    assert len(user.http.get(file["file"]).content) == MIB


def test_a_body_for_parameters_is_limited(user: User) -> None:
    answer = user.http.request("DELETE", "files/", content=b'{"id": [' + b"1," * 100_000 + b"1]}")
    assert answer.status_code == 413


def test_garbage_is_refused(strict: Service) -> None:
    for garbage in (b"\x16\x03\x01\x02\x00\x01\x00", b"GET\r\n\r\n", b"POST / HTTP/9.9\r\n\r\n", b"\0" * 1000):
        with socket.create_connection(("127.0.0.1", strict.port), timeout=DEADLINE) as connection:
            connection.sendall(garbage)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65536):
                pass
    assert strict.http.get("/healthz").is_success


def test_a_client_without_a_token_is_told_so_while_it_sends(service: Service) -> None:
    stranger = User(service, "stranger@example.org", "unknown")
    for size in (600_000, 900_000):
        raw = Raw(stranger)
        body = part("file", b"x" * size, "film.bin") + END
        raw.head(len(body))
        for start in range(0, len(body), 50_000):
            raw.send(body[start : start + 50_000])
            time.sleep(0.02)
        assert raw.answer()[0] == 401
        raw.close()
