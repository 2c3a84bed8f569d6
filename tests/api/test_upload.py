"""`POST files/upload/`: what a client may say of a file, what is kept, what is refused."""

from __future__ import annotations

import hashlib
import json
import os

import pytest

from tests import samples
from tests.faults.raw import BOUNDARY, END, part
from tests.service import MIB, User, assert_error

NEW_LETTERS = "\U0001fae8🏴\U000e0067\U000e007f\U00032390.png"
"""A face of Unicode 15, a flag of tag characters, an ideograph of Unicode 15.1."""


def send_form(user: User, *parts: bytes) -> tuple[int, dict[str, object]]:
    """Send a form with these parts in this order."""
    answer = user.http.post(
        "files/upload/",
        content=b"".join(parts) + END,
        headers={"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"},
    )
    return answer.status_code, answer.json()


def test_the_file_object_says_what_was_kept(anna: User) -> None:
    data = b"some text"
    file = anna.upload(data, "notes.txt", "text/plain", metadata={"duration": 12})
    assert file["size"] == len(data)
    assert file["hash"] == hashlib.sha1(data).hexdigest()
    assert file["hashes"] == {"sha-256": hashlib.sha256(data).hexdigest(), "sha-1": file["hash"]}
    assert (file["name"], file["media_type"], file["context"]) == ("notes.txt", "text/plain", "file")
    assert file["is_avatar"] is False
    assert file["metadata"] == {"duration": 12}
    assert file["thumbnail"] is None
    assert "thumbnails" not in file
    assert len(file["slot_id"]) >= 22
    assert file["file"] == f"{anna.service.url}/media/{file['slot_id']}/notes.txt"
    assert (file["quota"], file["used"]) == (50 * MIB, len(data))
    assert anna.http.get(file["file"]).content == data


def test_an_empty_file_is_a_file(anna: User) -> None:
    file = anna.upload(b"", "empty.txt", "text/plain")
    assert file["size"] == 0
    assert anna.http.get(file["file"]).content == b""


# --- Media type and context ---


@pytest.mark.parametrize(
    ("data", "name", "part_type", "said", "kept"),
    [
        (b"x", "a.bin", "image/png", "audio/ogg", "audio/ogg"),
        (b"x", "a.bin", "video/mp4; codecs=avc1", None, "video/mp4"),
        (b"x", "a.bin", "IMAGE/PNG", None, "image/png"),
        (b"x", "a.pdf", "application/octet-stream", None, "application/pdf"),
        (b"x", "a.pdf", "application/octet-stream", "application/octet-stream", "application/pdf"),
        (samples.picture("png"), "a", "multipart/form-data", None, "image/png"),
        (samples.picture("png"), "a.txt", "text/plain", "binary/octet-stream", "image/png"),
        (samples.picture("png"), "a.dat", '"image/x-png"', None, "image/png"),
        (b"x", "a.bin", "audio/mpeg", "image/pjpeg", "image/jpeg"),
        (b"x", "a.bin", "audio/mpeg", "*/*", "audio/mpeg"),
        (samples.film("3gp", width=176, height=144), "a.3gp", None, None, "video/3gpp"),
        (b"x", "a.unknown", None, "no type at all", "application/octet-stream"),
        (samples.picture("png"), "a.unknown", None, None, "image/png"),
        (samples.picture("jpeg"), "a.txt", None, None, "image/jpeg"),
        (samples.picture("heic"), "a.heic", None, None, "image/heic"),
        (samples.picture("heic"), "a", None, None, "image/heic"),
        (samples.film("mp4"), "a.mp4", None, None, "video/mp4"),
        (samples.film("webm", "libvpx"), "a.webm", None, None, "video/webm"),
        (b"OggS\0\2" + b"\0" * 22 + b"\1\x13OpusHead", "a.ogg", None, None, "audio/ogg"),
        (samples.HTML, "a.jpg", None, None, "text/html"),
        (b"%PDF-1.7\n", "a", None, None, "application/pdf"),
        (b"hello", "a.txt", None, None, "text/plain"),
        (b"hello", "nothing", None, None, "application/octet-stream"),
    ],
)
def test_the_type_is_the_stated_one_or_that_of_the_content(
    anna: User, data: bytes, name: str, part_type: str | None, said: str | None, kept: str
) -> None:
    kind = f"\r\nContent-Type: {part_type}" if part_type else ""
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="{name}"{kind}\r\n\r\n'
    fields = [part("media_type", said.encode())] if said else []
    status, file = send_form(anna, *fields, head.encode() + data + b"\r\n")
    assert (status, file["media_type"]) == (201, kept)


def test_a_voice_suffix_means_a_voice_message(anna: User) -> None:
    file = anna.upload(b"OggS", "voice.ogg", media_type="audio/ogg+voice")
    assert (file["media_type"], file["context"]) == ("audio/ogg", "voice")
    file = anna.upload(b"OggS", "voice.ogg", "audio/ogg+voice")
    assert file["context"] == "voice"
    file = anna.upload(b"OggS", "voice.ogg", media_type="audio/ogg; codecs=opus+voice")
    assert (file["media_type"], file["context"]) == ("audio/ogg", "voice")
    file = anna.upload(b"OggS", "voice.ogg", "audio/ogg+voice", media_type="audio/ogg", context="file")
    assert file["context"] == "voice"
    file = anna.upload(b"OggS", "music.ogg", media_type="audio/ogg", context="voice")
    assert (file["media_type"], file["context"]) == ("audio/ogg", "voice")
    assert_error(anna.send(b"x", context="music"), 400, "context")


def test_sound_with_meters_is_a_voice_message(anna: User) -> None:
    file = anna.upload(b"OggS", "a.ogg", media_type="audio/ogg", metadata={"meters": "1 2 3", "duration": 1})
    assert (file["media_type"], file["context"]) == ("audio/ogg", "voice")
    file = anna.upload(b"x", "a.ogg", "multipart/form-data", metadata={"meters": []})
    assert (file["media_type"], file["context"]) == ("audio/ogg", "voice")
    assert anna.upload(b"x", "a.txt", "text/plain", metadata={"meters": []})["context"] == "file"
    assert anna.upload(b"x", "a.ogg", "audio/ogg", metadata={"width": 1})["context"] == "file"


# --- Metadata ---


def test_metadata_is_an_object_of_16_kib_at_most(anna: User) -> None:
    assert anna.upload(b"x")["metadata"] == {}
    deep = {"a": [1, 2.5, None, True, {"б": "в"}]}
    assert anna.upload(b"x", metadata=deep)["metadata"] == deep
    fits = {"text": "y" * (16 * 1024 - 12)}
    assert len(json.dumps(fits)) == 16 * 1024
    assert anna.upload(b"x", metadata=fits)["metadata"] == fits
    for wrong in (
        "[1]",
        "text",
        '"x"',
        "1",
        '{"a":',
        '{"a": "\\u0000"}',
        json.dumps({"text": "y" * 16 * 1024}),
        "[" * 9000,
    ):
        assert_error(anna.send(b"x", metadata=wrong), 400, "metadata")


def nested(depth: int) -> str:
    return '{"a":' * (depth - 1) + '{"b":1}' + "}" * (depth - 1)


def test_metadata_is_nested_64_deep_at_most(anna: User) -> None:
    kept = anna.upload(b"x", metadata=nested(64))
    assert kept["metadata"] == json.loads(nested(64))
    assert_error(anna.send(b"x", metadata=nested(65)), 400, "metadata")
    assert_error(anna.send(b"x", metadata='{"a":' + "[" * 900 + "]" * 900 + "}"), 400, "metadata")
    assert [item["id"] for item in anna.items()] == [kept["id"]]


@pytest.mark.parametrize("depth", [65, 974, 3000])
def test_lists_show_metadata_from_before_that_limit(anna: User, depth: int) -> None:
    file = anna.upload(b"x", metadata={"n": 1})
    update = "UPDATE links SET metadata = $2 WHERE id = $1"
    anna.service.within(lambda g: g.db.write(lambda c: c.run(update, file["id"], nested(depth))))
    [listed] = anna.items()
    assert (listed["id"], listed["metadata"]) == (file["id"], {})
    assert anna.http.get(file["file"]).content == b"x"


# --- Size and digest ---


def test_size_and_digest_are_checked(anna: User) -> None:
    data = os.urandom(1000)
    sha1, sha256 = hashlib.sha1(data).hexdigest(), hashlib.sha256(data).hexdigest()
    for digest in (sha1, sha256, sha256.upper(), hashlib.md5(data).hexdigest(), "something else"):
        assert anna.upload(data, size=1000, hash=digest)["size"] == 1000
    before = anna.used()
    assert_error(anna.send(data, size=999), 400, "size")
    assert_error(anna.send(data, size="many"), 400, "size")
    assert_error(anna.send(data, size=-1), 400, "size")
    assert_error(anna.send(data, hash="0" * 40), 400, "hash")
    assert_error(anna.send(data, hash="0" * 64), 400, "hash")
    assert anna.used() == before


def test_fields_may_come_before_or_after_the_file(anna: User) -> None:
    file = part("file", b"12345", "a.bin")
    fields = [
        part("media_type", b"text/plain"),
        part("metadata", b'{"n": 1}'),
        part("size", b"5"),
        part("context", b"voice"),
    ]
    for order in ([*fields, file], [file, *fields], [*fields[:2], file, *fields[2:]]):
        status, kept = send_form(anna, *order)
        assert status == 201
        assert (kept["media_type"], kept["metadata"], kept["context"]) == ("text/plain", {"n": 1}, "voice")
        status, _ = send_form(anna, *[part("size", b"6") if p == fields[2] else p for p in order])
        assert status == 400


# --- Names ---


def test_fields_may_come_in_the_query_and_the_form_wins(anna: User) -> None:
    said = "files/upload/?context=voice&media_type=audio/ogg&metadata=%7B%22a%22:1%7D"
    file = anna.upload(b"OggS", "a.ogg", path=said, media_type="audio/opus")
    assert (file["media_type"], file["context"], file["metadata"]) == ("audio/opus", "voice", {"a": 1})
    assert_error(anna.send(b"four", path="files/upload/?size=5"), 400, "size")
    assert_error(anna.send(b"four", path=f"files/upload/?size={10**12}"), 413)


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("Фото из отпуска 🏖️.jpg", "Фото из отпуска 🏖️.jpg"),
        ("../../etc/passwd", "passwd"),
        ("C:\\Users\\anna\\a.doc", "a.doc"),
        ("in\u202egpj.exe", "ingpj.exe"),
        ("tab\tand\x07bell.txt", "tabandbell.txt"),
        (".hidden", ".hidden"),
        ("", "_"), ("..", "_"), ("///", "_"), ("\u202e", "_"),
        ("я" * 200 + ".jpeg", "я" * 125 + ".jpeg"),
    ],
)  # fmt: skip
def test_names(anna: User, sent: str, kept: str) -> None:
    name = sent.replace("\\", "\\\\").replace('"', '\\"').encode()
    head = b'--%s\r\nContent-Disposition: form-data; name="file"; filename="%s"\r\n\r\n' % (BOUNDARY.encode(), name)
    status, file = send_form(anna, head + b"x\r\n")
    if "\x07" in sent:
        assert status in (201, 400)  # a control character in a header may end the form
        return
    assert (status, file.get("name")) == (201, kept)
    assert len(str(file["name"]).encode()) <= 255
    assert anna.http.get(str(file["file"])).content == b"x"


@pytest.mark.parametrize(
    ("parameters", "kept"),
    [
        (b"filename=\"x.txt\"; filename*=UTF-8''%E2%82%AC.txt", "€.txt"),
        (b'filename="he said "hi".png"', 'he said "hi".png'),
        (b'filename="caf\xe9.png"', "café.png"),
        (b'filename="%s"' % "Привет.png".encode("cp1251"), "Привет.png"),
        (b'filename="%s"' % NEW_LETTERS.encode(), NEW_LETTERS),
    ],
)  # fmt: skip
def test_names_however_they_are_written(anna: User, parameters: bytes, kept: str) -> None:
    """tests/unit/test_names.py has more of them."""
    head = b'--%s\r\nContent-Disposition: form-data; name="file"; ' % BOUNDARY.encode() + parameters
    status, file = send_form(anna, head + b"\r\nContent-Type: audio/ogg; codecs=opus+voice\r\n\r\nx\r\n")
    assert (status, file.get("name")) == (201, kept)
    assert (file["media_type"], file["context"]) == ("audio/ogg", "voice")
    assert anna.http.get(str(file["file"])).content == b"x"


# --- One copy, many links ---


def test_the_same_bytes_are_stored_once(anna: User, boris: User) -> None:
    data, before = os.urandom(2000), anna.service.stored_bytes()
    files = [anna.upload(data, "a.bin"), anna.upload(data, "b.bin"), boris.upload(data, "a.bin")]
    assert anna.service.stored_bytes() == before + 1
    assert len({file["id"] for file in files}) == len({file["slot_id"] for file in files}) == 3
    assert (anna.used(), boris.used()) == (4000, 2000)
    anna.delete("files/", id=files[0]["id"])
    for user, file in ((anna, files[1]), (boris, files[2])):
        assert user.http.get(file["file"]).content == data
    anna.delete("files/", id=files[1]["id"])
    boris.delete("files/", id=files[2]["id"])
    assert anna.service.stored_bytes() == before


# --- Refusals ---


def test_a_file_over_the_limit(anna: User) -> None:
    body = assert_error(anna.send(b"x" * (20 * MIB + 1)), 413)
    assert body["details"] == {"max_file_size": 20 * MIB}
    assert_error(anna.send(b"x", size=21 * MIB), 413)
    assert anna.upload(b"x" * (20 * MIB))["size"] == 20 * MIB


def test_a_file_over_the_quota(anna: User, admin: User) -> None:
    admin.put("account/quota/", jid=anna.jid, value=1000)
    anna.upload(b"x" * 600)
    for size in (401, 5000, 50_000):
        body = assert_error(anna.send(os.urandom(size), "a.bin", "image/png", metadata={"a": "b" * 3000}), 403)
        assert body["details"] == {"quota": 1000, "used": 600, "required": size}
        assert set(body) == {"status", "error", "details"}  # web clients take an answer with a `quota` for a success
        assert "quota" in str(body["error"]).lower()
    assert_error(anna.send(b"x" * 600), 403)  # known bytes count again
    assert anna.upload(b"y" * 400)["used"] == 1000


def test_malformed_forms(anna: User) -> None:
    before = anna.service.stored_bytes()
    assert_error(anna.http.post("files/upload/", files={"other": ("a", b"x")}), 400, "file")
    assert_error(anna.http.post("files/upload/", data={"name": "x"}), 400)
    assert_error(anna.http.post("files/upload/", json={"file": "x"}), 400)
    assert_error(anna.http.post("files/upload/"), 400)
    for body in (
        b"",
        b"--other\r\n\r\n",
        b"\0" * 1000,
        part("file", b"x", "a")[:-2],
        part("file", b"x", "a") * 2 + END,
    ):
        headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
        assert_error(anna.http.post("files/upload/", content=body, headers=headers), 400)
    too_many = b"".join(part(f"f{n}", b"x") for n in range(100))
    assert send_form(anna, too_many, part("file", b"x", "a"))[0] == 400
    assert send_form(anna, part("note", b"x" * 100_000), part("file", b"x", "a"))[0] == 400
    assert anna.service.stored_bytes() == before and anna.used() == 0
