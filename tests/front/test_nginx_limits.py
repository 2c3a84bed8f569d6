"""nginx if the service is slow, away, or refuses: what it limits, what it answers, what it does not send twice."""

from __future__ import annotations

import socket
import socketserver
from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from threading import Thread
from types import SimpleNamespace

import httpx
import pytest

from tests.front.nginx import PROGRAM, Nginx, front, refused_by_nginx, uploading
from tests.service import MIB, Service, anyone, assert_error, http_client
from tests.waiting import wait_until

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="nginx is not installed")


def test_an_upload_that_stops_is_refused_through_nginx(tmp_path: Path, start_service: Callable[..., Service]) -> None:
    """If nginx pauses while bytes are under way, it gets no answer: then the upload is begun again."""
    service = start_service(IDLE_TIMEOUT="1")

    def refused(client: httpx.Client) -> bool:
        with suppress(ConnectionError), uploading(client, service.user().token, 15 * MIB) as connection:
            return connection.recv(4096).startswith(b"HTTP/1.1 408 ")
        return False

    for client in front(tmp_path, service):
        wait_until(partial(refused, client))


def test_the_service_sees_the_client_s_address(tmp_path: Path, start_service: Callable[..., Service]) -> None:
    service = start_service(RATE_CODE_REQUEST_ADDRESS="1/day")
    for client in front(tmp_path, service):
        for number, (address, status) in enumerate((("10.0.0.1", 201), ("10.0.0.2", 429))):
            # An address that the client claims does not count.
            answer = client.post(
                "/api/v1/account/xmpp_code_request/", json={"jid": f"a{number}@example.org"},
                headers={"X-Forwarded-For": address, "Forwarded": f"for={address}"},
            )  # fmt: skip
            assert answer.status_code == status, answer.text


def test_connections_of_an_address_are_limited(tmp_path: Path, start_service: Callable[..., Service]) -> None:
    service = start_service(IDLE_TIMEOUT="10 min", UPLOADS_AT_ONCE="1000")
    nginx = Nginx(tmp_path / "nginx", service, tls=False)
    begun = (  # an upload that the service waits for; a refused one would end by itself
        "POST /api/v1/files/upload/ HTTP/1.1\r\nHost: gallery.example.org\r\nContent-Length: 1000\r\n"
        f"Authorization: Bearer {service.user().token}\r\nContent-Type: multipart/form-data; boundary=b\r\n\r\n"
    ).encode()
    with ExitStack() as held:
        for _ in range(220):  # some more than the limit: other requests may take a place
            held.enter_context(socket.create_connection(("127.0.0.1", nginx.port))).sendall(begun)
        wait_until(lambda: http_client().get(f"{nginx.url}/healthz").is_error)
        refused_by_nginx(http_client().get(f"{nginx.url}/healthz"), 429)
        other = http_client().get(f"{nginx.url}/healthz", headers={"X-Test-Address": "192.0.2.7"})
        assert other.status_code == 200
    nginx.stop()


def test_an_upload_is_not_sent_twice(tmp_path: Path) -> None:
    """The hosts close the connection after they have read some of it."""
    reached: list[bytes] = []

    class Breaking(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            reached.append(self.request.recv(65536).split()[0])

    with ExitStack() as running:
        hosts = []
        for _ in range(2):
            server = running.enter_context(socketserver.ThreadingTCPServer(("127.0.0.1", 0), Breaking))
            Thread(target=server.serve_forever, daemon=True).start()
            running.callback(server.shutdown)
            hosts.append(SimpleNamespace(port=server.server_address[1], data_dir=tmp_path))
        nginx = Nginx(tmp_path / "nginx", hosts[0], tls=False, others=hosts[1:])  # type: ignore[arg-type]
        refused_by_nginx(anyone.post(f"{nginx.url}/api/v1/files/upload/", files={"file": b"x" * 1000}), 503)
        assert reached == [b"POST"]
        nginx.stop()


def test_if_the_service_is_away_the_answer_is_json(tmp_path: Path, start_service: Callable[..., Service]) -> None:
    service = start_service()
    for client in front(tmp_path, service):
        assert client.get("/healthz").status_code == 200
        service.stop()
        answer = client.get("/api/v1/files/")
        assert_error(answer, 503)
        assert int(answer.headers["Retry-After"]) > 0
        assert answer.headers["Access-Control-Allow-Origin"] == "*"
