"""Prosody's `mod_http_file_share`, as Prosody's internal storage keeps it (checked with 0.12):

    DATA/HOST/uploads.list                  an `item(…);` in Lua for each slot that was given out
    DATA/HOST/http_file_share/SLOT.bin      the bytes; while they come, SLOT.bin~

In HOST and SLOT every byte but letters and digits is written as `%xx`. A file's address was BASE/SLOT/NAME.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import unquote

import msgspec

from media_gallery.errors import BadRequest
from media_gallery.importing import OldFile

ADDRESS = "/file_share"
"""The path of the module's addresses, unless `http_paths` or a proxy gives it another."""
INDEX, FILES = "uploads.list", "http_file_share"


def hosts(data: Path) -> list[str]:
    """The hosts in a data directory that share files. Raises OSError."""
    return sorted(unquote(place.name) for place in data.iterdir() if (place / INDEX).is_file())


def files(data: Path, wanted: Sequence[str]) -> Iterator[OldFile]:
    """The files of these hosts. Raises OSError; BadRequest if an index cannot be read."""
    for host in wanted:
        place = data / _encoded(host)
        for item in items((place / INDEX).read_bytes()):
            try:
                yield _old(msgspec.convert(item, _Item, strict=False), place / FILES)
            except msgspec.ValidationError as error:
                raise BadRequest(f"The index of {host} has an item that is no upload") from error


class _Upload(msgspec.Struct, rename={"media_type": "content-type"}):
    filename: str
    size: Annotated[int, msgspec.Meta(ge=0)]
    media_type: str | None = None


class _Item(msgspec.Struct, rename={"owner": "with"}):
    key: str
    when: float
    attr: _Upload
    owner: str | None = None


def _old(item: _Item, place: Path) -> OldFile:
    said = item.attr
    return OldFile(
        place=place / f"{_encoded(item.key)}.bin",
        address=f"{item.key}/{said.filename}",
        owner=item.owner,
        name=said.filename,
        created_at=int(item.when * 1_000_000),
        size=said.size,
        media_type=said.media_type,
    )


def _encoded(name: str) -> str:
    return "".join(chr(byte) if chr(byte).isalnum() and byte < 128 else f"%{byte:02x}" for byte in name.encode())


# --- Lua, as far as Prosody writes it ----------------------------------------------------------------------------

_TOKEN = re.compile(
    rb'\s*(?:"(?P<text>(?:[^"\\]|\\.)*)"|(?P<number>-?\d[\d.eE+-]*)|(?P<word>[a-z]+)|(?P<mark>[][{}()=;,]))', re.DOTALL
)
_SPACE = re.compile(rb"\s*")
_ESCAPE = re.compile(rb"\\(\d{1,3}|.)", re.DOTALL)
_ESCAPED = {b"a": b"\a", b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"v": b"\v"}
_WORDS = {b"true": True, b"false": False, b"nil": None}


def items(index: bytes) -> Iterator[dict[str, Any]]:
    """The items of a list that Prosody stores. Raises BadRequest if it is not written as Prosody writes it."""
    reader = _Reader(index)
    while not reader.at_end():
        for expected in (b"item", b"("):
            reader.take(expected)
        item = reader.item()
        for expected in (b")", b";"):
            reader.take(expected)
        yield item


class _Reader:
    """Reads values one after the other. It evaluates nothing."""

    def __init__(self, text: bytes) -> None:
        self._text, self._place = text, 0

    def at_end(self) -> bool:
        space = _SPACE.match(self._text, self._place)
        return space is not None and space.end() == len(self._text)

    def _next(self) -> re.Match[bytes]:
        found = _TOKEN.match(self._text, self._place)
        if found is None:
            raise BadRequest(f"The index is not as Prosody writes it, at byte {self._place}")
        self._place = found.end()
        return found

    def take(self, expected: bytes) -> None:
        found = self._next()
        if found[found.lastgroup or 0] != expected:
            raise BadRequest(f"The index is not as Prosody writes it, at byte {found.start()}")

    def _has(self, mark: bytes) -> bool:
        """Take this mark if it is the next."""
        found = _TOKEN.match(self._text, self._place)
        if found is None or found["mark"] != mark:
            return False
        self._place = found.end()
        return True

    def item(self) -> Any:
        try:
            return self.value()
        except (ValueError, TypeError, RecursionError) as error:  # such as the number 1.2.3, or a table as a key
            raise BadRequest(f"The index is not as Prosody writes it, at byte {self._place}") from error

    def value(self) -> Any:
        found = self._next()
        if found["text"] is not None:
            return _ESCAPE.sub(_unescaped, found["text"]).decode(errors="replace")
        if found["number"] is not None:
            return _number(float(found["number"]))
        if found["mark"] == b"{":
            return self._table()
        if found["word"] in _WORDS:
            return _WORDS[found["word"]]
        raise BadRequest(f"The index is not as Prosody writes it, at byte {found.start()}")

    def _table(self) -> dict[Any, Any]:
        """A table; values without a key have the next number."""
        table = dict[Any, Any]()
        while not self._has(b"}"):
            if self._has(b"["):
                key = self.value()
                self.take(b"]")
                self.take(b"=")
            else:
                key = len(table) + 1
            table[key] = self.value()
            _ = self._has(b";") or self._has(b",")
        return table


def _number(number: float) -> float:
    """A number as Lua means it, which has `7.0` for 7. Raises ValueError for one that is too large."""
    if not math.isfinite(number):
        raise ValueError
    return int(number) if number.is_integer() else number


def _unescaped(found: re.Match[bytes]) -> bytes:
    code = found[1]
    return bytes([int(code)]) if code.isdigit() else _ESCAPED.get(code, code)
