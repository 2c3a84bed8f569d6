"""Hostile files, one after another: each is kept and served as the table says, and the decoder works after it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from media_gallery.names import thumbnail_name
from tests import samples
from tests.attack.corpus import CASES, FORMATS, MAX_PIXELS, Case, damaged, encrypted
from tests.service import Service, User, assert_error

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; sandbox; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "cross-origin",
    "X-Robots-Tag": "noindex",
}
CARRIED = (b"<script", b"Set-Cookie", b"PK\x03\x04", b"index.html")
"""Content of hostile pictures that must not be in any picture that we make."""


@pytest.fixture(scope="module")
def attacked(start_service: Callable[..., Service]) -> Iterator[Service]:
    service = start_service(MAX_PIXELS=MAX_PIXELS, DECODERS="1")
    yield service
    assert "unforeseen error" not in service.log()
    assert 'status="500"' not in service.http.get("/metrics").text


@pytest.fixture
def user(attacked: Service) -> User:
    return attacked.user()


def is_harmless(answer: httpx.Response) -> None:
    for name, value in HEADERS.items():
        assert answer.headers[name] == value


def thumbnail_of(user: User, file: dict[str, Any]) -> httpx.Response:
    """The answer at the address of its thumbnail, even if no answer named that address."""
    return user.http.get(file["file"].rpartition("/")[0] + "/" + thumbnail_name(file["name"]))


def decodes(user: User) -> None:
    """Check that the decoder works: it makes a thumbnail of a good picture."""
    assert user.avatar(samples.picture("png", 40, 40))["width"] == 40


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.what)
def test_a_hostile_file(user: User, case: Case) -> None:
    data = case.make()
    file = user.upload(data, case.name, case.said)
    assert (file["media_type"], file["size"]) == (case.stored, len(data))
    served = user.http.get(file["file"])
    assert served.status_code == 200 and served.content == data
    assert served.headers["Content-Type"] == case.stored
    assert served.headers["Content-Disposition"].startswith(f"{case.shown};")
    is_harmless(served)

    shown = thumbnail_of(user, file)
    is_harmless(shown)
    made = shown.status_code == 200 and "immutable" in shown.headers["Cache-Control"]
    assert made == case.thumbnail
    [listed] = user.items(id=file["id"])
    assert (listed["thumbnail"] is not None) == case.stored.startswith(("image/", "video/"))
    if shown.status_code == 200:
        assert shown.headers["Content-Type"] == "image/webp" and len(shown.content) < 100_000
        assert not any(mark in shown.content for mark in CARRIED)

    answer = user.send(data, case.name, case.said, path="avatar/upload/")
    assert answer.status_code in case.avatar, answer.text
    if answer.status_code == 201:
        kept = user.http.get(answer.json()["file"])
        assert kept.headers["Content-Disposition"].startswith("inline;")
        assert not any(mark in kept.content for mark in CARRIED)
    else:
        assert_error(answer, answer.status_code)
        assert user.used() == len(data)
    decodes(user)


@pytest.mark.parametrize("kind", [*FORMATS, "mp4"])
def test_damaged_files(user: User, kind: str) -> None:
    """Each is kept and served whole. It has a thumbnail or a placeholder; no other answer is right."""
    name = f"a.{FORMATS.get(kind, kind)}"
    for seed in range(8):
        data = damaged(kind, seed)
        file = user.upload(data, name)
        assert user.http.get(file["file"]).content == data
        assert thumbnail_of(user, file).status_code == 200
        assert user.send(data, name, path="avatar/upload/").status_code in (201, 415)
    decodes(user)


@pytest.mark.parametrize(
    "title",
    ["\x01\x07\x1b[31m", "\r\nX-Evil: 1", "\u202egpj.exe", "\U0001f600", "<script>alert(1)</script>", "'; DROP"],
    ids=["control", "line break", "override", "emoji", "script", "sql"],
)  # fmt: skip
def test_metadata_come_back_as_they_were(user: User, title: str) -> None:
    metadata = {"title": title, title: [{title: None}]}
    file = user.upload(encrypted(100), "a.bin", metadata=metadata)
    assert file["metadata"] == metadata == user.items()[0]["metadata"]
    is_harmless(user.http.get(file["file"]))


@pytest.mark.parametrize(
    "metadata",
    ['{"a": "\\u0000"}', '{"a": ' * 3000 + "1" + "}" * 3000, "[1]", '{"a": NaN}', '{"a": 1e999}', '{"\\ud800": 1}',
     '{"a": "\\udfff"}', '{"a": ' + "9" * 5000 + "}", '{"a": 1} {"b": 2}', "{" * 16_000,
     '{"a": "' + "x" * 17_000 + '"}'],
    ids=["null", "deep", "list", "nan", "infinite", "half a pair as a key", "half a pair", "long number", "two",
         "braces", "large"],
)  # fmt: skip
def test_malformed_metadata(user: User, metadata: str) -> None:
    """They are refused, or kept so that every client can read them."""
    answer = user.send(b"x", "a.bin", metadata=metadata)
    if answer.status_code == 201:
        assert json.loads(user.get("files/").content)["items"][0]["metadata"] == answer.json()["metadata"]
    else:
        assert_error(answer, 400)


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("../../etc/passwd", "passwd"), ("..\\..\\boot.ini", "boot.ini"), ("a\x00.jpg", "a.jpg"),
        ("a\x7f\x1b.jpg", "a.jpg"), ("\u202egpj.exe", "gpj.exe"), ("..", "_"), ("a\u2028b.txt", "ab.txt"),
        ("<img src=x onerror=alert(1)>.png",
         "<img src=x onerror=alert(1)>.png"), ("%2e%2e%2fa", "%2e%2e%2fa"), ("CON", "CON"), ("a;b=c.txt", "a;b=c.txt"),
        ("x" * 1000 + ".jpg", "x" * 251 + ".jpg"), ("\ufeff\u200b.txt", ".txt"),
    ],
)  # fmt: skip
def test_hostile_names(user: User, name: str, kept: str) -> None:
    """Names that look like paths, headers or other things. They are sent raw, since no library would send them."""
    head = f'--b\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'.encode()
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    answer = user.http.post("files/upload/", content=head + b"x\r\n--b--\r\n", headers=headers)
    if answer.status_code == 400:  # the parser is stricter than our rules
        assert any(ord(c) < 32 or c in "\x7f\\" for c in name)
        return
    assert answer.status_code == 201
    file = answer.json()
    assert file["name"] == kept
    served = user.http.get(file["file"])
    assert served.content == b"x"
    assert "\n" not in served.headers["Content-Disposition"] and "X-Evil" not in served.headers
    is_harmless(served)
