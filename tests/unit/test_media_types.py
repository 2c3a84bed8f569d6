"""The media type of a file: as the client states it, and by its name and its first bytes."""

from __future__ import annotations

import os

import puremagic
import pytest

from media_gallery.media_types import HEAD, decide, file_format, is_safe_inline, is_text, named_type, parse, sniff
from tests import samples


@pytest.mark.parametrize(
    ("text", "media_type"),
    [
        ("Image/PNG; q=1", "image/png"),
        ("image/svg+xml", "image/svg+xml"),
        ('"image/png"', "image/png"),
        ('"audio/ogg"; codecs="opus"', "audio/ogg"),
        ("'image/jpg'", "image/jpeg"),
        ("image/jpg", "image/jpeg"),
        ("video/matroska", "video/x-matroska"),
        ("image/pjpeg", "image/jpeg"),
        ("image/x-png", "image/png"),
        ("image/x-ms-bmp", "image/bmp"),
        ("audio/mp3", "audio/mpeg"),
        ("audio/x-flac", "audio/flac"),
        ("audio/wave", "audio/wav"),
        ("audio/x-m4a; charset=binary", "audio/mp4"),
        ("application/x-zip-compressed", "application/zip"),
        ("application/x-unheard-of", "application/x-unheard-of"),
    ],
)
def test_types_become_the_registered_ones(text: str, media_type: str) -> None:
    assert parse(text) == (media_type, False)


@pytest.mark.parametrize(
    "text",
    ["", "image", "image/", "a/b/c", "text/html\r\nX: y", "ünï/code", "*/*", "image/*", "multipart/form-data",
     "multipart/form-data; boundary=x", "application/octet-stream", "binary/octet-stream", '""', ";", "null",
     "application/x-www-form-urlencoded"],
)  # fmt: skip
def test_types_without_meaning(text: str) -> None:
    assert parse(text) == (None, False)


@pytest.mark.parametrize(
    "text",
    ["audio/ogg+voice", "audio/ogg+voice; codecs=opus", "audio/ogg; codecs=opus+voice", '"audio/ogg+voice"',
     'audio/ogg; codecs="opus+voice"', "audio/ogg; codecs=opus+VOICE ", "audio/x-opus+ogg+voice"],
)  # fmt: skip
def test_a_voice_suffix_before_or_behind_parameters(text: str) -> None:
    assert parse(text) == ("audio/ogg", True)


def test_a_voice_suffix_of_a_type_without_meaning() -> None:
    assert parse("application/octet-stream+voice") == (None, True)


@pytest.mark.parametrize(
    ("head", "text"),
    [(b"", True), (b"plain\ttext\r\n\x1b[0m\f", True), ("Привет".encode(), True), ("Привет".encode("cp1251"), True),
     ("Привет".encode("utf-16"), True), (b"nul\0", False), (samples.picture("png"), False),
     (b"~" + os.urandom(HEAD - 1), False)],
)  # fmt: skip
def test_text(head: bytes, text: bool) -> None:
    assert is_text(head) == text


FORMATS = {f"image/{kind}": samples.picture(kind, 40, 40) for kind in samples.FORMATS} | {
    "video/mp4": samples.film("mp4"),
    "video/quicktime": samples.film("mov"),
    "video/3gpp": samples.film("3gp", width=176, height=144),
    "video/webm": samples.film("webm", "libvpx"),
    "video/x-matroska": samples.film("matroska"),
    "video/x-msvideo": samples.film("avi", "mpeg4"),
    "video/mp2t": samples.film("mpegts"),
    "video/x-flv": samples.film("flv", "flv1"),
    "video/x-ms-asf": samples.film("asf", "msmpeg4v3"),
    "video/mpeg": b"\0\0\1\xba\x44\0\4",
    "audio/ogg": b"OggS\0\2" + bytes(22) + b"\1\x13OpusHead",
    "video/ogg": b"OggS\0\2" + bytes(22) + b"\1\x2a\x80theora",
    "audio/flac": b"fLaC\0\0\0\x22",
    "audio/mpeg": b"ID3\3\0\0\0",
    "audio/wav": b"RIFF\x24\0\0\0WAVEfmt ",
    "audio/mp4": b"\0\0\0\x20ftypM4A \0\0\0\0",
    "audio/amr": b"#!AMR\n\x04\0",
    "application/zip": b"PK\3\4\x14\0\6\0",
    "application/pdf": b"%PDF-1.7\n",
    "text/html": samples.HTML,
    "image/svg+xml": samples.SVG,
}


@pytest.mark.parametrize("media_type", FORMATS)
def test_first_bytes(media_type: str) -> None:
    """Also if the client calls it text, as some clients call every picture of a type that they do not know."""
    data = FORMATS[media_type][:HEAD]
    assert sniff(data)[0] == media_type
    assert decide([None, "application/octet-stream"], "nothing", data) == media_type
    if not is_text(data):
        assert decide(["text/plain"], "nothing", data) == media_type


def known_to_puremagic(head: bytes) -> set[str]:
    """The types that puremagic's own search finds, which compares all signatures with each file."""
    try:
        found = [one.mime_type for one in puremagic.magic_string(head) if one.mime_type and one.confidence >= 0.3]
    except puremagic.PureError:
        return set()
    return {media_type for media_type, _ in map(parse, found) if media_type}


def test_all_signatures_are_known() -> None:
    """Except those of a file's end. The bytes around each are none that text has."""
    last, heads = HEAD - 300, set[bytes]()
    for one in puremagic.magic_header_array:
        first = b"\1" * one.offset + one.byte_match
        heads.add(first)
        for more in puremagic.multi_part_dict.get(one.byte_match, ()):
            heads.add(first.ljust(more.offset, b"\1")[: max(0, more.offset)] + more.byte_match)
    heads = {head.ljust(HEAD, b"\1") for head in heads if len(head) < last}
    assert len(heads) > 1000
    for head in heads:
        if file_format(head) is None:
            assert set(sniff(head)) == known_to_puremagic(head), head[:100]


@pytest.mark.parametrize("head", [b"BMW and other cars", b"GIF87a and GIF89a are formats", b"", b"Feelfree\n", b"\xff"])
def test_texts_that_begin_like_a_picture(head: bytes) -> None:
    assert decide([None], "nothing", head) == "application/octet-stream"
    assert decide(["text/plain"], "nothing", head) == decide([None], "a.txt", head) == "text/plain"


@pytest.mark.parametrize(
    ("name", "data", "media_type"),
    [
        ("a.3gp", FORMATS["video/3gpp"], "video/3gpp"),
        ("a.3gp", FORMATS["video/mp4"], "video/3gpp"),
        ("voice.m4a", FORMATS["video/mp4"], "audio/mp4"),  # a sound may begin with the same bytes as a film
        ("a.oga", FORMATS["video/ogg"], "audio/ogg"),
        (
            "a.docx",
            FORMATS["application/zip"],
            "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
        ),
        ("a.txt", FORMATS["image/png"], "image/png"),
        ("a.jpg", samples.HTML, "text/html"),
        ("secret.txt", b"~" + os.urandom(HEAD), "application/octet-stream"),
        ("secret.jpg", b"\1" + os.urandom(HEAD), "image/jpeg"),
        ("a.wav", b"", "audio/wav"),
        ("a.JPG", b"", "image/jpeg"),
        (".jpg", b"", "application/octet-stream"),
        ("a.tar.gz", b"", "application/gzip"),
    ],
)
def test_name_and_first_bytes_together(name: str, data: bytes, media_type: str) -> None:
    assert decide([None, "multipart/form-data"], name, data[:HEAD]) == media_type


def test_names() -> None:
    assert named_type("a.3gp") == "video/3gpp"
    assert named_type("a.vcf") == "text/vcard"
    assert named_type("a") is named_type(".png") is named_type("a.unheard") is None


def test_types_shown_inline() -> None:
    assert is_safe_inline("image/png") and is_safe_inline("audio/x-m4a")
    for media_type in ("image/svg+xml", "text/html", "application/pdf", "application/octet-stream", ""):
        assert not is_safe_inline(media_type)
