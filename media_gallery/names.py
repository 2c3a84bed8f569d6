"""File names: how a client's is cleaned, those of thumbnails, addresses made of them, and how they are compared."""

from __future__ import annotations

import re
import unicodedata
from urllib.parse import quote

NAME_BYTES = 255
"""The longest file name, in bytes of UTF-8, that file systems and the contract allow."""
_UNSEEN = frozenset("\u061c\u200b\u200e\u200f\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff")
"""Characters that turn or break a line, and invisible ones."""


def clean_name(name: str) -> str:
    """The name as it is kept (contract, file object): no path, no control or bidi-override characters, at most 255
    bytes.

    Unicode stays; a shortened name keeps its extension; `_` if nothing is left.
    """
    name = re.split(r"[/\\]", name)[-1]
    name = "".join(c for c in name if not _is_unwanted(c)).strip()
    if name.strip(". ") == "":
        return "_"
    return shorten_name(name)


def _is_unwanted(character: str) -> bool:
    """Controls, bidi marks and overrides, surrogates, noncharacters. Characters that this Python does not know stay."""
    point = ord(character)
    if character in _UNSEEN or point & 0xFFFE == 0xFFFE or 0xFDD0 <= point <= 0xFDEF:
        return True
    return unicodedata.category(character) in ("Cc", "Cs")


def shorten_name(name: str) -> str:
    """Cut the stem so that the name takes at most 255 bytes of UTF-8; a code point is never split."""
    if len(name.encode()) <= NAME_BYTES:
        return name
    stem, ext = split_name(name)
    if len(ext.encode()) > NAME_BYTES // 2:
        stem, ext = name, ""
    return _cut(stem, NAME_BYTES - len(ext.encode())) + ext


def split_name(name: str) -> tuple[str, str]:
    """Stem and extension with its dot; a leading dot starts no extension."""
    dot = name.rfind(".")
    return (name[:dot], name[dot:]) if dot > 0 else (name, "")


def _cut(text: str, size: int) -> str:
    return text.encode()[:size].decode(errors="ignore").rstrip()


def media_url(public_url: str, slot_id: str, name: str) -> str:
    """The public URL of a file or of a thumbnail (contract, file object)."""
    return f"{public_url}/media/{slot_id}/{quote(name, safe='')}"


def thumbnail_name(name: str) -> str:
    """The last part of a file's thumbnail URL: `thumb_STEM.webp`."""
    return _marked("thumb", name, "webp")


def avatar_thumbnail_name(size: int, name: str, ext: str) -> str:
    """The last part of an avatar thumbnail's URL: `48_selfie_avatar.webp`."""
    return _marked(str(size), name, ext)


def _marked(mark: str, name: str, ext: str) -> str:
    """The stem with a mark before it. Never the file's own name, which a long name of marks alone could become."""
    stem = split_name(name)[0]
    marked = shorten_name(f"{mark}_{stem}.{ext}")
    return marked if marked != name else shorten_name(f"{mark}__{stem}.{ext}")


def folded(text: str) -> str:
    """Text for comparing without regard to case or composition (Unicode caseless matching, NFC)."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())
