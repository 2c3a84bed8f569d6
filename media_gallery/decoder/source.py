"""The file of one job: what it is, told by its first bytes alone, and how much of it may be decoded."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, BinaryIO

import pyvips

FILMS = ("mov", "matroska", "avi", "mpegts", "flv", "ogg", "asf", "mpeg")
"""Formats of films; each is the name of the only demuxer of FFmpeg's that it is given to."""
_MAGIC = (
    (b"\xff\xd8\xff", "jpeg"), (b"\x89PNG\r\n\x1a\n", "png"), (b"GIF87a", "gif"), (b"GIF89a", "gif"),
    (b"II*\0", "tiff"), (b"MM\0*", "tiff"), (b"II+\0", "tiff"), (b"MM\0+", "tiff"), (b"BM", "bmp"),
    (b"\x1aE\xdf\xa3", "matroska"), (b"FLV\x01", "flv"), (b"OggS\0", "ogg"), (b"\0\0\x01\xba", "mpeg"),
    (bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c"), "asf"),
)  # fmt: skip
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx")


class Refused(Exception):
    """The file is nothing that is decoded here."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one job: processor time in seconds, memory in bytes, pixels decoded."""

    cpu_seconds: int
    memory: int
    max_pixels: int


def sniff(head: bytes) -> str:
    """The format that the first bytes tell. Raises Refused."""
    for magic, name in _MAGIC:
        if head.startswith(magic):
            return name
    if head[:4] == b"RIFF" and head[8:12] in (b"WEBP", b"AVI "):
        return {b"WEBP": "webp", b"AVI ": "avi"}[head[8:12]]
    if head[4:8] == b"ftyp":
        length = min(int.from_bytes(head[:4], "big"), len(head))
        brands = [head[8:12], *(head[i : i + 4] for i in range(16, length - 3, 4))]
        if any(brand in (b"avif", b"avis") for brand in brands):
            return "avif"
        return "heic" if any(brand in _HEIC_BRANDS for brand in brands) else "mov"
    if head[4:8] in (b"moov", b"mdat", b"wide", b"free", b"skip"):
        return "mov"
    if any(head[start : start + 3 * length : length] == b"GGG" for start, length in ((0, 188), (4, 192), (0, 204))):
        return "mpegts"  # each of its packets begins with this byte; those of cameras have a time before it
    raise Refused("neither an image nor a film that is decoded here")


class Source:
    """The file of one job."""

    def __init__(self, fd: int, limits: Limits) -> None:
        self.fd, self.limits = fd, limits
        self.head = os.pread(fd, 4096, 0)
        self.format = sniff(self.head)
        self._mended = self._known()

    @property
    def lossless(self) -> bool:
        return self.format == "webp" and b"VP8L" in self.head[12:512]

    def check(self, width: int, height: int, held: float = 0, shrink: int = 1) -> None:
        """Whether an image may be decoded of which so many bytes a pixel are held at once. Raises Refused.

        One that is shrunk while it is decoded has so many times fewer pixels in each direction.
        """
        pixels = width * height
        if width < 1 or height < 1 or pixels > self.limits.max_pixels * shrink**2:
            raise Refused(f"{width} x {height} pixels")
        if pixels * held > self.limits.memory * 0.85:  # the rest is for the libraries and for what they make of it
            raise Refused(f"{width} x {height} pixels take {pixels * held / 1e6:.0f} MB")

    def file(self) -> BinaryIO:
        os.lseek(self.fd, 0, os.SEEK_SET)
        return os.fdopen(os.dup(self.fd), "rb")

    def vips(self) -> Any:
        """For libvips."""
        if self._mended:
            return pyvips.Source.new_from_memory(self._mended)
        os.lseek(self.fd, 0, os.SEEK_SET)
        return pyvips.Source.new_from_descriptor(self.fd)

    def end(self) -> bool:
        """Give a JPEG that lacks its end marker one; whether it did."""
        with self.file() as file:
            data = file.read() if self.format == "jpeg" else b""
        if not data or data.find(b"\xff\xd9", data.rfind(b"\xff\xda")) >= 0:
            return False
        self._mended = data + b"\xff\xd9"
        return True

    def _known(self) -> bytes | None:
        """An AVIF as libvips knows it, by its first brand alone: an animated one gets that of a still one."""
        if self.format != "avif" or self.head[8:12] == b"avif":
            return None
        with self.file() as file:
            return file.read(8) + b"avif" + file.read()[4:]
