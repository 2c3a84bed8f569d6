"""Slow clients, and clients with idle connections: they are cut at the limits, and others are not delayed."""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress

import pytest

from tests.faults.raw import END, Raw, nothing_is_left, part, send_slowly
from tests.service import MIB, Service, User
from tests.waiting import DEADLINE, wait_until

# These tests are the same on every back end, or name the back end that they use.
pytestmark = pytest.mark.same_everywhere

IDLE = 2500
"""The number of idle connections: more than can wait to be accepted."""


@pytest.fixture(scope="module")
def impatient(start_service: Callable[..., Service]) -> Service:
    return start_service(IDLE_TIMEOUT="1 s", MIN_UPLOAD_RATE="10 KB")


@pytest.fixture
def user(impatient: Service) -> User:
    return impatient.user()


def drip(raw: Raw, piece: bytes, chunked: bool = False) -> tuple[int, str]:
    """Send a piece ten times a second until there is an answer; return its status and error sentence."""
    raw.socket.settimeout(0.1)

    def answered() -> tuple[int, str] | None:
        with suppress(OSError):  # the service refused, and reads no more
            (raw.chunk if chunked else raw.send)(piece)
        with suppress(TimeoutError):
            status, body = raw.answer()
            assert body["status"] == status
            return status, body["error"]
        return None

    answer: tuple[int, str] = wait_until(answered, pause=0)
    return answer


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("before", [0, MIB])
def test_a_body_that_drips_gets_408(user: User, chunked: bool, before: int) -> None:
    """Even if much came at first, and the client never pauses. If the machine itself pauses, the test tries again."""

    def told() -> bool:
        raw = Raw(user)
        raw.head(None if chunked else 5 * MIB)
        with suppress(OSError):  # it is refused meanwhile
            (raw.chunk if chunked else raw.send)(part("file", b"x" * before, "film.bin")[:-2])
        status, sentence = drip(raw, b"x" * 50, chunked)
        raw.close()
        assert status == 408
        nothing_is_left(user)
        return sentence == "The client sends too slowly"

    wait_until(told)


@pytest.mark.parametrize("line", ["DELETE /api/v1/files/", "POST /api/v1/account/xmpp_code_request/"])
def test_parameters_that_drip_get_408(user: User, line: str) -> None:
    raw = Raw(user)
    head = f"{line} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {user.token}\r\nContent-Length: 60000\r\n\r\n"
    raw.send(head.encode())
    assert drip(raw, b" ")[0] == 408


def test_a_body_that_comes_fast_enough_is_taken(user: User) -> None:
    body = part("file", b"x" * 200_000, "slow.bin") + END
    wait_until(lambda: send_slowly(user, body, 50_000, 0.5) == 201)


def test_a_service_without_a_lowest_rate(start_service: Callable[..., Service]) -> None:
    user = start_service(IDLE_TIMEOUT="1 s", MIN_UPLOAD_RATE="0").user()
    body = part("file", b"slow", "slow.txt") + END
    wait_until(lambda: send_slowly(user, body, 20, 0.3) == 201)


@pytest.mark.parametrize(
    "begun", [b"", b"GET /healthz HTTP/1.1\r\nHost: x\r\n", b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"],
    ids=["nothing", "half a head", "an answered request"],
)  # fmt: skip
def test_a_head_that_does_not_end_is_closed(impatient: Service, begun: bytes) -> None:
    with socket.create_connection(("127.0.0.1", impatient.port), timeout=DEADLINE) as connection:
        connection.sendall(begun)
        while connection.recv(65536):
            pass  # there may be an answer; then the connection ends


def test_a_head_that_drips_is_closed(impatient: Service) -> None:
    with socket.create_connection(("127.0.0.1", impatient.port), timeout=0.1) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nX: ")

        def closed() -> bool:
            try:
                connection.sendall(b"x")
                return not connection.recv(65536)
            except TimeoutError:
                return False
            except ConnectionError:
                return True

        wait_until(closed, lambda: "still open", pause=0)


@pytest.mark.parametrize("head", ["X: " + "x" * 3_000_000, "X: x\r\n" * 200], ids=["long", "many"])
def test_a_head_that_is_too_large_is_refused(service: Service, head: str) -> None:
    address = ("127.0.0.1", service.port)
    with socket.create_connection(address, timeout=DEADLINE) as connection, suppress(ConnectionError):
        connection.sendall(f"GET /healthz HTTP/1.1\r\nHost: x\r\n{head.rstrip()}\r\n\r\n".encode())
        assert b" 431 " in connection.recv(65536).split(b"\r\n")[0]
    assert service.http.get("/healthz").is_success


def test_an_ordinary_head_passes(service: Service) -> None:
    assert service.http.get("/healthz", headers={"Cookie": "c=" + "x" * 4096}).is_success
    assert service.user().get("files/", id=",".join(map(str, range(10**18, 10**18 + 500)))).status_code == 200


@pytest.fixture
def crowd(start_service: Callable[..., Service]) -> Iterator[Service]:
    """A service with thousands of connections: silent, with half a head, with half a body, with or without a token."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 3 * IDLE:
        pytest.skip("a process may not have so many connections here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    service = start_service(WORKERS="1", IDLE_TIMEOUT="10 min", LINGER_TIME="10 min", UPLOADS_AT_ONCE=str(IDLE))
    bodies = [
        f"POST /api/v1/files/upload/ HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n"
        "Content-Type: multipart/form-data; boundary=x\r\nContent-Length: 1000000\r\n\r\n--x\r\n"
        for token in (service.user().token, "unknown")
    ]
    begun = (b"", b"GET / HTTP/1.1\r\n", *(body.encode() for body in bodies))
    with ExitStack() as connections:
        for number in range(IDLE):
            connection = connections.enter_context(socket.create_connection(("127.0.0.1", service.port), DEADLINE))
            connection.sendall(begun[number % len(begun)])
        yield service
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_idle_connections_delay_nobody(crowd: Service) -> None:
    user = crowd.user()
    for _ in range(5):
        data = os.urandom(MIB)
        assert user.http.get(user.upload(data)["file"]).content == data
    assert len(user.items()) == 5


def test_a_download_that_is_not_read_delays_nobody(service: Service) -> None:
    user = service.user()
    data = os.urandom(15 * MIB)
    file = user.upload(data)
    request = f"GET /media/{file['slot_id']}/{file['name']} HTTP/1.1\r\nHost: x\r\n".encode()
    with ExitStack() as connections:
        for number in range(100):
            connection = connections.enter_context(socket.create_connection(("127.0.0.1", service.port), DEADLINE))
            connection.sendall(request + (b"\r\n" if number % 2 else b"Range: bytes=1-\r\n\r\n"))
        assert user.http.get(file["file"]).content == data
        assert user.delete("files/", id=file["id"]).status_code == 204
    assert user.used() == 0
