"""Images: the thumbnail of one, and the square and the thumbnails of an avatar."""

from __future__ import annotations

import struct
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any

import pillow_heif
import pyvips
from PIL import Image

from media_gallery.decoder import colour
from media_gallery.decoder.encoding import encode, from_pixels
from media_gallery.decoder.source import Refused, Source
from media_gallery.media_types import FILMS

THUMBNAIL = 256
AVATAR = 1536
AVATAR_SIZES = (32, 48, 64, 96, 128, 192, 256, 384, 512, 768)
EXTENSIONS = {"jpeg": "jpg", "png": "png", "webp": "webp"}
"""Formats of avatars whose thumbnails have the same format; thumbnails of the others are WebP."""
_ENCODERS = 2
"""Threads that encode at once: one takes the square that is kept, the other its thumbnails as they are scaled."""
_HELD = {"webp": 4.5, "gif": 6.0, "bmp": 11.0, "heic": 5.0, "avif": 15.0}
"""Bytes in memory for each pixel while it is decoded, as measured; JPEG, PNG and TIFF are decoded row by row."""


class StillImage:
    """An image whose size is known: width and height as viewers show it.

    If `whole`, a file that was cut short is an error; else the part that is there is decoded.
    """

    def __init__(self, source: Source, whole: bool) -> None:
        self.source = source
        # In the loader's own options, since the option of this name of `thumbnail_source` has no effect.
        self._options = ""
        if whole:  # a JPEG that got an end marker from us gives warnings if it was cut short
            self._options = f"[fail_on={'warning' if source.end() else 'error'}]"
        self._decoded, self._numbers = _READERS.get(source.format, _nothing)(source, self._options)
        self._header = self._decoded or pyvips.Image.new_from_source(source.vips(), "", access="sequential")
        self.width, self.height = self._header.width, self._header.height
        if self._header.get_typeof("orientation") and self._header.get("orientation") in (5, 6, 7, 8):
            self.width, self.height = self.height, self.width

    def square(self, side: int) -> Any:
        """The centre square, upright, scaled to `side` pixels. Raises Refused."""
        how = {"height": side, "crop": "centre"}
        if self._header.interpretation == "cmyk":
            how["export_profile"] = "srgb"
        short = min(self.width, self.height)
        shrink = _shrink(short / side) if self.source.format == "jpeg" else 1
        self.source.check(self.width, self.height, _held(self.source.format, self._header), shrink)
        if self._decoded is None and short >= side:
            return pyvips.Image.thumbnail_source(self.source.vips(), side, option_string=self._options, **how)
        image = self._decoded or pyvips.Image.new_from_source(self.source.vips(), self._options)
        image = image.autorot()
        if short < side:  # crop before it grows: 1 x 30000 pixels would become 256 x 7680000
            image = image.crop((self.width - short) // 2, (self.height - short) // 2, short, short)
        if self._numbers:
            if short > 2 * side:
                image = image.resize(2 * side / short)
            image = colour.to_srgb(image, *self._numbers)
        return image.thumbnail_image(side, **how)


def _shrink(ratio: float) -> int:
    """The factor by which libjpeg shrinks an image while decoding it, if libvips is to shrink it by `ratio`."""
    return 8 if ratio >= 16 else 4 if ratio >= 8 else 2 if ratio >= 4 else 1


def _held(file_format: str, header: Any) -> float:
    """Bytes in memory for each pixel while it is decoded. An interlaced image is held whole, a JPEG as coefficients."""
    if file_format in _HELD:
        return _HELD[file_format]
    if not header.get_typeof("interlaced") or not header.get("interlaced"):
        return 0
    if file_format == "jpeg":
        halved = header.get_typeof("jpeg-chroma-subsample") and header.get("jpeg-chroma-subsample") == "4:2:0"
        return 3 if halved else 2 * float(header.bands)
    return float(header.bands * (2 if header.format == "ushort" else 1))


# --- What libvips does not read, or not as it is meant --------------------------------------------------------------

_Read = tuple[Any, tuple[int, int] | None]
"""The image, or None if libvips reads it well; transfer and primaries (H.273) if they must be converted."""


def _nothing(*_: Any) -> _Read:
    return None, None


def _heic(source: Source, _: str) -> _Read:
    """Decoding turns the image upright already, so the orientation in its Exif data is ignored."""
    with source.file() as file:
        heif = pillow_heif.open_heif(file, convert_hdr_to_8bit=True)  # but not if grey
        if numbers := _numbers(heif.info):
            file.seek(0)
            heif = pillow_heif.open_heif(file, convert_hdr_to_8bit=False)
        layout, _, depth = heif.mode.partition(";")
        bands = {"I": 1}.get(layout, len(layout))
        width, height = heif.size
        source.check(width, height, _HELD["heic"] * (2 if depth else 1))
        image = from_pixels(heif.data, width, height, bands, heif.stride, wide=bool(depth))
    if depth and not numbers:
        image = (image >> 8).cast("uchar").copy(interpretation="b-w" if bands < 3 else "srgb")
    if profile := None if numbers else heif.info.get("icc_profile"):
        image = image.copy()
        image.set_type(pyvips.GValue.blob_type, "icc-profile-data", profile)
    return image, numbers


def _avif(source: Source, options: str) -> _Read:
    """libvips decodes it, but does not tell its transfer and primaries."""
    with source.file() as file:
        numbers = _numbers(pillow_heif.open_heif(file).info)
    if not numbers:
        return None, None
    image = pyvips.Image.new_from_source(source.vips(), options)
    source.check(image.width, image.height, 1.5 * _HELD["avif"])
    return image, numbers


def _numbers(info: dict[str, Any]) -> tuple[int, int] | None:
    """Transfer and primaries (H.273) if the image must be converted. A colour profile is preferred to primaries."""
    nclx = info.get("nclx_profile") or {}
    transfer, primaries = nclx.get("transfer_characteristics", 2), nclx.get("color_primaries", 2)
    if transfer not in (colour.PQ, colour.HLG) and info.get("icc_profile"):
        return None
    return (transfer, primaries) if colour.needs_conversion(transfer, primaries) else None


def _bmp(source: Source, _: str) -> _Read:
    with source.file() as file, Image.open(file, formats=["BMP"]) as bitmap:
        source.check(*bitmap.size, _HELD["bmp"])
        pixels = bitmap if bitmap.mode in ("RGB", "RGBA") else bitmap.convert("RGB")
        return from_pixels(pixels.tobytes(), *pixels.size, len(pixels.mode)), None


def _gif(source: Source, options: str) -> _Read:
    """If the first frame is smaller than the canvas, libvips makes the rest black: make it transparent."""
    with source.file() as file:
        left, top, width, height = _gif_frame(file)
    image = pyvips.Image.new_from_source(source.vips(), options, access="sequential")
    if image.hasalpha() or ((left, top) == (0, 0) and width >= image.width and height >= image.height):
        return None, None
    source.check(image.width, image.height, _HELD["gif"])
    frame = (pyvips.Image.black(width, height) + 255).cast("uchar")
    return image.bandjoin(frame.embed(left, top, image.width, image.height)), None


def _gif_frame(file: Any) -> tuple[int, int, int, int]:
    """Left, top, width and height of the first frame (GIF89a, 18 to 24)."""
    flags = file.read(13)[10]
    file.seek(3 << (flags & 7) + 1 if flags & 0x80 else 0, 1)  # the global table of colours
    while file.read(1) == b"!":
        file.seek(1, 1)
        while length := file.read(1)[0]:
            file.seek(length, 1)
    left, top, width, height = struct.unpack("<4H", file.read(8))
    return left, top, width, height


_READERS = {"heic": _heic, "avif": _avif, "bmp": _bmp, "gif": _gif}


# --- Jobs --------------------------------------------------------------------------------------------------------


def picture_of_image(source: Source) -> dict[str, Any]:
    image = StillImage(source, whole=False)
    data = encode(image.square(THUMBNAIL), "webp")
    return {"width": image.width, "height": image.height, "parts": {f"{THUMBNAIL}.webp": data}}


def avatar(source: Source) -> dict[str, Any]:
    """The square that is kept, with its thumbnails, smallest first."""
    if source.format in FILMS:
        raise Refused("a film")
    image = StillImage(source, whole=True)
    side = min(image.width, image.height, AVATAR)
    square = image.square(side).copy_memory()
    ext = EXTENSIONS.get(source.format, "webp")
    wanted = {(size, ext) for size in AVATAR_SIZES if size < side} | {(THUMBNAIL, "webp")}
    with ThreadPoolExecutor(_ENCODERS) as encoders:
        kept = encoders.submit(encode, square, source.format, 90, source.lossless)
        made = thumbnails(square, wanted, encoders)
        parts = {"": kept.result()} | made
    return {"format": source.format, "width": side, "parts": parts}


def avatar_thumbnails(source: Source, sizes: list[int], ext: str) -> dict[str, Any]:
    """Thumbnails of a stored avatar."""
    square = StillImage(source, whole=True).square(min(max(sizes) * 2, AVATAR)).copy_memory()
    with ThreadPoolExecutor(_ENCODERS) as encoders:
        return {"parts": thumbnails(square, {(size, ext) for size in sizes}, encoders)}


def thumbnails(square: Any, wanted: set[tuple[int, str]], encoders: Executor) -> dict[str, bytes]:
    """File name -> bytes, for each side and extension. Each is made from the smallest image at hand of twice its side
    or more: as good as from the largest, and faster. The encoders work while further ones are scaled.
    """
    scaled, made = {square.width: square}, {}
    for size, ext in sorted(wanted, reverse=True):
        if size not in scaled:
            base = scaled[min((width for width in scaled if width >= 2 * size), default=square.width)]
            scaled[size] = base.thumbnail_image(size, height=size).copy_memory()
        made[f"{size}.{ext}"] = encoders.submit(encode, scaled[size], "jpeg" if ext == "jpg" else ext)
    return {name: encoded.result() for name, encoded in made.items()}
