"""What tests of the decoders share: how to run jobs, and how to check the results."""

from __future__ import annotations

import io
import os
from typing import Any

from PIL import Image

from media_gallery.thumbnails import Avatar, Picture, Thumbnailer
from tests.samples import BLUE, GREEN, RED, WHITE, pixel

LIMITS: dict[str, Any] = {"timeout": 60, "cpu_seconds": 60, "memory": 1 << 30, "max_pixels": 20_000_000}


def put(data: bytes) -> int:
    fd = os.memfd_create("sample")
    os.write(fd, data)
    return fd


async def picture(decoder: Thumbnailer, data: bytes, kind: Any = "image") -> Picture:
    fd = put(data)
    try:
        return await decoder.picture(fd, kind)
    finally:
        os.close(fd)


async def avatar(decoder: Thumbnailer, data: bytes) -> Avatar:
    fd = put(data)
    try:
        return await decoder.avatar(fd)
    finally:
        os.close(fd)


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def near(colour: tuple[int, ...], wanted: tuple[int, ...], by: int = 60) -> bool:
    return all(abs(a - b) < by for a, b in zip(colour, wanted, strict=True))


def shows(image: Image.Image, *corners: tuple[int, int, int]) -> bool:
    """Whether its quarters have these colours: first the upper two from left to right, then the lower two."""
    pixels, (w, h) = image.convert("RGB"), image.size
    places = [(x * w // 4, y * h // 4) for y in (1, 3) for x in (1, 3)]
    return all(near(pixel(pixels, at), colour) for at, colour in zip(places, corners, strict=True))


def is_upright(image: Image.Image) -> bool:
    """Whether the four quarters of `samples.quarters` are in their places."""
    return shows(image, RED, GREEN, BLUE, WHITE)


def shows_pq_quarters(image: Image.Image) -> bool:
    """Whether the four quarters of `samples.PQ_QUARTERS` have the colours that a screen shows."""
    pixels, (w, h) = image.convert("RGB"), image.size
    wanted = ((220, 30, 30), (30, 180, 30), (30, 30, 220), (200, 210, 230))
    places = [(x * w // 4, y * h // 4) for y in (1, 3) for x in (1, 3)]
    return all(near(pixel(pixels, at), colour, 8) for at, colour in zip(places, wanted, strict=True))
