"""`/media/SLOT_ID/NAME`: bytes, ranges, conditions, headers."""

from __future__ import annotations

import hashlib
import os
from email.utils import formatdate, parsedate_to_datetime
from urllib.parse import quote, unquote

import httpx
import pytest

from tests import samples
from tests.service import MIB, Service, User, anyone, assert_error

ALWAYS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; sandbox; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "cross-origin",
    "X-Robots-Tag": "noindex",
}
FOREVER = "public, max-age=31536000, immutable"
SIZES = (0, 1, 4096, 64 * 1024, 64 * 1024 + 1, MIB, 5 * MIB)
"""Sizes around the limits between the ways to send a file: at once, by path, in pieces."""


@pytest.fixture(scope="module")
def files(service: Service) -> dict[int, tuple[str, bytes]]:
    user, data = service.user(), {size: os.urandom(size) for size in SIZES}
    return {size: (user.upload(data[size], "data.bin", "application/x-data")["file"], data[size]) for size in SIZES}


def always(answer: httpx.Response) -> bool:
    return {name: answer.headers.get(name) for name in ALWAYS} == ALWAYS


@pytest.mark.parametrize("size", SIZES)
def test_whole_files(files: dict[int, tuple[str, bytes]], size: int) -> None:
    url, data = files[size]
    answer, head = anyone.get(url), anyone.head(url)
    assert answer.status_code == head.status_code == 200
    assert answer.content == data and head.content == b""
    assert answer.headers["Content-Length"] == str(size)
    assert answer.headers["Accept-Ranges"] == "bytes"
    assert answer.headers["Cache-Control"] == FOREVER
    etag = answer.headers["ETag"]
    assert etag.startswith('"') and etag.endswith('"') and etag.count('"') == 2
    modified, date = (parsedate_to_datetime(answer.headers[name]) for name in ("Last-Modified", "Date"))
    assert modified <= date
    for name in ("Content-Type", "Content-Length", "ETag", "Last-Modified", "Content-Disposition", "Cache-Control",
                 "Accept-Ranges", *ALWAYS):  # fmt: skip
        assert answer.headers[name] == head.headers[name]


@pytest.mark.parametrize("size", SIZES[1:])
@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [("bytes=0-0", 0, 1), ("bytes=0-", 0, None), ("bytes=-1", -1, None), ("bytes=0-99999999", 0, None),
     ("bytes=-99999999", 0, None), ("Bytes = 0-0", 0, 1)],
)  # fmt: skip
def test_ranges(files: dict[int, tuple[str, bytes]], size: int, asked: str, start: int, end: int | None) -> None:
    url, data = files[size]
    answer = anyone.get(url, headers={"Range": asked})
    expected = data[start:end]
    assert answer.status_code == 206
    assert answer.content == expected
    first = start if start >= 0 else size + start
    assert answer.headers["Content-Range"] == f"bytes {first}-{first + len(expected) - 1}/{size}"


def test_an_empty_file_has_no_ranges(files: dict[int, tuple[str, bytes]]) -> None:
    for asked in ("bytes=0-", "bytes=0-1", "bytes=-1"):
        answer = anyone.get(files[0][0], headers={"Range": asked})
        assert_error(answer, 416)
        assert answer.headers["Content-Range"] == "bytes */0"


@pytest.mark.parametrize("size", SIZES[2:])
def test_a_film_is_read_in_parts_as_players_do(files: dict[int, tuple[str, bytes]], size: int) -> None:
    url, data = files[size]
    first = anyone.get(url, headers={"Range": "bytes=0-1"})
    assert (first.status_code, first.content, first.headers["Content-Length"]) == (206, data[:2], "2")
    assert first.headers["Content-Range"] == f"bytes 0-1/{size}"
    step = max(size // 3, 100)
    parts = [anyone.get(url, headers={"Range": f"bytes={at}-{at + step - 1}"}) for at in range(0, size, step)]
    assert {(part.status_code, part.headers["ETag"]) for part in parts} == {(206, first.headers["ETag"])}
    assert b"".join(part.content for part in parts) == data


def test_a_range_of_two_bytes(files: dict[int, tuple[str, bytes]]) -> None:
    url, data = files[5 * MIB]
    answer = anyone.get(url, headers={"Range": "bytes=0-1"})
    assert (answer.status_code, answer.content) == (206, data[:2])
    answer = anyone.get(url, headers={"Range": "bytes=1000000-3999999"})
    assert (answer.status_code, answer.content) == (206, data[1_000_000:4_000_000])


@pytest.mark.parametrize(
    "asked",
    ["bytes=0-1,3-4", "bytes=0-0,-1", "bytes=" + ",".join(f"{at}-{at}" for at in range(500)), "lines=1-2", "bytes=",
     "bytes=-", "bytes=a-b", "bytes=5-2", "bytes=--1", "bytes=1.5-2", "bytes=٣-٤", "nonsense", ""],
)  # fmt: skip
def test_anything_but_a_single_range_is_answered_whole(files: dict[int, tuple[str, bytes]], asked: str) -> None:
    url, data = files[4096]
    answer = anyone.get(url, headers={b"Range": asked.encode()})
    assert (answer.status_code, answer.content) == (200, data)
    assert "Content-Range" not in answer.headers


def test_head_ignores_a_range(files: dict[int, tuple[str, bytes]]) -> None:
    for asked in ("bytes=0-1", "bytes=99999-"):
        answer = anyone.head(files[4096][0], headers={"Range": asked})
        assert (answer.status_code, answer.headers["Content-Length"]) == (200, "4096")


@pytest.mark.parametrize("asked", ["bytes=4096-", "bytes=4096-4096", "bytes=99999-100000", "bytes=-0"])
def test_a_range_outside_is_416(files: dict[int, tuple[str, bytes]], asked: str) -> None:
    answer = anyone.get(files[4096][0], headers={"Range": asked})
    assert_error(answer, 416)
    assert answer.headers["Content-Range"] == "bytes */4096"
    assert always(answer)


def test_if_range(files: dict[int, tuple[str, bytes]]) -> None:
    url, data = files[4096]
    headers = anyone.head(url).headers
    earlier = formatdate(parsedate_to_datetime(headers["Last-Modified"]).timestamp() - 3600, usegmt=True)
    for condition, status in (
        (headers["ETag"], 206),
        (headers["Last-Modified"], 206),
        (earlier, 200),
        ('"other"', 200),
        (f"W/{headers['ETag']}", 200),
        ("nonsense", 200),
    ):
        answer = anyone.get(url, headers={"Range": "bytes=0-9", "If-Range": condition})
        assert (answer.status_code, answer.content) == (status, data[:10] if status == 206 else data), condition
    answer = anyone.get(url, headers={"Range": "bytes=9999-", "If-Range": '"other"'})
    assert (answer.status_code, answer.content) == (200, data)


def test_conditions(files: dict[int, tuple[str, bytes]]) -> None:
    url, _ = files[4096]
    headers = anyone.head(url).headers
    etag, modified = headers["ETag"], headers["Last-Modified"]
    later, earlier = (formatdate(parsedate_to_datetime(modified).timestamp() + by, usegmt=True) for by in (3600, -3600))
    for condition, status in (
        ({"If-None-Match": etag}, 304), ({"If-None-Match": f"W/{etag}"}, 304), ({"If-None-Match": f'"x", {etag}'}, 304),
        ({"If-None-Match": "*"}, 304), ({"If-None-Match": '"x"'}, 200), ({"If-Modified-Since": modified}, 304),
        ({"If-Modified-Since": later}, 304), ({"If-Modified-Since": earlier}, 200),
        ({"If-Modified-Since": "soon"}, 200),
        ({"If-None-Match": '"x"', "If-Modified-Since": later}, 200),
        ({"If-None-Match": etag, "If-Modified-Since": earlier}, 304),
        ({"If-None-Match": etag, "Range": "bytes=0-1"}, 304), ({"If-None-Match": etag, "Range": "bytes=9999-"}, 304),
        ({"If-None-Match": '"x"', "Range": "bytes=0-1"}, 206),
    ):  # fmt: skip
        for method in ("GET", "HEAD"):
            answer = anyone.request(method, url, headers=condition)
            assert answer.status_code == (200 if (method, status) == ("HEAD", 206) else status), condition
            assert answer.headers["ETag"] == etag
            if status == 304:
                assert answer.content == b""


def test_thumbnails_have_ranges_and_conditions_too(anna: User) -> None:
    image = samples.picture("png", 95, 85)
    for url in (anna.upload(image, "photo.png")["thumbnail"]["url"], anna.avatar(image)["thumbnails"][0]["url"]):
        whole = anyone.get(url)
        part = anyone.get(url, headers={"Range": "bytes=2-5"})
        assert (part.status_code, part.content) == (206, whole.content[2:6])
        for condition in ({"If-None-Match": whole.headers["ETag"]}, {"If-Modified-Since": whole.headers["Date"]}):
            assert anyone.get(url, headers=condition).status_code == 304
        assert anyone.head(url).headers["Content-Length"] == str(len(whole.content))


def test_every_representation_has_its_own_etag(anna: User) -> None:
    avatar = anna.avatar(samples.picture("png", 120, 120))
    other = anna.upload(b"other bytes")
    urls = [avatar["file"], avatar["thumbnail"]["url"], *(made["url"] for made in avatar["thumbnails"]), other["file"]]
    assert len({anyone.head(url).headers["ETag"] for url in urls}) == len(urls)


def test_headers_that_every_answer_has(anna: User) -> None:
    file = anna.upload(samples.picture("png", 100, 90), "photo.png")
    avatar = anna.avatar(samples.picture("png", 100, 90))
    for url in (file["file"], file["thumbnail"]["url"], avatar["file"], avatar["thumbnails"][0]["url"]):
        etag = anyone.head(url).headers["ETag"]
        for answer, status in (
            (anyone.get(url), 200), (anyone.head(url), 200), (anyone.get(url, headers={"Range": "bytes=0-1"}), 206),
            (anyone.get(url, headers={"If-None-Match": etag}), 304),
            (anyone.head(url, headers={"If-None-Match": etag}), 304),
        ):  # fmt: skip
            assert answer.status_code == status
            assert always(answer)
            assert answer.headers["Cache-Control"] == FOREVER


def test_refusals_and_placeholders_have_them_too(anna: User) -> None:
    file = anna.upload(samples.png_lie(40_000, 40_000), "lie.png", "image/png")
    base = f"{anna.service.url}/media/{file['slot_id']}"
    for method, url, status in (
        ("GET", f"{base}/thumb_lie.webp", 200), ("HEAD", f"{base}/thumb_lie.webp", 200), ("GET", f"{base}/no", 404),
        ("HEAD", f"{base}/no", 404), ("GET", f"{base}/a/b", 404), ("POST", file["file"], 405),
    ):  # fmt: skip
        answer = anyone.request(method, url)
        assert answer.status_code == status
        assert always(answer)
        assert "immutable" not in answer.headers.get("Cache-Control", "")


@pytest.mark.parametrize(
    ("media_type", "kind"),
    [("image/png", "inline"), ("image/jpeg", "inline"), ("image/gif", "inline"), ("image/webp", "inline"),
     ("audio/ogg", "inline"), ("audio/mpeg", "inline"), ("video/mp4", "inline"), ("video/webm", "inline"),
     ("image/svg+xml", "attachment"), ("IMAGE/SVG+XML", "attachment"), ("text/html", "attachment"),
     ("text/html; charset=utf-8", "attachment"), ("application/xhtml+xml", "attachment"),
     ("text/xml", "attachment"), ("application/xml", "attachment"), ("application/atom+xml", "attachment"),
     ("multipart/x-mixed-replace", "attachment"), ("message/rfc822", "attachment"), ("text/css", "attachment"),
     ("application/pdf", "attachment"), ("text/plain", "attachment"), ("text/javascript", "attachment"),
     ("application/wasm", "attachment"), ("application/x-unheard-of", "attachment")],
)  # fmt: skip
def test_only_safe_types_are_shown_inline(anna: User, media_type: str, kind: str) -> None:
    file = anna.upload(samples.HTML, "page.html", media_type=media_type)
    answer = anyone.get(file["file"])
    assert answer.headers["Content-Type"] == media_type.partition(";")[0].lower()
    assert answer.headers["Content-Disposition"].partition(";")[0] == kind
    assert always(answer)


@pytest.mark.parametrize(
    ("data", "name"),
    [(samples.HTML, "page.html"), (samples.SVG, "drawing.svg"), (b"<?xml version='1.0'?><a/>", "a.xml"),
     (samples.HTML, "page"), (samples.HTML, "page.xhtml"), (samples.HTML, "page.png.html")],
)  # fmt: skip
def test_pages_without_a_stated_type_are_downloads(anna: User, data: bytes, name: str) -> None:
    answer = anyone.get(anna.upload(data, name)["file"])
    assert answer.headers["Content-Disposition"].startswith("attachment")
    assert answer.content == data and always(answer)


def test_the_name_is_in_the_disposition(anna: User) -> None:
    name = 'Отчёт "final", 100%; v2.pdf'
    file = anna.upload(b"%PDF-", name, "application/pdf")
    assert file["name"] == name
    assert file["file"].endswith("/" + quote(name, safe=""))
    disposition = anyone.get(file["file"]).headers["Content-Disposition"]
    assert f"filename*=UTF-8''{quote(name, safe='')}" in disposition
    assert disposition.isascii() and disposition.count('"') == 2


@pytest.mark.parametrize(
    "name",
    ["a b+c.txt", "100%25.txt", "a#b?c&d=e;f.txt", "Фото 🏖️ 中文.jpg", "it's (1) [2] {3}.txt", "e\u0301.txt", "..a..txt",
     "=?utf-8?q?x?=.txt", "a,b;c=d.txt", "%2e%2e%2f.txt", "~user.txt", "a\u200db.txt"],
)  # fmt: skip
def test_names_in_addresses(anna: User, name: str) -> None:
    data = os.urandom(20)
    file = anna.upload(data, name, "application/x-data")
    assert file["name"] == name
    assert file["file"] == f"{anna.service.url}/media/{file['slot_id']}/{quote(name, safe='')}"
    base = file["file"].rpartition("/")[0]
    everything = "".join(f"%{byte:02x}" for byte in name.encode())
    for spelled in (quote(name, safe=""), quote(name, safe="!$&'()*+,;=:@~"), everything, everything.upper()):
        answer = anyone.get(f"{base}/{spelled}")
        assert (answer.status_code, answer.content) == (200, data), spelled
    disposition = answer.headers["Content-Disposition"]
    assert disposition.isascii()
    assert unquote(disposition.partition("filename*=UTF-8''")[2]) == name


def test_a_name_that_was_encoded_twice(anna: User) -> None:
    file = anna.upload(samples.picture("png", 81, 82), "Фото 100%.png")
    avatar = anna.avatar(samples.picture("png", 83, 84), "Я и ты.png")
    for url in (file["file"], file["thumbnail"]["url"], avatar["file"], avatar["thumbnails"][0]["url"]):
        again = url.replace("%", "%25")
        assert anyone.get(again).content == anyone.get(url).content
        assert anyone.head(again).headers["ETag"] == anyone.head(url).headers["ETag"]
        assert_error(anyone.get(url.replace("%", "%2525")), 404)
    right = anna.upload(b"the first that fits", "100%25.txt")
    assert anyone.get(right["file"]).content == b"the first that fits"


def test_a_query_changes_nothing(anna: User) -> None:
    file = anna.upload(b"plain")
    assert anyone.get(file["file"] + "?v=1&name=other").content == b"plain"


def test_a_token_is_not_asked_for_nor_looked_at(anna: User) -> None:
    file = anna.upload(b"open to all")
    for token in (f"Bearer {anna.token}", "Bearer wrong", "Basic eA=="):
        assert anyone.get(file["file"], headers={"Authorization": token}).status_code == 200


def test_the_same_bytes_under_two_links(anna: User, boris: User) -> None:
    data = os.urandom(50).hex().encode()
    first = anna.upload(data, "page.txt", "text/plain")
    second = boris.upload(data, "sound.ogg", "audio/ogg")
    assert first["slot_id"] != second["slot_id"]
    assert anyone.get(first["file"]).headers["Content-Type"] == "text/plain"
    assert anyone.get(second["file"]).headers["Content-Type"] == "audio/ogg"
    assert anyone.get(f"{anna.service.url}/media/{first['slot_id']}/sound.ogg").status_code == 404
    assert hashlib.sha1(anyone.get(second["file"]).content).hexdigest() == first["hash"]


def test_wrong_addresses(anna: User) -> None:
    file = anna.upload(b"here", "here.txt")
    base = anna.service.url
    for path in (f"/media/{file['slot_id']}/other.txt", f"/media/{'0' * 32}/here.txt", "/media/x/y",
                 f"/media/{file['slot_id']}/", f"/media/{file['slot_id']}", "/media/../gallery.sqlite",
                 f"/media/{file['slot_id']}/..%2f..%2fgallery.sqlite", f"/media/{file['slot_id']}/here.txt/",
                 f"/media/{file['slot_id']}/HERE.txt", f"/media/{file['slot_id'].upper()}0/here.txt",
                 f"/media/{file['slot_id']}/here.txt%20", f"/media/{file['slot_id']}/%FF%FE", "/media/", "/media",
                 f"/media/{file['slot_id']}/here.txt%00", "/media/%00/here.txt"):  # fmt: skip
        assert_error(anyone.get(base + path), 404)
    assert_error(anyone.post(file["file"]), 405)
    assert_error(anyone.delete(file["file"]), 405)


def test_a_deleted_file_is_gone(anna: User) -> None:
    file = anna.upload(b"soon gone")
    assert anyone.get(file["file"]).status_code == 200
    anna.delete("files/", id=file["id"])
    assert_error(anyone.get(file["file"]), 404)
