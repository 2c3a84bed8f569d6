"""Films: the first picture that a player shows; if it shows nothing, the first that shows something.

The demuxer is named, never guessed. Each of media_types.FILMS reads one stream of bytes; if it asks for any other file
or address, that is refused.
"""

from __future__ import annotations

import math
import struct
import time
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from typing import Any, NoReturn

import av
import pyvips
from av.sidedata.sidedata import Type

from media_gallery.decoder import colour
from media_gallery.decoder.encoding import encode, from_pixels
from media_gallery.decoder.images import THUMBNAIL
from media_gallery.decoder.source import Refused, Source

READ = 128 << 20
"""Bytes of a film that are read in search of a picture: the film is treated as if it ended there."""
TIME = 0.4
"""The part of a job's processor time that the search may take."""
SECONDS, APART = 12.0, 0.5
"""How far into a film later pictures are looked for if the first shows nothing; how far apart they are."""
_FORMATS = {(False, False): "rgb24", (True, False): "rgba", (False, True): "rgb48le", (True, True): "rgba64le"}
"""(alpha, wide) -> the format of pixels that libvips takes."""
_WIDEST = 16
"""The highest ratio of a pixel's width and height that is believed, in either direction."""
_SKEW = 0.02
"""How far a matrix may differ from a quarter turn: about a degree, as in FFmpeg's own player."""
_DARK, _FLAT = 40, 5
"""A picture is almost black up to this brightest value, and of one colour up to this deviation of values."""
_WITH_ALPHA = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
"""Codecs whose transparency FFmpeg's own decoders ignore -> decoders that do not."""
_ORIENTATIONS = {
    (1, 0, 0, 1): 1, (-1, 0, 0, 1): 2, (-1, 0, 0, -1): 3, (1, 0, 0, -1): 4,
    (0, 1, 1, 0): 5, (0, 1, -1, 0): 6, (0, -1, -1, 0): 7, (0, -1, 1, 0): 8,
}  # fmt: skip
"""What a display matrix (ISO 14496-12, `tkhd`) does to the axes -> the Exif orientation that does the same."""


class _File:
    """The bytes of a film. They end when READ bytes have been read."""

    def __init__(self, file: Any) -> None:
        self.file, self.left = file, READ
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int) -> bytes:
        data: bytes = self.file.read(min(size, self.left))
        self.left -= len(data)
        return data


def _open_nothing(*_: Any) -> NoReturn:
    raise Refused("a film that refers to another file")


def opened(file: Any, demuxer: str, options: dict[str, str]) -> Any:
    """A film, read from this file by this demuxer. It can open nothing else: no protocol and no callback works."""
    shut = options | {"protocol_whitelist": "none"}
    return av.open(file, format=demuxer, options=shut, io_open=_open_nothing, metadata_errors="ignore")


def picture_of_film(source: Source) -> dict[str, Any]:
    """The poster. Raises Refused, and whatever FFmpeg raises over a broken file."""
    allowed = {"max_pixels": str(source.limits.max_pixels), "threads": "1"}
    with source.file() as file, opened(_File(file), source.format, allowed) as film:
        streams = (s for s in film.streams.video if not s.disposition & s.disposition.attached_pic)
        stream = next((s for s in streams if s.codec_context), None)
        if stream is None:
            raise Refused("a film without pictures")
        codec = stream.codec_context
        if codec.width and codec.height:  # unknown if the stream begins in its middle
            source.check(codec.width, codec.height)
        if stream.metadata.get("alpha_mode") == "1" and codec.name in _WITH_ALPHA:
            codec = av.CodecContext.create(_WITH_ALPHA[codec.name], "r")
        codec.thread_count = 1
        codec.options = allowed
        until = time.process_time() + TIME * source.limits.cpu_seconds
        width, height, image = _chosen(source, stream, _pictures(film, stream, codec, until))
        data = encode(image, "webp")
    return {"width": width, "height": height, "parts": {f"{THUMBNAIL}.webp": data}}


def _chosen(source: Source, stream: Any, frames: Iterator[Any]) -> tuple[int, int, Any]:
    """Width and height of the film as players show it, and its poster."""
    first = None
    for frame in frames:
        source.check(frame.width, frame.height)
        shown = _shown(frame, stream.sample_aspect_ratio)
        if _tells(shown[2]):
            return shown
        first = first or shown
    if first is None:
        raise Refused("a film without a picture at its beginning")
    return first


def _pictures(film: Any, stream: Any, codec: Any, until: float) -> Iterator[Any]:
    """The first picture shown, then key frames, until this process has used `until` seconds of processor time.

    FFmpeg marks the packets that an edit list cuts off: they are decoded and not shown. A decoder waits for pictures
    that might come before a key frame, so it is told that the film ends: then it gives the key frame at once.
    """
    eager, begun, shown = True, None, None
    with suppress(av.FFmpegError):
        for packet in film.demux(stream):
            if not packet.size or time.process_time() > until:
                break
            at = float((packet.dts or packet.pts or 0) * packet.time_base)
            begun = at if begun is None else begun
            if shown is not None:
                if at - begun > SECONDS:
                    return
                if not packet.is_keyframe or at - shown < APART:
                    continue
            frames = []
            try:
                frames = codec.decode(packet)
                if eager and packet.is_keyframe and not packet.is_discard:
                    frames += codec.decode(None)
                    codec.flush_buffers()
                    eager = bool(frames)
            except av.InvalidDataError:  # the next packet may be whole
                codec.flush_buffers()
            if frames:
                yield frames[0 if shown is None else -1]
                shown = at
    if shown is None:
        yield from codec.decode(None)[:1]


def _shown(frame: Any, aspect: Fraction | None) -> tuple[int, int, Any]:
    """Width and height of a frame as players show it, and its centre square, upright, as a thumbnail."""
    aspect = aspect if aspect and 1 / _WIDEST <= aspect <= _WIDEST else Fraction(1)
    width, height = max(1, round(frame.width * aspect)), frame.height
    scale = THUMBNAIL / min(width, height)
    across, down = (max(THUMBNAIL, round(side * scale)) for side in (width, height))
    if max(across, down) > 64 * THUMBNAIL:
        raise Refused(f"{width} x {height} pixels")
    image = _pixels(frame, across, down)
    if (orientation := _orientation(frame)) > 1:
        image = image.copy()
        image.set_type(pyvips.GValue.gint_type, "orientation", orientation)
        image = image.autorot()
        width, height = (height, width) if orientation > 4 else (width, height)
    left, top = (image.width - THUMBNAIL) // 2, (image.height - THUMBNAIL) // 2
    return width, height, image.crop(left, top, THUMBNAIL, THUMBNAIL)


def _pixels(frame: Any, width: int, height: int) -> Any:
    """The frame scaled, in the colours of screens."""
    convert = colour.needs_conversion(frame.color_trc, frame.color_primaries)
    alpha = any(component.is_alpha for component in frame.format.components)
    pixels = frame.reformat(width=width, height=height, format=_FORMATS[alpha, convert], threads=1).planes[0]
    image = from_pixels(bytes(pixels), width, height, 4 if alpha else 3, pixels.line_size, wide=convert)
    return colour.to_srgb(image, frame.color_trc, frame.color_primaries) if convert else image


def _orientation(frame: Any) -> int:
    """As in Exif; 1 if the matrix is no quarter turn, as in players that make no other turns."""
    if not (data := frame.side_data.get(Type.DISPLAYMATRIX)):
        return 1
    a, b, _, c, d = struct.unpack_from("=5i", bytes(data))
    rows = [(x / length, y / length) for x, y in ((a, b), (c, d)) if (length := math.hypot(x, y))]
    turns = [round(value) for row in rows for value in row if abs(value - round(value)) < _SKEW]
    return _ORIENTATIONS.get(tuple(turns), 1)


def _tells(image: Any) -> bool:
    """Whether the picture shows something: it is neither (almost) black nor of one colour."""
    flat = image.flatten() if image.hasalpha() else image
    deviations = [flat[band].deviate() for band in range(3)]
    return bool(flat.max() > _DARK and max(deviations) > _FLAT)
