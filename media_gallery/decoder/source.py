"""The file of one job: its format, which its first bytes alone tell, and how much of it may be decoded."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, BinaryIO

import pyvips

from media_gallery.media_types import FILMS, IMAGES, file_format


class Refused(Exception):
    """The file is not decoded here."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one job: processor time in seconds, memory in bytes, pixels decoded."""

    cpu_seconds: int
    memory: int
    max_pixels: int


class Source:
    """The file of one job."""

    def __init__(self, fd: int, limits: Limits) -> None:
        self.fd, self.limits = fd, limits
        self.head = os.pread(fd, 4096, 0)
        known = file_format(self.head)
        if known is None or known not in (*IMAGES, *FILMS):
            raise Refused("neither an image nor a film that is decoded here")
        self.format: str = known
        self._mended = self._known()

    @property
    def lossless(self) -> bool:
        return self.format == "webp" and b"VP8L" in self.head[12:512]

    def check(self, width: int, height: int, held: float = 0, shrink: int = 1) -> None:
        """Raise Refused if an image is too large to decode.

        `held`: bytes in memory for each pixel while it is decoded. `shrink`: the decoder makes the image so many times
        smaller in each direction.
        """
        pixels = width * height
        if width < 1 or height < 1 or pixels > self.limits.max_pixels * shrink**2:
            raise Refused(f"{width} x {height} pixels")
        if pixels * held > self.limits.memory * 0.85:  # the rest is for the libraries and their results
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
        """Add the end marker to a JPEG that lacks it; return whether it was added."""
        with self.file() as file:
            data = file.read() if self.format == "jpeg" else b""
        if not data or data.find(b"\xff\xd9", data.rfind(b"\xff\xda")) >= 0:
            return False
        self._mended = data + b"\xff\xd9"
        return True

    def _known(self) -> bytes | None:
        """The AVIF with the brand of still images first: libvips looks at the first brand alone, and knows no other."""
        if self.format != "avif" or self.head[8:12] == b"avif":
            return None
        with self.file() as file:
            return file.read(8) + b"avif" + file.read()[4:]
