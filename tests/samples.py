"""Makes the images, films and hostile files that tests upload. Nothing is read from a file."""

from __future__ import annotations

import io
import os
import random
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from functools import cache
from typing import Any

import av
import pillow_heif
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo

pillow_heif.register_heif_opener()
RED, GREEN, BLUE, WHITE = (220, 30, 30), (30, 200, 30), (30, 30, 220), (240, 240, 240)
FORMATS = ("jpeg", "png", "webp", "gif", "tiff", "bmp", "heic", "avif")
GPS = {1: "N", 2: (59.0, 56.0, 20.0), 3: "E", 4: (30.0, 18.0, 50.0)}
_ORIENTATION, _MAKE, _GPS = 0x0112, 0x010F, 0x8825
_UNDO = {
    1: (), 2: ("FLIP_LEFT_RIGHT",), 3: ("ROTATE_180",), 4: ("FLIP_TOP_BOTTOM",), 5: ("TRANSPOSE",), 6: ("ROTATE_90",),
    7: ("TRANSVERSE",), 8: ("ROTATE_270",),
}  # fmt: skip


def quarters(width: int, height: int) -> Image.Image:
    """Red and green above, blue and white below: shows which side is up, and where the centre is."""
    image = Image.new("RGB", (width, height))
    across, down = width // 2, height // 2
    for colour, box in (
        (RED, (0, 0, across, down)),
        (GREEN, (across, 0, width, down)),
        (BLUE, (0, down, across, height)),
        (WHITE, (across, down, width, height)),
    ):
        image.paste(colour, box)
    return image


def encoded(image: Image.Image, kind: str, **how: Any) -> bytes:
    """The image as a file of one of FORMATS."""
    out = io.BytesIO()
    name = {"heic": "HEIF"}.get(kind, kind.upper())
    lossy: dict[str, Any] = {"quality": 95} if kind in ("jpeg", "heic", "avif") else {}
    if kind == "webp":
        lossy = {"lossless": True}
    image.save(out, name, **lossy | how)
    return out.getvalue()


def picture(kind: str = "jpeg", width: int = 400, height: int = 300, **how: Any) -> bytes:
    """`quarters` as a file."""
    return encoded(quarters(width, height), kind, **how)


def oriented(orientation: int, width: int = 400, height: int = 300, kind: str = "jpeg") -> bytes:
    """`quarters`, stored so that it is upright only if a viewer applies its Exif orientation."""
    image = quarters(width, height)
    for step in _UNDO[orientation]:
        image = image.transpose(Image.Transpose[step])
    exif = Image.Exif()
    exif[_ORIENTATION] = orientation
    return encoded(
        image, kind, exif=exif.tobytes()
    )  # only from bytes a HEIC gets the `irot` and `imir` that phones write


def located(kind: str = "jpeg", width: int = 400, height: int = 300) -> bytes:
    """A photo whose metadata tell where it was taken, with which camera, and more."""
    exif = Image.Exif()
    exif[_MAKE] = "SECRETCAMERA"
    exif.get_ifd(_GPS).update(GPS)
    how: dict[str, Any] = {"comment": b"SECRETCOMMENT"} if kind == "jpeg" else {}
    if kind in ("jpeg", "webp", "heic", "avif"):
        how["xmp"] = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'>SECRETPLACE</x:xmpmeta>"
    if kind == "png":
        how["pnginfo"] = PngInfo()
        how["pnginfo"].add_text("Comment", "SECRETCOMMENT")
    return picture(kind, width, height, exif=exif, **how)


def profile() -> bytes:
    """A colour profile that swaps red and green: it shows whether pixels were converted although the profile stayed."""
    data = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return data.replace(b"rXYZ", b"swap", 1).replace(b"gXYZ", b"rXYZ", 1).replace(b"swap", b"gXYZ", 1)


def grey_profile() -> bytes:
    """A profile for grey pixels with linear light: ICC.1:2001-04, 6.3.1.2."""
    white = struct.pack(">4sI3i", b"XYZ ", 0, 0xF6D6, 0x10000, 0xD32D)
    curve = struct.pack(">4sII", b"curv", 0, 0)
    name = b"desc" + bytes(4) + struct.pack(">I", 5) + b"grey\0" + bytes(78) + bytes(1)
    tags, at, data = [], 128 + 4 + 4 * 12, b""
    for tag, value in (
        (b"desc", name),
        (b"cprt", b"text" + bytes(4) + b"none\0\0\0\0"),
        (b"wtpt", white),
        (b"kTRC", curve),
    ):
        value += bytes(-len(value) % 4)
        tags.append(tag + struct.pack(">II", at + len(data), len(value)))
        data += value
    body = struct.pack(">I", len(tags)) + b"".join(tags) + data
    head = struct.pack(
        ">I4sI4s4s4s12s4s", 128 + len(body), b"", 0x02100000, b"mntr", b"GRAY", b"XYZ ", bytes(12), b"acsp"
    )
    head += bytes(28) + struct.pack(">3i", 0xF6D6, 0x10000, 0xD32D)
    return head.ljust(128, b"\0") + body


def alpha_bmp(image: Image.Image) -> bytes:
    """A BMP of version 5 with an alpha mask, as GIMP writes it."""
    pixels = image.tobytes("raw", "BGRA", 0, -1)
    sizes = struct.pack("<IiiHHIIiiII", 124, *image.size, 1, 32, 3, len(pixels), 0, 0, 0, 0)
    header = (sizes + struct.pack("<4I4s", 0xFF0000, 0xFF00, 0xFF, 0xFF000000, b"BGRs")).ljust(124, b"\0")
    return b"BM" + struct.pack("<IHHI", 138 + len(pixels), 0, 0, 138) + header + pixels


@cache
def noise(kind: str = "jpeg", width: int = 300, height: int = 200) -> bytes:
    """An image of noise, for tests that cut or damage it: every byte matters."""
    return encoded(Image.effect_noise((width, height), 80).convert("RGB"), kind)


def damaged(data: bytes, seed: int, bytes_changed: int = 20) -> bytes:
    """The file with some bytes changed, the same ones for the same seed."""
    chance, changed = random.Random(seed), bytearray(data)
    for _ in range(bytes_changed):
        changed[chance.randrange(len(changed))] = chance.randrange(256)
    return bytes(changed)


def animated(kind: str = "gif", size: int = 100) -> bytes:
    """Three frames; the first is red."""
    frames = [Image.new("RGB", (size, size), colour) for colour in (RED, GREEN, BLUE)]
    return encoded(frames[0], kind, save_all=True, append_images=frames[1:], duration=100)


@contextmanager
def _same_priority() -> Iterator[None]:
    """SVT-AV1 gives the thread that calls it real-time priority, if that is root's, and leaves it so: all that tests
    start afterwards would keep other processes from running.
    """
    policy, priority = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        os.sched_setscheduler(0, policy, priority)


def film(container: str = "mp4", codec: str = "libx264", width: int = 320, height: int = 180, seconds: float = 2.0,
         colour: tuple[int, int, int] | None = None, *, frames: Sequence[Image.Image | av.VideoFrame] = (),
         pixels: str = "yuv420p", aspect: Fraction | None = None, options: dict[str, str] | None = None,
         muxer: dict[str, str] | None = None) -> bytes:  # fmt: skip
    """A short film of `quarters`, of one colour, or of these frames: 10 a second, or 25 if a codec does not allow 10.

    `aspect`: width of a pixel by its height. `options`, `muxer`: FFmpeg's, of the codec and of the container.
    """
    out = io.BytesIO()
    image = Image.new("RGB", (width, height), colour) if colour else quarters(width, height)
    with _same_priority(), av.open(out, "w", format=container, container_options=muxer or {}) as written:
        stream: Any = written.add_stream(codec, rate=25 if codec.startswith("mpeg") else 10)
        stream.width, stream.height, stream.pix_fmt, stream.options = width, height, pixels, options or {}
        if aspect:
            stream.codec_context.sample_aspect_ratio = aspect
        for frame in frames or [image] * int(seconds * 10):
            written.mux(stream.encode(av.VideoFrame.from_image(frame) if isinstance(frame, Image.Image) else frame))
        written.mux(stream.encode())
    return out.getvalue()


def sound(container: str = "mp4", codec: str = "aac") -> bytes:
    """A film container that holds only sound."""
    out = io.BytesIO()
    with av.open(out, "w", format=container) as written:
        stream: Any = written.add_stream(codec, rate=48000)
        silence = av.AudioFrame(format="fltp", layout="stereo", samples=1024)
        for plane in silence.planes:
            plane.update(bytes(plane.buffer_size))
        silence.sample_rate = 48000
        written.mux(stream.encode(silence))
        written.mux(stream.encode())
    return out.getvalue()


def turned_film(degrees: int, width: int = 320, height: int = 180) -> bytes:
    """An MP4 that players must turn clockwise by these degrees, as phones write it."""
    matrix = {90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}[degrees]
    return with_matrix(film("mp4", width=width, height=height), *matrix)


def with_matrix(film: bytes, a: float, b: float, c: float, d: float) -> bytes:
    """An MP4 with this display matrix (ISO 14496-12, `tkhd`): x' = ax + cy, y' = bx + dy."""
    values = [round(value * 0x10000) for value in (a, b, 0, c, d, 0, 0, 0)]
    data, at = bytearray(film), film.index(b"tkhd") + 4 + 40
    data[at : at + 36] = struct.pack(">9i", *values, 0x40000000)
    return bytes(data)


def cut_film(frame: int) -> bytes:
    """An MP4 whose edit list begins at this frame, as editors cut without encoding again. The hidden frames are red."""
    frames = [Image.new("RGB", (320, 180), RED)] * frame + [quarters(320, 180)] * 10
    data = bytearray(film(frames=frames, muxer={"movie_timescale": "1000"}))
    timescale = struct.unpack_from(">I", data, data.index(b"mdhd") + 16)[0]
    at = data.index(b"elst") + 16
    struct.pack_into(">i", data, at, struct.unpack_from(">i", data, at)[0] + timescale * frame // 10)
    return bytes(data)


PQ_QUARTERS = ((32768, 20800, 16192), (26176, 32320, 19968), (18944, 15488, 35008), (34752, 35008, 36352))
"""Signals of 16 bits (BT.2020, PQ): in sRGB (220, 30, 30), (30, 180, 30), (30, 30, 220) and (200, 210, 230)."""


def wide_pixels(width: int, height: int, colours: Sequence[tuple[int, int, int]]) -> bytes:
    """An image whose quarters have these four colours, of 16 bits per channel."""
    left, right = ([struct.pack("<3H", *colour) * (width // 2) for colour in colours[at::2]] for at in (0, 1))
    return b"".join((a + b) * (height // 2) for a, b in zip(left, right, strict=True))


def wide_heic(bits: int) -> bytes:
    """A HEIC of `PQ_QUARTERS`."""
    pixels, out = wide_pixels(64, 64, PQ_QUARTERS), io.BytesIO()
    mode, pixels = ("RGB", pixels[1::2]) if bits == 8 else ("RGB;16", pixels)
    numbers = {"color_primaries": 9, "transfer_characteristics": 16, "matrix_coefficients": 9}
    pillow_heif.from_bytes(mode, (64, 64), pixels).save(out, quality=95, bit_depth=bits, chroma=444, **numbers)
    return out.getvalue()


def wide_film(transfer: str, colours: Sequence[tuple[int, int, int]], container: str = "mp4",
              codec: str = "libx264") -> bytes:  # fmt: skip
    """A film of 10 bits in BT.2020. Its quarters have these signals, given in 16 bits."""
    frame = av.VideoFrame(64, 64, "rgb48le")
    frame.planes[0].update(wide_pixels(64, 64, colours))
    frame = frame.reformat(format="yuv420p10le", dst_colorspace="bt2020", dst_color_range="MPEG")
    how = {"color_primaries": "bt2020", "color_trc": transfer, "colorspace": "bt2020nc", "crf": "5"}
    return film(container, codec, 64, 64, frames=[frame], pixels="yuv420p10le", options=how)


# --- Hostile files -----------------------------------------------------------------------------------------------


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_bomb(width: int, height: int) -> bytes:
    """A few bytes that decode to `width` x `height` black pixels."""
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    packer, row = zlib.compressobj(9), b"\0" * (1 + (width + 7) // 8)
    rows = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", rows) + png_chunk(b"IEND", b"")


def png_lie(width: int, height: int) -> bytes:
    """A header that states a size too large for any memory, and nothing after it."""
    header = struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(b"\0"))


def polyglot() -> bytes:
    """An image that every decoder accepts, with a web page after it."""
    return picture("gif") + HTML


POLYGLOT_GIF = b"GIF89a/*" + b"\0" * 4 + b"*/=1;alert(document.domain)//<script>alert(1)</script>"
SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
HTML = b"<!doctype html><script>alert(1)</script>"
PLAYLIST = b"#EXTM3U\n#EXT-X-VERSION:3\n#EXTINF:10,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n"


def pixel(image: Image.Image, at: tuple[int, int]) -> tuple[int, ...]:
    """The values of one pixel, one for each channel."""
    seen = image.getpixel(at)
    return seen if isinstance(seen, tuple) else (round(seen or 0),)


def is_image(data: bytes) -> bool:
    try:
        Image.open(io.BytesIO(data)).verify()
    except (OSError, SyntaxError):
        return False
    return True
