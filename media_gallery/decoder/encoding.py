"""Images as bytes. Beside the pixels only the colour profile is kept."""

from __future__ import annotations

import io
import struct
from typing import Any

import pillow_heif
import pyvips
from PIL import Image

_PROFILE = "icc-profile-data"
_GREY_PROFILES = ("jpeg", "png", "tiff")
"""Formats that can keep grey pixels with a profile for grey; the others have colours only."""
_BMP_4 = struct.Struct("<IiiHHIIiiII4I4s48x")
"""BITMAPV4HEADER: size, width, height, planes, bits, compression, bytes, resolutions, colours, masks, colour space."""


def encode(image: Any, ext: str, quality: int = 82, lossless: bool = False) -> bytes:
    """The image as a file of this format."""
    if image.bands < 3 and image.get_typeof(_PROFILE) and ext not in _GREY_PROFILES:
        image = image.icc_transform("srgb")
    if ext == "heic":
        return _encode_heic(image, quality)
    if ext == "bmp":
        return _encode_bmp(image)
    how: dict[str, dict[str, Any]] = {
        "jpeg": {"Q": quality, "optimize_coding": True},
        "png": {"compression": 6},
        "webp": {"lossless": True} if lossless else {"Q": quality, "effort": 2},
        "avif": {"Q": quality, "effort": 2, "compression": "av1"},
        "tiff": {"compression": "deflate"},
        "gif": {"effort": 5},
    }
    data: bytes = image.write_to_buffer(f".{ext}", keep="icc", **how[ext])
    return data


def from_pixels(data: Any, width: int, height: int, bands: int, stride: int = 0, wide: bool = False) -> Any:
    """An image of pixels (of 16 bits if `wide`) in rows of `stride` bytes. It keeps the data and copies nothing."""
    size = bands * (2 if wide else 1)
    row = stride // size if stride % size == 0 else 0
    if stride and not row:  # a row is no whole number of pixels: cut it to one
        data = b"".join(memoryview(data)[y * stride : y * stride + width * size] for y in range(height))
    image = pyvips.Image.new_from_memory(data, row or width, height, bands, "ushort" if wide else "uchar")
    colours = ("grey16" if wide else "b-w") if bands < 3 else ("rgb16" if wide else "srgb")
    return image.copy(interpretation=colours).crop(0, 0, width, height)


def _rgb(image: Any) -> Any:
    return image.colourspace("srgb").cast("uchar")


def _encode_heic(image: Any, quality: int) -> bytes:
    image = _rgb(image)
    mode = "RGBA" if image.bands == 4 else "RGB"
    profile = image.get(_PROFILE) if image.get_typeof(_PROFILE) else None
    heif = pillow_heif.from_bytes(mode, (image.width, image.height), bytes(image.write_to_memory()))
    out = io.BytesIO()
    heif.save(out, quality=quality, icc_profile=profile, exif=None)
    return out.getvalue()


def _encode_bmp(image: Any) -> bytes:
    """With alpha it is a BMP of version 4, the first that has alpha: Pillow reads that version, but cannot write it."""
    image = _rgb(image)
    pixels = Image.frombytes(
        "RGBA" if image.bands == 4 else "RGB", (image.width, image.height), image.write_to_memory()
    )
    if image.bands < 4:
        out = io.BytesIO()
        pixels.save(out, "BMP")
        return out.getvalue()
    data = pixels.tobytes("raw", "BGRA", 0, -1)
    masks = (0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    header = _BMP_4.pack(_BMP_4.size, image.width, image.height, 1, 32, 3, len(data), 2835, 2835, 0, 0, *masks, b"BGRs")
    start = 14 + len(header)
    return b"BM" + struct.pack("<IHHI", start + len(data), 0, 0, start) + header + data
