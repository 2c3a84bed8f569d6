"""`/media/SLOT_ID/NAME`: bytes, ranges, conditions, headers."""

from __future__ import annotations

import os
from email.utils import formatdate, parsedate_to_datetime
from urllib.parse import quote

import httpx
import pytest

from tests import samples
from tests.service import MIB, Service, User, assert_error

ALWAYS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; sandbox; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "cross-origin",
    "X-Robots-Tag": "noindex",
}
SIZES = (0, 1, 4096, 64 * 1024 + 1, 5 * MIB)
"""Around the ways a file is sent: at once, by path, in pieces."""


@pytest.fixture(scope="module")
def files(service: Service) -> dict[int, tuple[str, bytes]]:
    user, data = service.user(), {size: os.urandom(size) for size in SIZES}
    return {size: (user.upload(data[size], "data.bin", "application/x-data")["file"], data[size]) for size in SIZES}


@pytest.fixture
def http() -> httpx.Client:
    """Somebody without a token."""
    return httpx.Client(timeout=30)


@pytest.mark.parametrize("size", SIZES)
def test_whole_files(files: dict[int, tuple[str, bytes]], http: httpx.Client, size: int) -> None:
    url, data = files[size]
    answer, head = http.get(url), http.head(url)
    assert answer.status_code == head.status_code == 200
    assert answer.content == data and head.content == b""
    assert answer.headers["Accept-Ranges"] == "bytes"
    assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    assert answer.headers["ETag"].startswith('"')
    assert parsedate_to_datetime(answer.headers["Last-Modified"])
    for name in ("Content-Type", "Content-Length", "ETag", "Last-Modified", "Content-Disposition", *ALWAYS):
        assert answer.headers[name] == head.headers[name]


@pytest.mark.parametrize("size", SIZES[1:])
@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [("bytes=0-0", 0, 1), ("bytes=0-", 0, None), ("bytes=-1", -1, None), ("bytes=0-99999999", 0, None),
     ("bytes=-99999999", 0, None), ("Bytes = 0-0", 0, 1)],
)  # fmt: skip
def test_ranges(
    files: dict[int, tuple[str, bytes]], http: httpx.Client, size: int, asked: str, start: int, end: int | None
) -> None:
    url, data = files[size]
    answer = http.get(url, headers={"Range": asked})
    expected = data[start:end]
    assert answer.status_code == 206
    assert answer.content == expected
    first = start if start >= 0 else size + start
    assert answer.headers["Content-Range"] == f"bytes {first}-{first + len(expected) - 1}/{size}"


def test_two_bytes(files: dict[int, tuple[str, bytes]], http: httpx.Client) -> None:
    url, data = files[5 * MIB]
    answer = http.get(url, headers={"Range": "bytes=0-1"})
    assert (answer.status_code, answer.content) == (206, data[:2])
    answer = http.get(url, headers={"Range": "bytes=1000000-3999999"})
    assert (answer.status_code, answer.content) == (206, data[1_000_000:4_000_000])


@pytest.mark.parametrize(
    "asked", ["bytes=0-1,3-4", "lines=1-2", "bytes=", "bytes=a-b", "bytes=5-2", "bytes=--1", "nonsense"]
)
def test_what_is_no_single_range_is_answered_whole(
    files: dict[int, tuple[str, bytes]], http: httpx.Client, asked: str
) -> None:
    url, data = files[4096]
    answer = http.get(url, headers={"Range": asked})
    assert (answer.status_code, answer.content) == (200, data)


@pytest.mark.parametrize("asked", ["bytes=4096-", "bytes=99999-100000", "bytes=-0"])
def test_a_range_outside_is_416(files: dict[int, tuple[str, bytes]], http: httpx.Client, asked: str) -> None:
    answer = http.get(files[4096][0], headers={"Range": asked})
    assert_error(answer, 416)
    assert answer.headers["Content-Range"] == "bytes */4096"


def test_if_range(files: dict[int, tuple[str, bytes]], http: httpx.Client) -> None:
    url, _data = files[4096]
    headers = http.head(url).headers
    for condition, status in (
        (headers["ETag"], 206),
        (headers["Last-Modified"], 206),
        ('"other"', 200),
        (f"W/{headers['ETag']}", 200),
    ):
        assert http.get(url, headers={"Range": "bytes=0-9", "If-Range": condition}).status_code == status


def test_conditions(files: dict[int, tuple[str, bytes]], http: httpx.Client) -> None:
    url, _ = files[4096]
    headers = http.head(url).headers
    etag, modified = headers["ETag"], headers["Last-Modified"]
    later, earlier = (formatdate(parsedate_to_datetime(modified).timestamp() + by, usegmt=True) for by in (3600, -3600))
    for condition, status in (
        ({"If-None-Match": etag}, 304), ({"If-None-Match": f"W/{etag}"}, 304), ({"If-None-Match": f'"x", {etag}'}, 304),
        ({"If-None-Match": "*"}, 304), ({"If-None-Match": '"x"'}, 200), ({"If-Modified-Since": modified}, 304),
        ({"If-Modified-Since": later}, 304), ({"If-Modified-Since": earlier}, 200),
        ({"If-Modified-Since": "soon"}, 200),
        ({"If-None-Match": '"x"', "If-Modified-Since": later}, 200),
    ):  # fmt: skip
        answer = http.get(url, headers=condition)
        assert answer.status_code == status, condition
        assert answer.headers["ETag"] == etag
        if status == 304:
            assert answer.content == b""


def test_headers_that_every_answer_has(anna: User, http: httpx.Client) -> None:
    file = anna.upload(samples.picture("png", 100, 90), "photo.png")
    etag = http.head(file["file"]).headers["ETag"]
    for answer in (
        http.get(file["file"]), http.head(file["file"]), http.get(file["file"], headers={"Range": "bytes=0-1"}),
        http.get(file["file"], headers={"If-None-Match": etag}), http.get(file["thumbnail"]["url"]),
    ):  # fmt: skip
        assert {name: answer.headers.get(name) for name in ALWAYS} == ALWAYS
        assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"


@pytest.mark.parametrize(
    ("media_type", "kind"),
    [("image/png", "inline"), ("image/jpeg", "inline"), ("audio/ogg", "inline"), ("video/mp4", "inline"),
     ("image/svg+xml", "attachment"), ("text/html", "attachment"), ("application/xhtml+xml", "attachment"),
     ("text/xml", "attachment"), ("application/pdf", "attachment"), ("text/plain", "attachment"),
     ("text/javascript", "attachment"), ("application/octet-stream", "attachment")],
)  # fmt: skip
def test_only_safe_types_are_shown_inline(anna: User, http: httpx.Client, media_type: str, kind: str) -> None:
    file = anna.upload(samples.HTML, "page.html", media_type=media_type)
    answer = http.get(file["file"])
    assert answer.headers["Content-Type"] == media_type
    assert answer.headers["Content-Disposition"].partition(";")[0] == kind


def test_the_name_is_in_the_disposition(anna: User, http: httpx.Client) -> None:
    name = 'Отчёт "final", 100%; v2.pdf'
    file = anna.upload(b"%PDF-", name, "application/pdf")
    assert file["name"] == name
    assert file["file"].endswith("/" + quote(name, safe=""))
    disposition = http.get(file["file"]).headers["Content-Disposition"]
    assert f"filename*=UTF-8''{quote(name, safe='')}" in disposition
    assert disposition.isascii() and disposition.count('"') == 2


def test_wrong_addresses(anna: User, http: httpx.Client) -> None:
    file = anna.upload(b"here", "here.txt")
    base = anna.service.url
    for path in (f"/media/{file['slot_id']}/other.txt", f"/media/{'0' * 32}/here.txt", "/media/x/y",
                 f"/media/{file['slot_id']}/", f"/media/{file['slot_id']}", "/media/../gallery.sqlite",
                 f"/media/{file['slot_id']}/..%2f..%2fgallery.sqlite",
                 f"/media/{file['slot_id']}/here.txt%00"):  # fmt: skip
        assert_error(http.get(base + path), 404)
    assert_error(http.post(file["file"]), 405)
    assert_error(http.delete(file["file"]), 405)


def test_a_deleted_file_is_gone(anna: User, http: httpx.Client) -> None:
    file = anna.upload(b"soon gone")
    assert http.get(file["file"]).status_code == 200
    anna.delete("files/", id=file["id"])
    assert_error(http.get(file["file"]), 404)


def test_other_origins_may_read(anna: User, http: httpx.Client) -> None:
    file, origin = anna.upload(b"open"), {"Origin": "https://chat.example.com"}
    assert http.get(file["file"], headers=origin).headers["Access-Control-Allow-Origin"] == "*"
    answer = http.get(file["file"], headers=origin | {"Range": "bytes=0-1"})
    for name in ("Content-Range", "ETag"):
        assert name in answer.headers["Access-Control-Expose-Headers"]
    asked = origin | {"Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "range"}
    preflight = http.options(file["file"], headers=asked)
    assert preflight.status_code == 200 and preflight.headers["Access-Control-Allow-Origin"] == "*"
