"""Uploads that are refused while they are sent: common HTTP clients read the refusal, directly and through nginx."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from tests.front.nginx import PROGRAM, Nginx
from tests.service import MIB, Service
from tests.uploaders import CURL, PATH, Client, Upload, by_curl, by_http_client, connected

pytestmark = [
    pytest.mark.same_everywhere,
    pytest.mark.skipif(PROGRAM is None or CURL is None, reason="nginx or curl is not installed"),
]
SIZE = 8 * MIB
"""More than the buffers of two systems hold, so a client cannot send it if nobody reads."""


@pytest.fixture(scope="module")
def gallery(start_service: Callable[..., Service]) -> Service:
    return start_service(MAX_FILE_SIZE=SIZE + MIB, DEFAULT_QUOTA="1000", RATE_UPLOAD="4/day")


@pytest.fixture(scope="module")
def ways(tmp_path_factory: pytest.TempPathFactory, gallery: Service) -> Iterator[dict[str, Upload]]:
    nginx = Nginx(tmp_path_factory.mktemp("refusals") / "nginx", gallery)
    yield {
        "directly": Upload(gallery.url, "unknown", SIZE),
        "nginx": Upload(nginx.url, "unknown", SIZE, ca_file=nginx.ca_file),
    }
    nginx.stop()


@pytest.mark.parametrize("way", ["directly", "nginx"])
@pytest.mark.parametrize(
    ("client", "mode"),
    [(by_http_client, "whole"), (by_http_client, "chunked"), (by_curl, "whole"), (by_curl, "expect")],
)
def test_a_client_that_is_still_sending_reads_the_refusal(
    gallery: Service, ways: dict[str, Upload], way: str, client: Client, mode: str
) -> None:
    nobodys = replace(ways[way], mode=mode)
    upload = replace(nobodys, token=gallery.user().token)
    large, too_large = replace(upload, size=SIZE + 2 * MIB), 403 if mode == "chunked" else 413
    for sent, status in ((nobodys, 401), (upload, 403), (large, too_large), (upload, 429)):
        for line in client(sent, 2):
            assert line.startswith(f'{status} {{"status":{status},"error":"'), line


@pytest.mark.parametrize("way", ["directly", "nginx"])
def test_a_refusal_comes_at_once_and_says_that_the_connection_ends(ways: dict[str, Upload], way: str) -> None:
    """A client that kept the connection would lose its next request."""
    connection = connected(ways[way])
    connection.putrequest("POST", PATH)
    connection.putheader("Content-Length", str(SIZE))
    connection.endheaders()
    answer = connection.getresponse()  # although only the head was sent
    assert (answer.status, answer.getheader("Connection")) == (401, "close")
    assert json.load(answer)["status"] == 401
    connection.close()
