"""Media types: what clients say, what a name and the first bytes show, what is shown inline, what the decoders read.

Imports nothing of ours, so that the decoders can share it.
"""

from __future__ import annotations

import codecs
import mimetypes
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache, lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from puremagic import PureMagic

GENERIC = "application/octet-stream"
HEAD = 4096
"""How many first bytes of a file are used to tell its type."""

# --- What is said ------------------------------------------------------------------------------------------------

_TYPE = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]{0,126}/[a-z0-9][a-z0-9!#$&^_.+-]{0,126}")
_SAYS_NOTHING = frozenset(
    [GENERIC, "binary/octet-stream", "multipart/form-data", "application/x-www-form-urlencoded", "application/unknown",
     "application/x-binary", "unknown/unknown"]
)  # fmt: skip
_OFFICE = "application/vnd.openxmlformats-officedocument"
_ALIASES = {
    alias: registered
    for registered, aliases in {
        "application/gzip": "application/x-gzip application/gunzip",
        "application/json": "text/json application/x-json",
        "application/pdf": "application/x-pdf",
        "application/vnd.rar": "application/rar application/x-rar application/x-rar-compressed",
        "application/zip": "application/x-zip application/x-zip-compressed",
        "audio/3gpp": "audio/3gp",
        "audio/aac": "audio/x-aac audio/aacp audio/x-hx-aac-adts",
        "audio/amr": "audio/x-amr",
        "audio/flac": "audio/x-flac",
        "audio/midi": "audio/mid audio/x-mid audio/x-midi",
        "audio/mp4": "audio/m4a audio/x-m4a audio/x-mp4 audio/mp4a",
        "audio/mpeg": "audio/mp3 audio/x-mp3 audio/mpeg3 audio/x-mpeg audio/x-mpeg-3 audio/mpg audio/x-mpg",
        "audio/ogg": "audio/x-ogg audio/x-opus audio/x-opus+ogg audio/x-vorbis audio/x-vorbis+ogg audio/x-speex+ogg",
        "audio/wav": "audio/wave audio/x-wav audio/x-wave audio/x-pn-wav audio/vnd.wave",
        "audio/webm": "audio/x-webm",
        "image/avif": "image/x-avif",
        "image/bmp": "image/x-bmp image/x-ms-bmp image/x-windows-bmp",
        "image/gif": "image/x-gif",
        "image/jpeg": "image/jpg image/pjpeg image/x-jpeg image/x-jpg image/jpe",
        "image/png": "image/x-png",
        "image/svg+xml": "image/svg image/svg-xml",
        "image/tiff": "image/tif image/x-tiff image/x-tif",
        "image/vnd.microsoft.icon": "image/x-icon image/ico",
        "image/webp": "image/x-webp",
        "text/csv": "text/x-csv application/csv",
        "text/javascript": "application/javascript application/x-javascript text/x-javascript",
        "text/markdown": "text/x-markdown",
        "text/vcard": "text/x-vcard text/directory",
        "video/3gpp": "video/3gp video/x-3gpp",
        "video/3gpp2": "video/3gp2 video/3g2",
        "video/mp2t": "video/mpegts video/x-mpegts video/vnd.dlna.mpeg-tts",
        "video/mp4": "video/x-mp4 video/mpeg4 video/mpeg-4",
        "video/mpeg": "video/mpg video/x-mpeg video/x-mpg video/mpeg2 video/mp2p",
        "video/ogg": "video/x-ogg video/x-theora+ogg",
        "video/quicktime": "video/mov video/x-quicktime",
        "video/webm": "video/x-webm",
        "video/x-flv": "video/flv",
        "audio/x-matroska": "audio/matroska",
        "video/x-matroska": "video/matroska video/mkv application/x-matroska",
        "video/x-msvideo": "video/avi video/msvideo video/vnd.avi",
    }.items()
    for alias in aliases.split()
}
"""Other names of a type -> the registered one, or the one that browsers know (for Matroska not that of RFC 9559)."""


@lru_cache(maxsize=256)
def parse(text: str) -> tuple[str | None, bool]:
    """The registered type without parameters, and whether `+voice`, before or after parameters, marks a voice message.

    The type is None if the text says nothing: if it is no media type, or one that clients send when they know none
    (contract, `files/upload/`). Quotes are dropped.
    """
    parts = [part.strip(" \t\"'").lower() for part in text.split(";")]
    voice = any(part.endswith("+voice") for part in parts)
    said = registered(parts[0].removesuffix("+voice"))
    return (said if _TYPE.fullmatch(said) and said not in _SAYS_NOTHING else None), voice


def registered(media_type: str) -> str:
    """The registered name of a type that has several names."""
    return _ALIASES.get(media_type, media_type)


def decide(said: Iterable[str | None], name: str, head: bytes) -> str:
    """The type of a file: the first in `said` that says something; else what name and first bytes show."""
    for media_type in (parse(text)[0] for text in said if text):
        if media_type and _fits(media_type, head):
            return media_type
    return _shown(name, head) or GENERIC


def _fits(media_type: str, head: bytes) -> bool:
    """Whether the bytes allow the type. Only `text/plain` is checked: many clients send it for unknown types."""
    return media_type != "text/plain" or is_text(head)


def _shown(name: str, head: bytes) -> str | None:
    """The type that name and content show together.

    The name decides among the types of one top level (`image/…`, `video/…`), since first bytes tell little of them: a
    sound may begin like a film, a DOCX like any ZIP. If name and content disagree about the top level, the content
    decides.
    """
    named, shown = named_type(name), sniff(head)
    tops = {media_type.partition("/")[0] for media_type in shown}
    if named and _fits(named, head) and (not shown or tops == {"application"} or named.partition("/")[0] in tops):
        return named
    return shown[0] if shown else None


# --- What a name says --------------------------------------------------------------------------------------------

_NAMED = mimetypes.MimeTypes()  # Python's own table, not the machine's: a file has one type on every host
for _media_type, _extensions in {
    "application/epub+zip": ".epub",
    "application/vnd.android.package-archive": ".apk",
    "application/vnd.oasis.opendocument.presentation": ".odp",
    "application/vnd.oasis.opendocument.spreadsheet": ".ods",
    "application/vnd.oasis.opendocument.text": ".odt",
    f"{_OFFICE}.presentationml.presentation": ".pptx",
    f"{_OFFICE}.spreadsheetml.sheet": ".xlsx",
    f"{_OFFICE}.wordprocessingml.document": ".docx",
    "application/vnd.rar": ".rar",
    "application/x-7z-compressed": ".7z",
    "audio/3gpp": ".3ga",
    "audio/aac": ".aac",
    "audio/amr": ".amr",
    "audio/flac": ".flac",
    "audio/mp4": ".m4a",
    "audio/ogg": ".oga .ogg .opus .spx",
    "audio/webm": ".weba",
    "audio/x-caf": ".caf",
    "audio/x-matroska": ".mka",
    "image/heic": ".hif",
    "image/jpeg": ".jfif .pjp .pjpeg",
    "image/jxl": ".jxl",
    "text/calendar": ".ics",
    "text/markdown": ".md",
    "video/3gpp": ".3gp .3gpp",
    "video/3gpp2": ".3g2",
    "video/mp2t": ".m2ts .mts .ts",
    "video/ogg": ".ogv",
    "video/x-flv": ".flv",
    "video/x-m4v": ".m4v",
    "video/x-matroska": ".mkv",
    "video/x-ms-asf": ".asf",
    "video/x-ms-wmv": ".wmv",
}.items():
    for _extension in _extensions.split():
        _NAMED.add_type(_media_type, _extension)


def named_type(name: str) -> str | None:
    """The media type that a file name's extension tells."""
    dot = name.rfind(".")
    if dot <= 0:  # a leading dot starts no extension
        return None
    media_type, packed = _NAMED.guess_type(f"_{name[dot:].lower()}", strict=False)
    return "application/gzip" if packed == "gzip" else registered(media_type) if media_type else None


# --- What the first bytes show -----------------------------------------------------------------------------------

_BINARY = bytes(set(range(32)) - {9, 10, 12, 13, 27})
_NOT_BINARY = bytes(set(range(256)) - set(_BINARY))
_MARKS = (codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def is_text(head: bytes) -> bool:
    """Whether a file that begins with these bytes may be text: it has a mark of UTF-8 or UTF-16, or no byte that text
    never has (WHATWG MIME Sniffing, section 7.2).
    """
    return head.startswith(_MARKS) or not head.translate(None, _NOT_BINARY)


_MAGIC = (
    (b"\xff\xd8\xff", "jpeg"), (b"\x89PNG\r\n\x1a\n", "png"), (b"GIF87a", "gif"), (b"GIF89a", "gif"),
    (b"II*\0", "tiff"), (b"MM\0*", "tiff"), (b"II+\0", "tiff"), (b"MM\0+", "tiff"), (b"BM", "bmp"),
    (b"\x1aE\xdf\xa3", "matroska"), (b"OggS\0", "ogg"), (b"FLV\1", "flv"), (b"\0\0\1\xba", "mpeg"),
    (bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c"), "asf"), (b"fLaC\0", "flac"), (b"#!AMR\n", "amr"),
    (b"#!AMR-WB\n", "amr-wb"), (b"caff\0\1", "caf"), (b"PK\3\4", "zip"), (b"ID3\2", "mp3"), (b"ID3\3", "mp3"),
    (b"ID3\4", "mp3"),
)  # fmt: skip
_RIFF = {b"WEBP": "webp", b"WAVE": "wav", b"AVI ": "avi"}
_HEIC_BRANDS = frozenset([b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx"])
_AVIF_BRANDS = frozenset([b"avif", b"avis"])
IMAGES = ("jpeg", "png", "webp", "gif", "tiff", "heic", "avif", "bmp")
FILMS = ("mov", "matroska", "avi", "mpegts", "flv", "ogg", "asf", "mpeg")
"""The formats that the decoders read. A format of films is the name of the one FFmpeg demuxer that may read it."""


def file_format(head: bytes) -> str | None:
    """The format that the first bytes tell, of those that clients send most; for films, the demuxer's name."""
    for magic, name in _MAGIC:
        if head.startswith(magic):
            return name
    if head[:4] == b"RIFF":
        return _RIFF.get(head[8:12])
    if head[4:8] == b"ftyp":
        brands = _brands(head)
        if brands & _AVIF_BRANDS:
            return "avif"
        return "heic" if brands & _HEIC_BRANDS else "mov"
    if head[4:8] in (b"moov", b"mdat", b"wide", b"free", b"skip"):
        return "mov"
    if any(head[start : start + 3 * length : length] == b"GGG" for start, length in ((0, 188), (4, 192), (0, 204))):
        return "mpegts"  # each packet begins with this byte; cameras put a time before it
    return None


def _brands(head: bytes) -> set[bytes]:
    """The brands that an ISO media file names in its first box (ISO/IEC 14496-12, 4.3)."""
    length = min(int.from_bytes(head[:4], "big"), len(head))
    return {head[8:12], *(head[i : i + 4] for i in range(16, length - 3, 4))}


_SHOWN = {
    **{name: (f"image/{name}",) for name in IMAGES},
    "amr": ("audio/amr",),
    "amr-wb": ("audio/amr-wb",),
    "asf": ("video/x-ms-asf", "video/x-ms-wmv", "audio/x-ms-wma"),
    "avi": ("video/x-msvideo",),
    "caf": ("audio/x-caf",),
    "flac": ("audio/flac",),
    "flv": ("video/x-flv",),
    "mp3": ("audio/mpeg",),
    "mpeg": ("video/mpeg",),
    "mpegts": ("video/mp2t",),
    "wav": ("audio/wav",),
    "zip": ("application/zip",),
}
_BRANDS = {b"qt  ": "video/quicktime", b"M4V ": "video/x-m4v", b"M4A ": "audio/mp4", b"M4B ": "audio/mp4"}
_SURE, _ENOUGH = 3, 8
"""Bytes of a signature: fewer are not believed, and more do not make a media type likelier."""


def sniff(head: bytes) -> Sequence[str]:
    """The media types that the first bytes allow, the likeliest first."""
    text = is_text(head)
    known = None if text else file_format(head)
    if known == "mov":
        return _sniff_mov(head)
    if known == "matroska":
        return ("video/webm", "audio/webm") if b"webm" in head[:64] else ("video/x-matroska", "audio/x-matroska")
    if known == "ogg":
        return ("video/ogg", "audio/ogg") if b"theora" in head[:128] else ("audio/ogg", "video/ogg", "application/ogg")
    if known == "bmp" and any(head[6:10]):  # two bytes tell little, so four that must be zero count, too
        known = None
    return _SHOWN[known] if known else _sniff_rest(head, text)


def _sniff_mov(head: bytes) -> Sequence[str]:
    brand = head[8:12] if head[4:8] == b"ftyp" else b"qt  "
    if brand[:3] in (b"3gp", b"3gr", b"3gs", b"3ge", b"3gg"):
        return ("video/3gpp", "audio/3gpp")
    if brand[:3] == b"3g2":
        return ("video/3gpp2", "audio/3gpp2")
    return (_BRANDS.get(brand, "video/mp4"), "video/mp4", "audio/mp4")


def _sniff_rest(head: bytes, text: bool) -> Sequence[str]:
    shown = [(length, said) for length, said in _signed(head) if length >= _SURE]
    shown.sort(key=lambda one: (-min(one[0], _ENOUGH), not one[1].startswith("image/"), -one[0]))
    found = [media_type for media_type, _ in (parse(said) for _, said in shown) if media_type]
    if text:  # it may begin like an image by chance; but SVG is text and an image
        found = [media_type for media_type in found if media_type.startswith(("text/", "application/", "image/svg"))]
    return found


def _signed(head: bytes) -> Iterator[tuple[int, str]]:
    """The media types whose signatures the first bytes have, with the lengths of the signatures in bytes."""
    signatures, further = _signatures()
    for offset, by_first in signatures.items():
        if offset < len(head):
            for one in by_first.get(head[offset], ()):
                if head.startswith(one.byte_match, offset):
                    if one.mime_type:
                        yield len(one.byte_match), one.mime_type
                    for other in further.get(one.byte_match, ()):
                        if head.startswith(other.byte_match, other.offset):
                            yield other.offset + len(other.byte_match) - offset, other.mime_type


@cache
def _signatures() -> tuple[Mapping[int, Mapping[int, Sequence[PureMagic]]], Mapping[bytes, Sequence[PureMagic]]]:
    """puremagic's signatures by their offset and first byte, since it would compare each of its 1,400 with each file;
    and those that may follow another one. Those of a file's end are left out: they would be looked for in its head.
    """
    import puremagic  # only now, since the decoders share this module and never need it

    found: dict[int, dict[int, list[PureMagic]]] = defaultdict(lambda: defaultdict(list))
    for one in puremagic.magic_header_array:
        found[one.offset][one.byte_match[0]].append(one)
    parts = puremagic.multi_part_dict.items()
    return found, {first: [one for one in more if one.offset >= 0 and one.mime_type] for first, more in parts}


# --- What may be shown -------------------------------------------------------------------------------------------

THUMBNAIL_TYPES = {"webp": "image/webp", "png": "image/png", "jpg": "image/jpeg"}
"""Extension of a thumbnail's name -> its media type."""
_SAFE_INLINE = frozenset(
    ["image/png", "image/jpeg", "image/gif", "image/webp", "image/avif", "image/heic", "image/heif", "image/bmp",
     "audio/aac", "audio/flac", "audio/mp4", "audio/mpeg", "audio/ogg", "audio/opus", "audio/wav", "audio/webm",
     "video/3gpp", "video/mp4", "video/mpeg", "video/ogg", "video/quicktime", "video/webm", "video/x-m4v",
     "video/x-matroska"]
)  # fmt: skip


def is_safe_inline(media_type: str) -> bool:
    """Whether a browser can show the type without running anything in it; all others are downloads."""
    return parse(media_type)[0] in _SAFE_INLINE
