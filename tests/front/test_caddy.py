"""Caddy in front of the service, with the file of contrib/caddy."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from tests.ports import free_port, wait_for_ports
from tests.service import MIB, Service, assert_error, http_client
from tests.waiting import DEADLINE, wait_until

PROGRAM = shutil.which("caddy")
FILE = Path(__file__).parents[2] / "contrib" / "caddy" / "Caddyfile"
pytestmark = pytest.mark.skipif(PROGRAM is None, reason="caddy is not installed")


@pytest.fixture(scope="module")
def caddy(
    tmp_path_factory: pytest.TempPathFactory, start_service: Callable[..., Service]
) -> Iterator[tuple[httpx.Client, Service]]:
    with before(start_service(RATE_CODE_REQUEST_ADDRESS="1/day"), tmp_path_factory.mktemp("caddy")) as both:
        yield both


@pytest.fixture
def doomed(tmp_path: Path, start_service: Callable[..., Service]) -> Iterator[tuple[httpx.Client, Service]]:
    """With a service that a test may end."""
    with before(start_service(), tmp_path) as both:
        yield both


@contextmanager
def before(service: Service, tmp_path: Path) -> Iterator[tuple[httpx.Client, Service]]:
    """Run Caddy without TLS, since it would fetch a certificate."""
    port, text = free_port(), FILE.read_text()
    for old, new in (("gallery.example.org {", f"http://127.0.0.1:{port} {{"), ("127.0.0.1:8080", service.url[7:])):
        assert old in text
        text = text.replace(old, new)
    (tmp_path / "Caddyfile").write_text("{\n\tadmin off\n}\n" + text)
    process = subprocess.Popen(
        [PROGRAM or "", "run", "--adapter", "caddyfile", "--config", tmp_path / "Caddyfile"],
        env=os.environ | {"HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path)},
        stderr=(tmp_path / "caddy.log").open("wb"),
    )
    wait_for_ports(process, port, log=(tmp_path / "caddy.log").read_text)
    with http_client(f"http://127.0.0.1:{port}") as client:
        yield client, service
    process.terminate()
    process.wait()


def test_the_service_answers_through_caddy(caddy: tuple[httpx.Client, Service]) -> None:
    client, service = caddy
    user = service.user()
    data = os.urandom(300_000)
    answer = client.post(
        "/api/v1/files/upload/", files={"file": ("a.jpg", data)}, headers={"Authorization": f"Bearer {user.token}"}
    )
    assert answer.status_code == 201
    path = httpx.URL(answer.json()["file"]).path
    got, direct = client.get(path), service.http.get(path)
    assert got.content == data
    for name, value in direct.headers.items():
        if name not in ("date", "server"):
            assert got.headers[name] == value
    assert client.get(path, headers={"If-None-Match": got.headers["ETag"]}).status_code == 304
    assert client.get(path, headers={"Range": "bytes=0-1"}).content == data[:2]
    assert_error(client.get("/api/v1/files/"), 401)


def test_if_the_service_is_away_the_answer_is_json(doomed: tuple[httpx.Client, Service]) -> None:
    client, service = doomed
    service.stop()
    answer = client.get("/api/v1/files/")
    assert_error(answer, 503)
    assert int(answer.headers["Retry-After"]) > 0
    assert answer.headers["Access-Control-Allow-Origin"] == "*"


def test_metrics_are_closed(caddy: tuple[httpx.Client, Service]) -> None:
    client, _ = caddy
    for path in ("/metrics", "/metrics/", "//metrics", "/metrics//", "/%6detrics", "/x/../metrics", "/METRICS"):
        answer = client.get(httpx.URL(client.base_url).copy_with(raw_path=path.encode()))
        assert answer.status_code in (403, 404) and "gallery_requests" not in answer.text, path
    assert_error(client.get("/metrics"), 403)
    assert client.get("/healthz").status_code == 200


def test_the_service_sees_the_client_s_address(caddy: tuple[httpx.Client, Service]) -> None:
    """An address that the client claims does not count."""
    client, _ = caddy
    for number, status in ((1, 201), (2, 429)):
        claimed = {"X-Forwarded-For": f"10.0.0.{number}", "Forwarded": f"for=10.0.0.{number}"}
        jid = f"a{number}@example.org"
        assert (
            client.post("/api/v1/account/xmpp_code_request/", json={"jid": jid}, headers=claimed).status_code == status
        )


def begun(client: httpx.Client, service: Service) -> socket.socket:
    """A connection that has sent the first bytes of an upload."""
    connection = socket.create_connection(("127.0.0.1", client.base_url.port or 0), DEADLINE)
    connection.sendall(
        b"POST /api/v1/files/upload/ HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
        b"Authorization: Bearer " + service.user().token.encode() + b"\r\nContent-Length: 15000000\r\n"
        b"Content-Type: multipart/form-data; boundary=b\r\n\r\n"
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n' + bytes(MIB)
    )
    return connection


def has_come(service: Service) -> None:
    service.wait_until(lambda: service.stored("staging"))


def test_an_upload_is_not_buffered(caddy: tuple[httpx.Client, Service]) -> None:
    """Caddy passes on the first bytes before the rest of the body has come."""
    with begun(*caddy):
        has_come(caddy[1])


def test_an_upload_that_stops_is_refused_through_caddy(tmp_path: Path, start_service: Callable[..., Service]) -> None:
    """If Caddy pauses while bytes are under way, it gets no answer: then the upload is begun again."""
    with before(start_service(IDLE_TIMEOUT="1"), tmp_path) as both:

        def refused() -> bool:
            with suppress(ConnectionError), begun(*both) as connection:
                return connection.recv(4096).startswith(b"HTTP/1.1 408 ")
            return False

        wait_until(refused)


def test_if_the_service_ends_during_an_upload_the_answer_is_json(doomed: tuple[httpx.Client, Service]) -> None:
    """Caddy notices only when it passes on more bytes, so the client must go on sending."""
    _, service = doomed
    with begun(*doomed) as connection:
        has_come(service)
        assert service.process
        os.killpg(service.process.pid, signal.SIGKILL)
        service.process.wait()
        connection.settimeout(0.05)

        def answered() -> bytes:
            with suppress(ConnectionError):
                connection.sendall(b"x")
            with suppress(TimeoutError):
                return connection.recv(4096)
            return b""

        answer = wait_until(answered, pause=0)
    assert answer.split()[1] == b"503" and b"application/json" in answer
