"""nginx in front, with the files of contrib/nginx: its answers are those of the service alone."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate, parsedate_to_datetime

import httpx
import pytest

from tests import samples
from tests.front.nginx import PROGRAM, Nginx, front, has_ipv6, refused_by_nginx, uploading
from tests.service import MIB, Service, User, anyone, assert_error
from tests.slots import Slots

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="nginx is not installed")
OWN = {"date", "server", "connection", "transfer-encoding"}
"""Headers that depend on the server that answers, not on the file."""
KNOWN = ("Cache-Control", "X-Content-Type-Options", "Content-Security-Policy", "Cross-Origin-Resource-Policy",
         "X-Robots-Tag", "Accept-Ranges", "Content-Type", "Content-Length", "Access-Control-Allow-Origin",
         "Access-Control-Expose-Headers")  # fmt: skip
"""Headers that nginx makes itself for a file that it serves from the tree."""


@pytest.fixture(scope="module")
def gallery(start_service: Callable[..., Service]) -> Service:
    return start_service(ACCEL_PREFIX="/protected", STORAGE_URL="")


@pytest.fixture(scope="module")
def alone(gallery: Service, start_service: Callable[..., Service]) -> httpx.Client:
    """A service on the same files that sends them itself."""
    settings = {name: gallery.settings.get(name, "") for name in ("DATA_DIR", "DATABASE_URL", "STORAGE_URL")}
    return start_service(**settings).http


@pytest.fixture(scope="module")
def accel(tmp_path_factory: pytest.TempPathFactory, gallery: Service) -> Iterator[httpx.Client]:
    yield from front(tmp_path_factory.mktemp("accel"), gallery)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory, gallery: Service) -> Iterator[httpx.Client]:
    yield from front(tmp_path_factory.mktemp("tree"), gallery, "tree")


@pytest.fixture(params=["accel", "tree"])
def either(request: pytest.FixtureRequest) -> httpx.Client:
    client: httpx.Client = request.getfixturevalue(request.param)
    return client


def path_of(url: str) -> str:
    return httpx.URL(url).raw_path.decode()


def said(answer: httpx.Response) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if name not in OWN}


@pytest.fixture(scope="module")
def user(gallery: Service) -> User:
    return gallery.user()


@pytest.fixture(scope="module")
def files(user: User) -> dict[str, tuple[str, bytes]]:
    """Paths and bytes of files of many kinds."""
    made = {}
    for name, kind, size in (
        ("data.bin", "application/x-data", 4096), ("empty.txt", "text/plain", 0), ("film.mp4", "video/mp4", 3 * MIB),
        ('Łódź "1" 100%.jpg', "image/jpeg", 70_000), ("page.html", "text/html", 500), ("x.svg", "image/svg+xml", 500),
    ):  # fmt: skip
        data = os.urandom(size)
        made[name] = path_of(user.upload(data, name, kind)["file"]), data
    return made


def asked(etag: str, modified: str) -> list[tuple[str, dict[str, str]]]:
    """Requests that two servers might answer differently."""
    earlier, later = (formatdate(parsedate_to_datetime(modified).timestamp() + by, usegmt=True) for by in (-9999, 9999))
    ranges = ("bytes=0-1", "bytes=10-", "bytes=-5", "bytes=0-99999999", "bytes=99999999-", "bytes=0-1,3-4", "nonsense",
              "bytes=5-2", "bytes=a-b", "lines=1-2", "bytes=-0")  # fmt: skip
    conditions = [{"If-None-Match": tag} for tag in (etag, f"W/{etag}", '"other"', "*", f'"other", {etag}')]
    conditions += [{"If-Modified-Since": date} for date in (modified, earlier, later, "nonsense")]
    conditions += [{"If-None-Match": '"other"', "If-Modified-Since": later}, {"If-Match": etag}, {"If-Match": '"x"'},
                   {"If-Unmodified-Since": earlier}, {"Origin": "https://app.example"}]  # fmt: skip
    conditions += [{"Range": value} for value in ranges]
    conditions += [
        {"Range": "bytes=0-9", "If-Range": value} for value in (etag, modified, earlier, '"other"', f"W/{etag}")
    ]
    return [(method, headers) for headers in [{}, *conditions] for method in ("GET", "HEAD")]


@pytest.mark.parametrize(
    "name", ["data.bin", "empty.txt", "film.mp4", 'Łódź "1" 100%.jpg', "page.html", "x.svg"]
)  # fmt: skip
def test_handed_over_files_are_answered_as_the_service_does(
    files: dict[str, tuple[str, bytes]], alone: httpx.Client, accel: httpx.Client, name: str
) -> None:
    path, data = files[name]
    first = alone.get(path)
    assert first.content == data
    seen = set()
    for method, headers in asked(first.headers["ETag"], first.headers["Last-Modified"]):
        expected, answer = (client.request(method, path, headers=headers) for client in (alone, accel))
        assert (answer.status_code, answer.content) == (expected.status_code, expected.content), (method, headers)
        assert said(answer) == said(expected), (method, headers)
        seen.add(answer.status_code)
    assert seen >= {200, 304, 416}
    assert (206 in seen) == bool(data)


def test_the_service_hands_files_over_and_sends_no_bytes_itself(
    files: dict[str, tuple[str, bytes]], gallery: Service
) -> None:
    path, _ = files["film.mp4"]
    answer = gallery.http.get(path)
    assert answer.content == b"" and answer.headers["X-Accel-Redirect"].startswith("/protected/blobs/")
    assert "X-Accel-Redirect" not in gallery.http.head(path).headers


def test_protected_paths_cannot_be_requested(
    files: dict[str, tuple[str, bytes]], gallery: Service, accel: httpx.Client
) -> None:
    place = gallery.http.get(files["film.mp4"][0]).headers["X-Accel-Redirect"]
    assert accel.get(place).status_code == 404
    assert accel.get("/protected/blobs/../gallery.sqlite").status_code == 404


@pytest.mark.parametrize("name", ["film.mp4", 'Łódź "1" 100%.jpg'])
def test_the_tree_serves_media_without_the_service(
    files: dict[str, tuple[str, bytes]], alone: httpx.Client, tree: httpx.Client, gallery: Service, name: str
) -> None:
    path, data = files[name]
    expected = alone.get(path, headers={"Origin": "https://app.example"})
    with gallery.hanging():
        answer = tree.get(path, headers={"Origin": "https://app.example"})
        assert (answer.status_code, answer.content) == (200, data)
        for header in KNOWN:
            assert answer.headers.get(header) == expected.headers.get(header), header
        assert answer.headers["Content-Disposition"] == f"inline; filename*=UTF-8''{path.rpartition('/')[2]}"
        assert tree.get(f"{path}?x=/y").headers["Content-Disposition"] == answer.headers["Content-Disposition"]
        etag, modified = answer.headers["ETag"], answer.headers["Last-Modified"]
        for conditions, status, part in (
            ({"If-None-Match": etag}, 304, b""),
            ({"If-Modified-Since": modified}, 304, b""),
            ({"Range": "bytes=0-1"}, 206, data[:2]),
            ({"Range": "bytes=-5", "If-Range": etag}, 206, data[-5:]),
            ({"Range": "bytes=0-1", "If-Range": '"other"'}, 200, data),
            ({"Range": "bytes=0-1,3-4"}, 200, data),
        ):
            answer = tree.get(path, headers=conditions)
            assert (answer.status_code, answer.content) == (status, part), conditions
            for header in ("Cache-Control", "X-Content-Type-Options", "Content-Security-Policy"):
                assert answer.headers[header] == expected.headers[header]
        head = tree.head(path)
        assert (head.status_code, head.headers["Content-Length"], head.content) == (200, str(len(data)), b"")
    assert_error(tree.get(path, headers={"Range": "bytes=99999999-"}), 416)


@pytest.mark.parametrize("name", ["data.bin", "empty.txt", "page.html", "x.svg"])
def test_beside_the_list_of_types_the_tree_asks_the_service(
    files: dict[str, tuple[str, bytes]], alone: httpx.Client, tree: httpx.Client, name: str
) -> None:
    path, data = files[name]
    answer, expected = tree.get(path), alone.get(path)
    assert (answer.content, said(answer)) == (data, said(expected))


@pytest.mark.parametrize("kind", ["text/html", "image/svg+xml", "application/pdf", "image/png"])
def test_the_service_answers_for_a_file_of_another_type_than_its_name_tells(
    user: User, alone: httpx.Client, tree: httpx.Client, kind: str
) -> None:
    item = user.upload(f"<p>{kind}".encode(), "page.jpg", kind)
    path = path_of(item["file"])
    answer, expected = tree.get(path), alone.get(path)
    assert answer.headers["Content-Type"] == item["media_type"] == kind
    assert said(answer) == said(expected)


@pytest.mark.parametrize(
    "end",
    ["avif", "BMP", "flac", "gif", "heic", "heif", "jpeg", "jpg", "m4a", "mkv", "mov", "mp3", "mp4", "oga", "ogg",
     "ogv", "opus", "png", "wav", "webm", "webp"],
)  # fmt: skip
def test_every_type_of_the_tree_s_list_is_the_service_s(
    user: User, alone: httpx.Client, tree: httpx.Client, gallery: Service, end: str
) -> None:
    path = path_of(user.upload(os.urandom(100), f"file.{end}")["file"])
    expected = alone.get(path)
    with gallery.hanging():  # so the service answers nothing
        answer = tree.get(path)
    assert answer.headers["Content-Type"] == expected.headers["Content-Type"]
    assert expected.headers["Content-Disposition"].startswith("inline")


def test_a_thumbnail_comes_through_either(either: httpx.Client, user: User) -> None:
    item = user.upload(samples.picture("png", 600, 400), "picture.png", "image/png")
    answer = either.get(path_of(item["thumbnail"]["url"]))
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "image/webp")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_a_thumbnail_that_is_not_there_is_made(tree: httpx.Client, user: User, gallery: Service) -> None:
    item = user.upload(samples.picture("png", 700, 400), "other.png", "image/png")
    path = path_of(item["thumbnail"]["url"])
    assert tree.get(path).status_code == 200
    slot, name = path.split("/")[2:]
    (gallery.data_dir / "links" / slot[:2] / slot / name).resolve().unlink()
    answer = tree.get(path)
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "image/webp")


@pytest.mark.parametrize("name", ["one.jpg", "one.bin"])
def test_a_deleted_file_is_gone_at_once(either: httpx.Client, user: User, name: str) -> None:
    item = user.upload(os.urandom(200_000), name, "image/jpeg")
    path = path_of(item["file"])
    for _ in range(3):
        assert either.get(path).status_code == 200
    answer = either.request(
        "DELETE", "/api/v1/files/", json={"id": item["id"]}, headers={"Authorization": f"Bearer {user.token}"}
    )
    assert answer.status_code == 204
    assert_error(either.get(path), 404)
    assert either.get(path, headers={"Range": "bytes=0-1"}).status_code == 404


def test_a_preflight_of_media_is_answered(either: httpx.Client, files: dict[str, tuple[str, bytes]]) -> None:
    headers = {"Origin": "https://app.example", "Access-Control-Request-Method": "GET",
               "Access-Control-Request-Headers": "range"}  # fmt: skip
    answer = either.options(files["film.mp4"][0], headers=headers)
    assert answer.status_code == 200
    assert answer.headers["Access-Control-Allow-Origin"] in ("*", "https://app.example")


def test_an_upload_is_not_buffered(accel: httpx.Client, user: User) -> None:
    """nginx passes on the first bytes before the rest of the body has come."""
    with uploading(accel, user.token, 15 * MIB):
        user.service.wait_until(lambda: user.service.stored("staging"))


def test_refusals_come_through(accel: httpx.Client, user: User) -> None:
    """Also if a client is still sending when the answer comes."""
    for token, status in ((user.token, 413), ("wrong", 401)):
        with uploading(accel, token, 21 * MIB) as connection:
            answer = connection.recv(1)
            for _ in range(20):
                connection.sendall(bytes(MIB))
            while more := connection.recv(65536):
                answer += more
        head, _, body = answer.partition(b"\r\n\r\n")
        told = json.loads(body)
        assert int(head.split()[1]) == told["status"] == status and told["error"]
    assert accel.get("/api/v1/nothing").json()["status"] == 404


@pytest.mark.parametrize("path", ["/metrics", "/metrics/", "//metrics", "/metrics//", "/%6detrics", "/x/../metrics"])
def test_metrics_are_closed(accel: httpx.Client, path: str) -> None:
    nginx: Nginx = accel.nginx  # type: ignore[attr-defined]
    assert accel.get("/healthz").status_code == 200
    url = httpx.URL(nginx.url).copy_with(raw_path=path.encode())
    answer = accel.get(url)
    assert answer.status_code == 403 and "gallery_requests" not in answer.text


def test_plain_http_is_sent_to_tls(accel: httpx.Client) -> None:
    nginx: Nginx = accel.nginx  # type: ignore[attr-defined]
    answer = anyone.get(f"{nginx.plain_url}/media/a/b?c=d")
    assert answer.status_code == 308
    assert answer.headers["Location"] == "https://127.0.0.1/media/a/b?c=d"


def test_what_nginx_refuses_by_itself_has_the_contract_s_shape(accel: httpx.Client) -> None:
    nginx: Nginx = accel.nginx  # type: ignore[attr-defined]
    refused_by_nginx(accel.get("/metrics"), 403)
    refused_by_nginx(accel.get("/protected/blobs/x"), 404)
    refused_by_nginx(accel.request("TRACE", "/api/v1/"), 405)
    refused_by_nginx(accel.get("/" + "x" * 40_000), 414)
    refused_by_nginx(accel.get("/", headers={"X-Long": "x" * 40_000}), 400)
    refused_by_nginx(anyone.get(nginx.url.replace("https", "http")), 400)


def test_sign_in_is_limited_by_address_and_by_network(accel: httpx.Client) -> None:
    def attempt(address: str) -> httpx.Response:
        return accel.post("/api/v1/account/xmpp_auth/", json={}, headers={"X-Test-Address": address})

    # nginx admits one more each second. So many come at once that some are refused even on a slow machine.
    for addresses, other in (
        (["192.0.2.1"] * 60, "192.0.2.2"),
        ([f"2001:db8::{number:x}:1" for number in range(60)], "2001:db8:0:1::1"),
    ):
        assert [attempt(address).status_code for address in addresses[:21]] == [400] * 21
        with ThreadPoolExecutor(len(addresses)) as threads:
            answers = list(threads.map(attempt, addresses))
        refused = [answer for answer in answers if answer.status_code != 400]
        assert refused
        for answer in refused:
            refused_by_nginx(answer, 429)
        assert attempt(other).status_code == 400


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
def test_ipv6_is_served(accel: httpx.Client) -> None:
    nginx: Nginx = accel.nginx  # type: ignore[attr-defined]
    assert anyone.get(nginx.url.replace("127.0.0.1", "[::1]")).status_code != 502
    assert anyone.get(nginx.plain_url.replace("127.0.0.1", "[::1]")).status_code == 308


@pytest.mark.parametrize("name", ["photo.jpg", "data.bin"])
def test_a_file_is_put_at_its_slot(either: httpx.Client, gallery: Service, user: User, name: str) -> None:
    """Also if nginx itself serves that address from the tree once the file is there."""
    slots, data = Slots(gallery), os.urandom(2 * MIB)
    url, token = slots.give(user, data, name)
    path, headers = path_of(url), {"Authorization": f"Bearer {token}"}
    assert_error(either.put(path, content=data, headers={"Authorization": "Bearer x"}), 403)
    assert_error(either.put(path, content=data), 401)
    assert_error(either.put(path, content=data[1:], headers=headers), 413)
    assert either.put(path, content=data, headers=headers).status_code == 201
    assert either.get(path).content == data
    assert_error(either.put(path, content=data, headers=headers), 409)
    browser = {"Origin": "https://a.example", "Access-Control-Request-Method": "PUT"}
    assert either.options(path, headers=browser).is_success
