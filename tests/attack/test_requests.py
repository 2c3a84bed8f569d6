"""Requests over a bare socket that no usual client sends: none gets a 500, and none hides a second request."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from media_gallery import errors
from media_gallery.http import API, BASE, DOCUMENT, DOCUMENT_PAGE, PAGE, PAGE_FILES, PLAIN
from media_gallery.http.middleware import METHODS, OTHER
from media_gallery.models import CATEGORIES, Jid
from tests.faults.raw import BOUNDARY, END, Raw, part
from tests.service import Service, User, assert_error
from tests.waiting import DEADLINE


@pytest.fixture(scope="module")
def attacked(start_service: Callable[..., Service]) -> Iterator[Service]:
    service = start_service()
    yield service
    assert "unforeseen error" not in service.log()
    assert 'status="500"' not in service.http.get("/metrics").text
    assert not invented(service)


@pytest.fixture(scope="module")
def user(attacked: Service) -> User:
    return attacked.user()


@pytest.fixture(scope="module")
def media(user: User) -> str:
    return str(user.upload(b"x" * 1000, "a.bin")["file"]).removeprefix(user.service.url)


def ask(user: User, line: bytes, *headers: bytes, body: bytes = b"") -> tuple[int, dict[str, str], bytes]:
    """Send one request as these bytes; return status, headers and body. The status is 0 if there was no answer."""
    lines = [line, b"Host: x", b"Connection: close", f"Authorization: Bearer {user.token}".encode(), *headers, b"", b""]
    data = b""
    with socket.create_connection(("127.0.0.1", user.service.port), timeout=DEADLINE) as connection:
        try:
            connection.sendall(b"\r\n".join(lines) + body)
            while more := connection.recv(65536):
                data += more
        except ConnectionError:
            pass
    if not data:
        return 0, {}, b""
    head, _, rest = data.partition(b"\r\n\r\n")
    first, *fields = head.decode("latin-1").split("\r\n")
    return int(first.split()[1]), dict(field.lower().split(": ", 1) for field in fields), rest


# --- The form ---


def test_the_end_of_a_form_may_come_in_pieces(user: User) -> None:
    """The last line break comes in its own packet, as TLS and proxies may cut it."""
    for cut in range(1, len(END) + 1):
        body = part("file", b"x", "a.txt") + END
        raw = Raw(user)
        raw.head(None)
        raw.chunk(body[:-cut])
        raw.chunk(body[-cut:])
        raw.send(b"0\r\n\r\n")
        assert raw.answer()[0] == 201, cut


def test_what_follows_a_form_is_ignored_up_to_a_limit(user: User) -> None:
    for size, status in ((10_000, 201), (1_000_000, 400)):
        raw = Raw(user)
        raw.head(None)
        raw.chunk(part("file", b"x", "a.txt") + END)
        for _ in range(0, size, 1000):
            raw.chunk(b"-" * 1000)
        raw.send(b"0\r\n\r\n")
        assert raw.answer()[0] == status


@pytest.mark.parametrize(
    "boundary", ["x" * 2000, '""', '"\\"', "\xff", "a; boundary=b", '"a\\\\b"', "=?utf-8?q?x?=", "x" * 300, "--", " "]
)
def test_boundaries(user: User, boundary: str) -> None:
    for body in (b"", b"--" + boundary.encode("latin-1") + b"--\r\n", part("file", b"x", "a")):
        content_type = b"multipart/form-data; boundary=" + boundary.encode("latin-1")
        for line in (b"POST /api/v1/files/upload/ HTTP/1.1", b"DELETE /api/v1/files/ HTTP/1.1"):
            length = f"Content-Length: {len(body)}".encode()
            status, _, _ = ask(user, line, b"Content-Type: " + content_type, length, body=body)
            assert status == 400, (line, body)


# --- Lines and headers ---


@pytest.mark.parametrize(
    ("target", "statuses"),
    [
        (b"/api/v1/files/?name=\xff\xfe", (200, 400)), (b"/api/v1/files/?name=%ff%fe", (200, 400)),
        (b"/media/%00/%00", (404,)),
        (b"/api/v1/files/?name=a%00b", (400,)), (b"/api/v1/files/?name=%0d%0aX-Evil:%201", (200,)),
        (b"/media/%ff/%fe", (404,)),
        (b"/api/v1/files/?" + b"a" * 60_000, (200,)), (b"/api/v1/files/?" + b"a" * 70_000, (414,)),
        (b"/" + b"a/" * 30_000, (404,)),
        (b"/media/..%2f..%2fgallery.sqlite/x", (404,)), (b"/media/../../etc/passwd", (404,)),
        (b"//evil.example/%0d%0aX-Evil:1", (404,)),
        (b"http://evil.example/api/v1/files/", (200,)), (b"*", (404, 400)), (b"/api/v1/files/\x00", (400,)),
        (b"", (400,)),
        (b"/api/v1/files/percent/%d9%a1%d9%a0/", (400,)), (b"/api/v1/files/percent/1e1/", (400,)),
        (b"/api/v1/files/percent/05/", (400,)),
        (b"/API/V1/FILES/", (404,)),
        (b"/api/v1/files/percent/" + b"9" * 50_000 + b"/", (400,)), (b"/api/v1/files/%3fid=1", (404,)),
        (b"/api/v1/files;a=b/", (404,)),
    ],
)  # fmt: skip
def test_targets(user: User, target: bytes, statuses: tuple[int, ...]) -> None:
    status, headers, _ = ask(user, b"GET " + target + b" HTTP/1.1")
    assert status in statuses
    assert "x-evil" not in headers and "location" not in headers


@pytest.mark.parametrize(
    ("header", "statuses"),
    [
        (b"X-Forwarded-For: \xff, ::::, 1.2.3.4.5, " + b"1.1.1.1," * 5000, (200,)),
        (b"Accept-Language: ;q=,\xff;q=nan,a;q=-1", (200,)),
        (b"Content-Type: \xff/\xff; boundary=\"", (200,)), (b"Content-Length: 0\r\nContent-Length: 5", (400,)),
        (b"Content-Length: -1", (400,)), (b"Content-Length: " + b"9" * 30, (400,)), (b"Content-Length: 0x10", (400,)),
        (b"Transfer-Encoding: chunked, identity", (400,)), (b"Transfer-Encoding: \x0bchunked", (400,)),
        (b"X: a\r\n folded", (400,)),
        (b"X : a", (400,)), (b"X: a\rb", (400,)), (b"X: \x00", (400,)),
        (b"Upgrade: h2c\r\nConnection: upgrade", (200,)),
        (b"X-HTTP-Method-Override: DELETE", (200,)), (b"Cookie: " + b"a=b;" * 5000, (200,)),
        (b"Host: other", (200, 400)),
    ],
)  # fmt: skip
def test_headers(user: User, header: bytes, statuses: tuple[int, ...]) -> None:
    assert ask(user, b"GET /api/v1/files/ HTTP/1.1", header)[0] in statuses


def test_a_body_of_two_lengths_smuggles_nothing(user: User) -> None:
    """If both are given, the chunks count (RFC 9112, section 6.3). No second request is read from the body."""
    second = b"DELETE /api/v1/account/ HTTP/1.1\r\nHost: x\r\n" + f"Authorization: Bearer {user.token}\r\n\r\n".encode()
    body = b"0\r\n\r\n" + second
    line, length = b"DELETE /api/v1/avatar/?id=1 HTTP/1.1", f"Content-Length: {len(body)}".encode()
    ask(user, line, length, b"Transfer-Encoding: chunked", body=body)
    ask(user, line, b"Transfer-Encoding: chunked", length, body=body)
    assert user.get("account/quota/").status_code == 200


# --- Chunks (RFC 9112, sections 6 and 7.1) ---


EMPTY = b"2\r\n{}\r\n0\r\n"
BROKEN = {
    "negative": b"-5\r\nhello\r\n0\r\n\r\n",
    "no hex": b"zz\r\nhello\r\n0\r\n\r\n",
    "prefix": b"0x5\r\nhello\r\n0\r\n\r\n",
    "sign": b"+5\r\nhello\r\n0\r\n\r\n",
    "spaces": b" 5 \r\nhello\r\n0\r\n\r\n",
    "no size": b"\r\nhello\r\n0\r\n\r\n",
    "huge": b"F" * 17 + b"\r\nhello\r\n0\r\n\r\n",
    "line feeds": b"5\nhello\n0\n\n",
    "line feed in an extension": b"5;a=b\nhello\r\n0\r\n\r\n",
    "more data": b"3\r\nhello\r\n0\r\n\r\n",
    "no line behind the data": b"5\r\nhelloXX0\r\n\r\n",
    "long extension": b"5;" + b"a" * 100_000 + b"\r\nhello\r\n0\r\n\r\n",
    "many extensions": (b"1;" + b"a" * 1000 + b"\r\n \r\n") * 100 + b"0\r\n\r\n",
    "long trailer": EMPTY + b"X: " + b"a" * 100_000 + b"\r\n\r\n",
    "many trailers": EMPTY + b"X: a\r\n" * 2000 + b"\r\n",
    "no trailer": EMPTY + b"X a\0\r\n\r\n",
}


@pytest.mark.same_everywhere
@pytest.mark.parametrize("body", BROKEN.values(), ids=BROKEN)
def test_malformed_chunks_are_refused(user: User, body: bytes) -> None:
    form = b"Content-Type: multipart/form-data; boundary=x"
    for line in (b"POST /api/v1/files/upload/", b"POST /api/v1/account/xmpp_auth/", b"DELETE /api/v1/avatar/"):
        status, headers, told = ask(user, line + b" HTTP/1.1", b"Transfer-Encoding: chunked", form, body=body)
        answer = json.loads(told)
        assert status == answer["status"] == 400 and answer["error"]
        assert headers["content-type"] == "application/json" and headers["connection"] == "close"


@pytest.mark.same_everywhere
@pytest.mark.parametrize("length", [None, 1000], ids=["chunks", "length"])
def test_a_body_that_breaks_off_is_refused_where_somebody_still_listens(user: User, length: int | None) -> None:
    raw = Raw(user)
    raw.head(length)
    raw.send(b"ff\r\n" + part("file", b"", "a"))
    raw.socket.shutdown(socket.SHUT_WR)
    status, answer = raw.answer()
    assert status == answer["status"] == 400
    raw.close()


@pytest.mark.same_everywhere
@pytest.mark.parametrize("length", [b"\xb2", b"9" * 5000, b"-1", b"1000000000000"])
def test_a_length_beside_chunks_is_ignored(user: User, length: bytes) -> None:
    form = part("file", b"x", "a.txt") + END
    content_type = f"Content-Type: multipart/form-data; boundary={BOUNDARY}".encode()
    framing = b"Transfer-Encoding: chunked\r\nContent-Length: " + length
    body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(form), form)
    assert ask(user, b"POST /api/v1/files/upload/ HTTP/1.1", framing, content_type, body=body)[0] == 201


# --- Methods ---


def every_refusal() -> list[type[errors.GalleryError]]:
    found = [errors.GalleryError]
    for kind in found:
        found += kind.__subclasses__()
    return found


LABELS: dict[str, set[str]] = {
    "method": {*METHODS, OTHER},
    "route": {*(BASE + operation.path for operation in API), *PLAIN, DOCUMENT, DOCUMENT_PAGE, PAGE, PAGE_FILES, "-"},
    "status": {"200", "201", "204", "206", "304", "499"} | {str(kind.status) for kind in every_refusal()},
    "category": set(CATEGORIES),
    "stored": {"new", "known"},
    "kind": {"image", "video", "avatar"},
    "operation": {"look", "read", "write", "scan", "delete"},
    "state": {"waiting", "running"},
    "ratio": {"0.9", "1"},
    "outcome": {"made", "failed", "sent", "unsent", "used", "refused"},
}
"""All values of the labels of metrics. Each stays in memory, so no value that a client invents may become one."""


def invented(service: Service) -> set[tuple[str, str]]:
    """Labels with values outside their set, except those of buckets."""
    families = text_string_to_metric_families(service.http.get("/metrics").text)
    seen = {pair for family in families for sample in family.samples for pair in sample.labels.items()}
    return {(name, value) for name, value in seen if name != "le" and value not in LABELS[name]}


def test_every_label_of_a_metric_has_a_fixed_set_of_values(user: User) -> None:
    for number in range(30):
        method = f"X{uuid4().hex}{number}".encode()
        for path in (b"/api/v1/files/", b"/healthz", b"/media/a/b", b"/nothing", b"/api/v1/files/percent/5/"):
            assert ask(user, method + b" " + path + b" HTTP/1.1")[0] in (404, 405)
    user.upload(b"x", f"{uuid4()}.x", f"made/up-{uuid4().hex}", context="voice")
    user.http.get(f"/{uuid4()}/{uuid4()}")
    user.http.post("account/xmpp_auth/", json={"jid": f"{uuid4()}@{uuid4()}.example", "code": "1"})
    assert not invented(user.service)
    assert f'method="{OTHER}"' in user.service.http.get("/metrics").text


@pytest.mark.parametrize(
    "path", ["files/", "files/upload/", "account/", "avatar/", "account/quota/", "files/percent/100/"]
)
@pytest.mark.parametrize("method", ["get", "delete", "TRACE", "CONNECT", "PATCH", "PROPFIND", "HEAD", "OPTIONS"])
def test_confused_methods_change_nothing(user: User, method: str, path: str) -> None:
    before = user.get("account/quota/").json()
    status, _, _ = ask(user, f"{method} /api/v1/{path} HTTP/1.1".encode())
    assert status in ((200, 405) if method == "HEAD" else (400, 404, 405))
    assert user.get("account/quota/").json() == before


def test_head_is_answered_only_where_get_is(user: User) -> None:
    for path in ("files/upload/", "avatar/upload/", "account/xmpp_auth/"):
        assert ask(user, f"HEAD /api/v1/{path} HTTP/1.1".encode())[0] == 405


# --- Ranges ---


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.from_regex(rb"(bytes|Bytes|lines|)=?[-0-9, ]{0,40}", fullmatch=True))
def test_ranges(user: User, media: str, asked: bytes) -> None:
    status, headers, body = ask(user, f"GET {media} HTTP/1.1".encode(), b"Range: " + asked)
    assert status in (200, 206, 416)
    if status == 206:
        start, end = headers["content-range"].removeprefix("bytes ").partition("/")[0].split("-")
        assert len(body) == int(end) - int(start) + 1 == int(headers["content-length"])
    elif status == 200:
        assert len(body) == 1000


@pytest.mark.parametrize(
    "asked",
    [b"bytes=" + b"0-0," * 20_000 + b"0-0", b"bytes=0-" + b"9" * 50_000, b"bytes=-" + b"9" * 5000, b"bytes=\xb2-",
     b"bytes=1e3-",
     b"bytes=0-0\r\nRange: bytes=1-1", b"bytes=" + b"-" * 10_000, b"bytes=18446744073709551616-18446744073709551617"],
)  # fmt: skip
def test_absurd_ranges(user: User, media: str, asked: bytes) -> None:
    for method in (b"GET", b"HEAD"):
        assert ask(user, method + b" " + media.encode() + b" HTTP/1.1", b"Range: " + asked)[0] in (200, 206, 416)


@pytest.mark.parametrize("header", [b"If-None-Match", b"If-Range", b"If-Modified-Since", b"If-Unmodified-Since"])
@pytest.mark.parametrize(
    "value",
    [
        b"\xff",
        b'"',
        b"W/" * 1000,
        b'"a",' * 5000,
        b"Mon, 99 Foo 99999999999 99:99:99 GMT",
        b"0",
        b"*,*",
        b"Mon, 23 Nov 2026 10:00:00 +99999999999999999999",
        b"23 Nov 99999999999 10:00:00 GMT",
    ],
)
def test_absurd_conditions(user: User, media: str, header: bytes, value: bytes) -> None:
    status, _, _ = ask(user, f"GET {media} HTTP/1.1".encode(), header + b": " + value, b"Range: bytes=0-0")
    assert status in (200, 206, 304)


# --- JIDs ---


@pytest.mark.parametrize(
    "spelling",
    ["Anna.{}@Example.org", "ANNA.{}@EXAMPLE.ORG", "anna.{}@example.org.", "ａｎｎａ.{}@ｅｘａｍｐｌｅ.ｏｒｇ",
     "anna.{}@example。org", "anna.{}@example.org。",
     "anna.{}@example.org/phone", "  anna.{}@example.org  "],
)  # fmt: skip
def test_two_spellings_are_one_account(attacked: Service, spelling: str) -> None:
    name = uuid4().hex
    anna = attacked.user(jid=f"anna.{name}@example.org")
    again = attacked.user(jid=spelling.format(name))
    file = anna.upload(b"x")
    assert [item["id"] for item in again.items()] == [file["id"]]
    assert assert_error(anna.get("account/quota/", jid="boris@example.org"), 403)
    assert anna.get("account/quota/", jid=spelling.format(name)).status_code == 200
    assert again.delete("account/", jid=spelling.format(name)).status_code == 204


@pytest.mark.parametrize(
    "other", ["аnna.{}@example.org", "anna.{}@еxample.org", "anna.{}@example.org.evil.org", "anna.{}\u0307@example.org"]
)
def test_similar_letters_are_other_accounts(attacked: Service, other: str) -> None:
    """Cyrillic letters that look like Latin ones, and letters with combining marks."""
    name = uuid4().hex
    anna = attacked.user(jid=f"anna.{name}@example.org")
    anna.upload(b"x")
    assert attacked.user(jid=other.format(name)).items() == []


@pytest.mark.parametrize(
    "text",
    ["", "@", "a@", "@b", "a@b/", "a@b@c", "a b@c", "a\0@b", "a@b\0", "a@b/\0", "a\u202eb@c", "a\u200b@b", "a@b..c",
     "a@-b", "a@[::1",
     "a@[x]", "a@::1", "a@::1%\0", "a@[::1%\u0001]", "a@b/" + "я" * 512,
     "a@b\r\nX: y", "a" * 1024 + "@b", "a@" + "b" * 70, "\ud7ff@b", "\uffff@b", "a@\u0660",
     '"a"@b', "a'@b", "a&@b", "<a>@b",
     "\u0300a@b", "a@b/\ufffe", "a@xn--a", "a@" + "b." * 1000 + "c"],
)  # fmt: skip
def test_what_is_no_jid_is_refused_alike_everywhere(attacked: Service, text: str) -> None:
    """If it is a valid JID, its prepared form is valid, too, and is the same JID."""
    answer = attacked.http.post("/api/v1/account/xmpp_auth/", json={"jid": text, "code": "000000"})
    if answer.status_code == 400:
        assert_error(attacked.http.post("/api/v1/account/xmpp_code_request/", json={"jid": text}), 400)
    else:
        assert answer.status_code in (403, 404)
        prepared = Jid.parse(text)
        assert Jid.parse(str(prepared)) == prepared
