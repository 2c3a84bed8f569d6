"""File names in forms, as clients write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multipart import MultipartSegment

from media_gallery.http.multipart import file_name


def name_of(parameters: bytes) -> str:
    head = (b'form-data; name="file"; ' + parameters).decode("latin-1")
    return file_name(MultipartSegment([("Content-Disposition", head)]))


@pytest.mark.parametrize(
    ("parameters", "name"),
    [
        (b'filename="photo.jpg"', "photo.jpg"),
        (b"filename=photo.jpg", "photo.jpg"),
        (b'FileName = "photo.jpg"; size=5', "photo.jpg"),
        (b"size=5", ""),
        (b'filename=""', ""),
        ('filename="Фото 🏖️.jpg"'.encode(), "Фото 🏖️.jpg"),
        # RFC 8187
        (b"filename=\"x.txt\"; filename*=UTF-8''%e2%82%ac%20rates.txt", "€ rates.txt"),
        (b"filename*=utf-8'en'%D0%AF.txt; filename=\"x.txt\"", "Я.txt"),
        (b"filename*=iso-8859-1''caf%e9.txt", "café.txt"),
        (b"filename*=UTF-8''caf%e9.txt", "café.txt"),
        (b'filename="x.txt"; filename*=nonsense', "x.txt"),
        (b"filename=\"x.txt\"; filename*=UTF-8''", "x.txt"),
        (b"filename=\"a; filename*=UTF-8''b.txt\"", "a; filename*=UTF-8''b.txt"),
        # Quotes inside a name
        (b'filename="he said "hi".png"', 'he said "hi".png'),
        (b'filename="he said \\"hi\\".png"', 'he said "hi".png'),
        (b'filename="he said %22hi%22.png"', 'he said "hi".png'),
        (b'filename=""quoted".txt"; filename*=x', '"quoted".txt'),
        (b'filename="a \\"; b=c.txt"', 'a "; b=c.txt'),
        (b'filename="a;b.txt"', "a;b.txt"),
        (b'filename="C:\\Users\\anna\\a.doc"', "a.doc"),
        # Other encodings
        (b'filename="caf\xe9.png"', "café.png"),
        ("filename=\"Привет, мир.txt\"".encode("cp1251"), "Привет, мир.txt"),
        ("filename=\"отчёт final.docx\"".encode("cp1251"), "отчёт final.docx"),
        (b'filename="\x98\xff\xfe.bin"', "\ufffdяю.bin"),
        (b"filename=M\xfcller und Sohn.png; size=5", "Müller und Sohn.png"),
        ('filename="я.txt"'.encode("cp1251"), "я.txt"),
    ],
)  # fmt: skip
def test_the_name_in_a_head(parameters: bytes, name: str) -> None:
    assert name_of(parameters) == name


@given(st.text(st.characters(exclude_characters='"\\\r\n%')))
def test_every_name_comes_through(name: str) -> None:
    name = name.encode(errors="ignore").decode()
    assert name_of(f'filename="{name}"'.encode()) == name


@given(st.binary())
def test_no_head_breaks_it(parameters: bytes) -> None:
    name_of(parameters).encode()
