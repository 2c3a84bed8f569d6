"""Hostile files and how each is answered: a table for the tests and for docs/hostile-uploads.md."""

from __future__ import annotations

import io
import random
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

from PIL import Image

from tests import samples

MAX_PIXELS = 1_000_000
"""The setting in these tests: with it a bomb of every format is made quickly."""
FORMATS = {"jpeg": "jpg", "png": "png", "webp": "webp", "gif": "gif", "tiff": "tiff", "bmp": "bmp", "heic": "heic",
           "avif": "avif"}  # fmt: skip
INLINE, DOWNLOAD = "inline", "attachment"


@dataclass(frozen=True, slots=True)
class Case:
    """A file and what the service makes of it.

    `said`: the type that the upload states; `stored`: the type it is kept and served with; `shown`: its disposition;
    `avatar`: the statuses that the same bytes may get as an avatar.
    """

    what: str
    make: Callable[[], bytes]
    name: str
    said: str | None
    stored: str
    shown: str
    thumbnail: bool = False
    avatar: tuple[int, ...] = (415,)


# --- Images that are larger than they look ---


def bomb(kind: str) -> bytes:
    """An image of one colour with more pixels than are allowed."""
    how = {"compression": "tiff_deflate"} if kind == "tiff" else {}
    return samples.encoded(Image.new("RGB", (1250, 1000)), kind, **how)


def patched(data: bytes, mark: bytes, offset: int, value: bytes) -> bytes:
    """The file with other bytes at an offset after a mark."""
    at = data.index(mark) + offset
    return data[:at] + value + data[at + len(value) :]


def lie(kind: str) -> bytes:
    """A small image whose header states a size too large for any memory."""
    small = samples.picture(kind, 64, 64)
    if kind == "jpeg":
        return patched(small, b"\xff\xc0", 5, struct.pack(">HH", 65500, 65500))
    if kind == "png":
        return samples.png_lie(2**31 - 1, 2**31 - 1)
    if kind == "gif":
        return patched(small, b"GIF8", 6, struct.pack("<HH", 65535, 65535))
    if kind == "bmp":
        return patched(small, b"BM", 18, struct.pack("<ii", 2**31 - 1, 2**31 - 1))
    if kind == "webp":
        return patched(samples.animated("webp"), b"VP8X", 12, b"\xff\xff\xff\xff\xff\xff")
    if kind == "tiff":  # the first two entries of its directory: width and height
        at = struct.unpack("<I", small[4:8])[0] + 2
        wide = struct.pack("<HHII", 256, 4, 1, 2**31 - 1) + struct.pack("<HHII", 257, 4, 1, 2**31 - 1)
        return small[:at] + wide + small[at + 24 :]
    return patched(small, b"ispe", 8, struct.pack(">II", 2**31 - 1, 2**31 - 1))


def packed(kind: bytes) -> bytes:
    """A small image with a chunk after its header that unpacks to 200 MB."""
    packer = zlib.compressobj(9)
    data = b"".join(packer.compress(bytes(1 << 20)) for _ in range(200)) + packer.flush()
    small, end = samples.picture("png", 64, 64), 8 + 25
    return small[:end] + samples.png_chunk(kind, b"a\0\0" + data) + small[end:]


def many_frames() -> bytes:
    frames = [Image.new("P", (16, 16), number % 2) for number in range(3000)]
    return samples.encoded(frames[0], "gif", save_all=True, append_images=frames[1:], duration=10, optimize=False)


def frame_beyond_the_screen() -> bytes:
    return patched(samples.picture("gif", 64, 64), b"\x2c\0\0\0\0", 5, struct.pack("<HH", 65535, 65535))


# --- Files that are two things at once ---


def archive() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as written:
        written.writestr("index.html", samples.HTML)
    return out.getvalue()


def png_with_an_archive() -> bytes:
    return samples.picture("png", 64, 64) + archive()


def jpeg_with_a_page() -> bytes:
    return samples.picture("jpeg", 64, 64, comment=samples.HTML)


def control_characters() -> bytes:
    exif = Image.Exif()
    exif[0x010E], exif[0x010F] = "\x07\x1b[31m\u202e<script>", "\r\nSet-Cookie: a=b"
    return samples.picture("jpeg", 64, 64, exif=exif)


LAUGHS = (
    b'<?xml version="1.0"?><!DOCTYPE svg [<!ENTITY a "ha">'
    + b"".join(
        b'<!ENTITY %c "%s">' % (new, b"&%c;" % old * 10) for old, new in zip(b"abcdefghi", b"bcdefghij", strict=True)
    )
    + b']><svg xmlns="http://www.w3.org/2000/svg"><text>&j;</text></svg>'
)
OUTSIDE = (
    b'<!DOCTYPE svg [<!ENTITY x SYSTEM "file:///etc/passwd">]><svg xmlns="http://www.w3.org/2000/svg" '
    b'xmlns:xlink="http://www.w3.org/1999/xlink"><image xlink:href="http://127.0.0.1/"/><text>&x;</text></svg>'
)
XHTML = b'<html xmlns="http://www.w3.org/1999/xhtml"><script>alert(1)</script></html>'
CONCAT = b"ffconcat version 1.0\nfile /etc/passwd\n"
DASH = b'<?xml version="1.0"?><MPD><BaseURL>http://127.0.0.1/</BaseURL></MPD>'
SDP = b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n"

# --- Films ---


def huge_film(container: str) -> bytes:
    """A film that claims to have 65535 x 65535 pixels."""
    if container == "mp4":
        return patched(samples.film("mp4"), b"avc1\0\0\0\0", 28, struct.pack(">HH", 65535, 65535))
    film = samples.film("webm", "libvpx")
    video = film.index(b"\xe0", film.index(b"V_VP8"))
    at = film.index(b"\xb0\x82", video)  # PixelWidth, of two bytes
    return film[: at + 2] + b"\xff\xff" + film[at + 4 :]


def many_samples() -> bytes:
    """A film that claims to have four thousand million samples."""
    return patched(samples.film("mp4"), b"stsz", 12, b"\xff\xff\xff\xff")


# --- Files that are what they should be ---


@cache
def encrypted(size: int = 50_000) -> bytes:
    """What a chat app sends for an encrypted photo (XEP-0454): it looks like noise."""
    return random.Random(size).randbytes(size)


def damaged(kind: str, seed: int) -> bytes:
    """An image or film with some changed bytes. The first bytes stay, so that it still goes to its decoder."""
    whole = samples.film() if kind == "mp4" else samples.noise(kind)
    return whole[:40] + samples.damaged(whole[40:], seed)


def _images() -> Iterator[Case]:
    for kind, ext in FORMATS.items():
        name, stored = f"photo.{ext}", f"image/{kind}"
        shown = DOWNLOAD if kind == "tiff" else INLINE
        yield Case(f"{kind}: more pixels than allowed", partial(bomb, kind), name, stored, stored, shown)
        if kind != "gif":  # for a GIF, the size of the frame counts
            yield Case(f"{kind}: a header that lies", partial(lie, kind), name, stored, stored, shown)
        yield Case(f"{kind}: cut in the middle", partial(cut, kind), name, stored, stored, shown,
                   thumbnail=kind in SHOWN_WHEN_CUT)  # fmt: skip
        yield Case(f"{kind}: its head alone", partial(cut, kind, 24), name, stored, stored, shown)


def cut(kind: str, length: int = 0) -> bytes:
    data = samples.noise(kind)
    return data[: length or len(data) // 2]


PICTURE: dict[str, Any] = {"thumbnail": True, "avatar": (201,)}
"""The answers for a good picture, and for one that only carries something else, too."""
SHOWN_WHEN_CUT = ("jpeg", "png", "gif", "tiff")
JPEG, PNG, GIF, SVG, MP4, WEBM = "image/jpeg", "image/png", "image/gif", "image/svg+xml", "video/mp4", "video/webm"
PAGE, XML, SCRIPT, PDF = "text/html", "application/xhtml+xml", "text/javascript", "application/pdf"

CASES: tuple[Case, ...] = (
    *_images(),
    Case("png: 200 MB of text, packed", lambda: packed(b"zTXt"), "a.png", PNG, PNG, INLINE, **PICTURE),
    Case("png: 200 MB of colour profile, packed", lambda: packed(b"iCCP"), "a.png", PNG, PNG, INLINE, **PICTURE),
    Case("gif: 3,000 frames", many_frames, "a.gif", GIF, GIF, INLINE, **PICTURE),
    Case("gif: a screen beyond its frame", lambda: lie("gif"), "a.gif", GIF, GIF, INLINE, **PICTURE),
    Case("gif: a frame beyond the screen", frame_beyond_the_screen, "a.gif", GIF, GIF, INLINE),
    Case("jpeg: control characters in its Exif data", control_characters, "a.jpg", JPEG, JPEG, INLINE, **PICTURE),
    Case("a gif that is a script", lambda: samples.POLYGLOT_GIF, "a.gif", GIF, GIF, INLINE),
    Case("the same, called a script", lambda: samples.POLYGLOT_GIF, "a.js", SCRIPT, SCRIPT, DOWNLOAD),
    Case("a gif with a page behind it", samples.polyglot, "a.gif", GIF, GIF, INLINE, **PICTURE),
    Case("the same, called a page", samples.polyglot, "a.html", PAGE, PAGE, DOWNLOAD, avatar=(201,)),
    Case("the same, called a page, without a type", samples.polyglot, "a.html", None, PAGE, DOWNLOAD, avatar=(201,)),
    Case("a jpeg with a page in its comment", jpeg_with_a_page, "a.jpg", JPEG, JPEG, INLINE, **PICTURE),
    Case("a png that is an archive", png_with_an_archive, "a.png", PNG, PNG, INLINE, **PICTURE),
    Case("a pdf that is an archive", lambda: b"%PDF-1.4\n" + archive(), "a.pdf", PDF, PDF, DOWNLOAD),
    Case("a page that begins like a gif", lambda: b"GIF89a" + samples.HTML, "a.gif", GIF, GIF, INLINE),
    Case("a page called a photo", lambda: samples.HTML, "a.jpg", JPEG, JPEG, INLINE),
    Case("a page called a photo, without a type", lambda: samples.HTML, "a.jpg", None, JPEG, INLINE),
    Case("a page", lambda: samples.HTML, "a.html", PAGE, PAGE, DOWNLOAD),
    Case("a page, without a type", lambda: samples.HTML, "a.html", None, PAGE, DOWNLOAD),
    Case("a page, without a name", lambda: samples.HTML, "a", None, PAGE, DOWNLOAD),
    Case("a page of XML", lambda: XHTML, "a.xhtml", XML, XML, DOWNLOAD),
    Case("svg with a script", lambda: samples.SVG, "a.svg", SVG, SVG, DOWNLOAD),
    Case("svg with a script, called a png", lambda: samples.SVG, "a.png", PNG, PNG, INLINE),
    Case("svg whose entities grow without end", lambda: LAUGHS, "a.svg", SVG, SVG, DOWNLOAD),
    Case("svg that reads a file and calls a server", lambda: OUTSIDE, "a.svg", SVG, SVG, DOWNLOAD),
    Case("a playlist called a film", lambda: samples.PLAYLIST, "a.mp4", MP4, MP4, INLINE),
    Case("a list of files called a film", lambda: CONCAT, "a.mp4", MP4, MP4, INLINE),
    Case("a manifest called a film", lambda: DASH, "a.mp4", MP4, MP4, INLINE),
    Case("a session description called a film", lambda: SDP, "a.mp4", MP4, MP4, INLINE),
    Case("mp4 of 65535 x 65535 pixels", lambda: huge_film("mp4"), "a.mp4", MP4, MP4, INLINE, thumbnail=True),
    Case("webm of 65535 pixels across", lambda: huge_film("webm"), "a.webm", WEBM, WEBM, INLINE, thumbnail=True),
    Case("mp4 of four thousand million samples", many_samples, "a.mp4", MP4, MP4, INLINE),
    Case("mp4 cut in the middle", lambda: samples.film()[:2000], "a.mp4", MP4, MP4, INLINE),
    Case("a film with nothing to see", samples.sound, "a.mp4", MP4, MP4, INLINE),
    Case("an encrypted photo", encrypted, "a.jpg", JPEG, JPEG, INLINE),
    Case("an encrypted photo, without a type", encrypted, "a.jpg", None, JPEG, INLINE),
    Case("an encrypted film", encrypted, "a.mp4", MP4, MP4, INLINE),
    Case("an encrypted voice message", encrypted, "a.ogg", "audio/ogg", "audio/ogg", INLINE),
    Case("an encrypted document", encrypted, "a.pdf", PDF, PDF, DOWNLOAD),
    Case("nothing at all", lambda: b"", "a.jpg", JPEG, JPEG, INLINE),
)  # fmt: skip
