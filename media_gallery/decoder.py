"""The child side of thumbnails: decodes hostile images and films under limits, in a process that owns nothing.

Started by file path with a socket and its limits; of ours it imports its confinement alone. Each job comes as one JSON
line with the file's descriptor beside it (SCM_RIGHTS); the answer is one JSON line, then the bytes that it announces:

    {"job": "picture", "kind": "image"}     -> {"width": w, "height": h, "parts": [["256.webp", length]]}
    {"job": "avatar"}                       -> {"format": "png", "width": side, "parts": [["", length], …]}
    {"job": "more", "sizes": [48], "ext": "png"}
    anything that cannot be decoded         -> {"error": "why"}

What is decoded is told by the first bytes alone, never by a name, and only by loaders that are named here.
"""

from __future__ import annotations

import importlib
import io
import json
import os
import pkgutil
import resource
import socket
import sys
from contextlib import suppress
from typing import Any, BinaryIO

import av
import pillow_heif
import pyvips
from PIL import Image

from media_gallery.confinement import confine

THUMBNAIL = 256
AVATAR = 1536
AVATAR_SIZES = (32, 48, 64, 96, 128, 192, 256, 384, 512, 768)
EXTENSIONS = {"jpeg": "jpg", "png": "png", "webp": "webp"}
"""Formats whose avatars have thumbnails of their own format; all others get WebP."""
FRAMES = 100
"""Packets of a film read in search of a picture."""
_LOADERS = ("Jpeg", "Png", "Webp", "Nsgif", "Heif", "Tiff")


class Refused(Exception):
    """The file is nothing that is decoded here."""


# --- Limits ------------------------------------------------------------------------------------------------------


def limit_time(seconds: int) -> None:
    """So much processor time from now on; beyond it the kernel ends this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    soft = int(used.ru_utime + used.ru_stime) + seconds + 1
    resource.setrlimit(resource.RLIMIT_CPU, (soft, resource.RLIM_INFINITY))


def prepare() -> None:
    """Shut the libraries' other doors."""
    pyvips.cache_set_max(0)
    pyvips.operation_block_set("VipsForeignLoad", True)
    for loader in _LOADERS:
        pyvips.operation_block_set(f"VipsForeignLoad{loader}", False)
    av.logging.set_level(None)
    # What these two would load with the first file, when none can be opened any more.
    Image.preinit()
    for module in pkgutil.walk_packages(av.__path__, "av."):
        if module.name != "av.__main__":
            importlib.import_module(module.name)


# --- What it is --------------------------------------------------------------------------------------------------

_MAGIC = ((b"\xff\xd8\xff", "jpeg"), (b"\x89PNG\r\n\x1a\n", "png"), (b"GIF87a", "gif"), (b"GIF89a", "gif"),
          (b"II*\0", "tiff"), (b"MM\0*", "tiff"), (b"BM", "bmp"), (b"\x1aE\xdf\xa3", "matroska"))  # fmt: skip
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx")


def sniff(head: bytes) -> str:
    """The format that the first bytes tell. Raises Refused."""
    for magic, name in _MAGIC:
        if head.startswith(magic):
            return name
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "webp"
    if head[4:8] == b"ftyp":
        length = min(int.from_bytes(head[:4], "big"), len(head))
        brands = [head[8:12], *(head[i : i + 4] for i in range(16, length - 3, 4))]
        if any(brand in (b"avif", b"avis") for brand in brands):
            return "avif"
        return "heic" if any(brand in _HEIC_BRANDS for brand in brands) else "mov"
    if head[4:8] in (b"moov", b"mdat", b"wide", b"free", b"skip"):
        return "mov"
    raise Refused("neither an image nor a film that is decoded here")


FILMS = ("mov", "matroska")


class Source:
    """The file of one job, told by its first bytes."""

    def __init__(self, fd: int, max_pixels: int) -> None:
        self.fd, self.max_pixels = fd, max_pixels
        self.head = os.pread(fd, 4096, 0)
        self.format = sniff(self.head)

    @property
    def lossless(self) -> bool:
        return self.format == "webp" and b"VP8L" in self.head[12:512]

    def check(self, width: int, height: int) -> None:
        """Raises Refused."""
        if width < 1 or height < 1 or width * height > self.max_pixels:
            raise Refused(f"{width} x {height} pixels")

    def file(self) -> BinaryIO:
        os.lseek(self.fd, 0, os.SEEK_SET)
        return os.fdopen(os.dup(self.fd), "rb")

    def vips(self) -> Any:
        os.lseek(self.fd, 0, os.SEEK_SET)
        return pyvips.Source.new_from_descriptor(self.fd)


# --- Images ------------------------------------------------------------------------------------------------------


class StillImage:
    """An image whose size is known and allowed, not decoded yet; width and height as it is seen.

    A `whole` one must not be cut short; of another one, what is there is shown.
    """

    def __init__(self, source: Source, whole: bool) -> None:
        self.source = source
        # An option of the loader: `thumbnail_source` has one of this name too, which does not reach it.
        self._options = "[fail_on=error]" if whole else ""
        self._decoded: Any = None
        if source.format == "heic":
            self._decoded = _heic(source)
        elif source.format == "bmp":
            self._decoded = _bmp(source)
        header = self._decoded or pyvips.Image.new_from_source(source.vips(), "", access="sequential")
        self.width, self.height = header.width, header.height
        source.check(self.width, self.height)
        if header.get_typeof("orientation") and header.get("orientation") in (5, 6, 7, 8):
            self.width, self.height = self.height, self.width
        self._colours = {"export_profile": "srgb"} if header.interpretation == "cmyk" else {}

    def square(self, side: int) -> Any:
        """The centre square, upright, scaled to `side` pixels."""
        how = {"height": side, "crop": "centre", **self._colours}
        short = min(self.width, self.height)
        if short < side:  # cut before it grows: 1 x 30000 pixels would become 256 x 7680000
            image = self._decoded or pyvips.Image.new_from_source(self.source.vips(), self._options)
            image = image.autorot().crop((self.width - short) // 2, (self.height - short) // 2, short, short)
            return image.thumbnail_image(side, **how)
        if self._decoded is not None:
            return self._decoded.thumbnail_image(side, **how)
        return pyvips.Image.thumbnail_source(self.source.vips(), side, option_string=self._options, **how)


def _from_pixels(data: bytes, width: int, height: int, bands: int, profile: bytes | None) -> Any:
    image = pyvips.Image.new_from_memory(data, width, height, bands, "uchar")
    image = image.copy(interpretation="b-w" if bands < 3 else "srgb")
    if profile:
        image.set_type(pyvips.GValue.blob_type, "icc-profile-data", profile)
    return image


def _heic(source: Source) -> Any:
    """Its rotation is part of how it is decoded, so the orientation in its Exif data is not applied again."""
    with source.file() as file:
        heif = pillow_heif.open_heif(file, convert_hdr_to_8bit=True)
        source.check(*heif.size)
        bands = len(heif.mode)
        (width, height), stride, data = heif.size, heif.stride, bytes(heif.data)
        if stride != width * bands:
            rows = memoryview(data)
            data = b"".join(rows[y * stride : y * stride + width * bands] for y in range(height))
        return _from_pixels(data, width, height, bands, heif.info.get("icc_profile"))


def _bmp(source: Source) -> Any:
    with source.file() as file, Image.open(file, formats=["BMP"]) as bitmap:
        source.check(*bitmap.size)
        alpha = "A" in bitmap.getbands()
        pixels = bitmap.convert("RGBA" if alpha else "RGB")
        return _from_pixels(pixels.tobytes(), pixels.width, pixels.height, 4 if alpha else 3, None)


def encode(image: Any, ext: str, quality: int = 82, lossless: bool = False) -> bytes:
    """The image as bytes; of what it carries beside its pixels only the colour profile stays."""
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


def _rgb(image: Any) -> Any:
    return image.colourspace("srgb").cast("uchar")


def _encode_heic(image: Any, quality: int) -> bytes:
    image = _rgb(image)
    mode = "RGBA" if image.bands == 4 else "RGB"
    profile = image.get("icc-profile-data") if image.get_typeof("icc-profile-data") else None
    heif = pillow_heif.from_bytes(mode, (image.width, image.height), bytes(image.write_to_memory()))
    out = io.BytesIO()
    heif.save(out, quality=quality, icc_profile=profile, exif=None)
    return out.getvalue()


def _encode_bmp(image: Any) -> bytes:
    image = _rgb(image)
    mode = "RGBA" if image.bands == 4 else "RGB"
    out = io.BytesIO()
    Image.frombytes(mode, (image.width, image.height), image.write_to_memory()).save(out, "BMP")
    return out.getvalue()


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
    parts = {"": encode(square, source.format, 90, source.lossless)}
    ext = EXTENSIONS.get(source.format, "webp")
    made = thumbnails(square, [size for size in AVATAR_SIZES if size < side], ext)
    if f"{THUMBNAIL}.webp" not in made:
        made |= thumbnails(square, [THUMBNAIL], "webp")
    return {"format": source.format, "width": side, "parts": parts | made}


def thumbnails(square: Any, sizes: list[int], ext: str) -> dict[str, bytes]:
    """Each from the next larger one that is at least twice its size: as good as from the whole, and much faster."""
    larger, made = [square], {}
    for size in sorted(sizes, reverse=True):
        base = min((image for image in larger if image.width >= 2 * size), key=lambda i: i.width, default=square)
        small = base.thumbnail_image(size, height=size).copy_memory()
        larger.append(small)
        made[f"{size}.{ext}"] = encode(small, "jpeg" if ext == "jpg" else ext)
    return made


# --- Films -------------------------------------------------------------------------------------------------------


def picture_of_film(source: Source) -> dict[str, Any]:
    """The key frame before one second, or before a tenth of a short film."""
    with source.file() as file, av.open(file, format=source.format, metadata_errors="ignore") as film:
        stream = next((s for s in film.streams.video if not s.disposition & s.disposition.attached_pic), None)
        if stream is None:
            raise Refused("a film without pictures")
        codec = stream.codec_context
        source.check(codec.width, codec.height)
        codec.thread_count = 1
        codec.options = {"max_pixels": str(source.max_pixels)}
        codec.skip_frame = "NONKEY"
        if film.duration and film.duration > 0:
            with suppress(av.FFmpegError):
                film.seek(int(min(av.time_base, film.duration / 10)))
        frame = _first_frame(film, stream)
        source.check(frame.width, frame.height)
        turned = frame.rotation % 180 != 0
        width, height = (frame.height, frame.width) if turned else (frame.width, frame.height)
        data = encode(_poster(frame), "webp")
    return {"width": width, "height": height, "parts": {f"{THUMBNAIL}.webp": data}}


def _first_frame(film: Any, stream: Any) -> Any:
    for number, packet in enumerate(film.demux(stream)):
        for frame in packet.decode():
            return frame
        if number > FRAMES:
            break
    raise Refused("a film without a picture at its beginning")


def _poster(frame: Any) -> Any:
    scale = THUMBNAIL / min(frame.width, frame.height)
    width, height = (max(THUMBNAIL, round(side * scale)) for side in (frame.width, frame.height))
    if max(width, height) > 64 * THUMBNAIL:
        raise Refused(f"{frame.width} x {frame.height} pixels")
    plane = frame.reformat(width=width, height=height, format="rgb24").planes[0]
    rows, stride = memoryview(plane), plane.line_size
    pixels = b"".join(rows[y * stride : y * stride + 3 * width] for y in range(height))
    image = _from_pixels(pixels, width, height, 3, None)
    if frame.rotation:
        image = image.rot(f"d{-frame.rotation % 360}")
    return image.crop((image.width - THUMBNAIL) // 2, (image.height - THUMBNAIL) // 2, THUMBNAIL, THUMBNAIL)


# --- Jobs --------------------------------------------------------------------------------------------------------


def work(job: dict[str, Any], fd: int, max_pixels: int) -> dict[str, Any]:
    """Do one job. Raises Refused, and whatever the libraries raise over a broken file."""
    source = Source(fd, max_pixels)
    if job["job"] == "avatar":
        return avatar(source)
    if job["job"] == "more":
        square = StillImage(source, whole=True).square(min(max(job["sizes"]) * 2, AVATAR)).copy_memory()
        return {"parts": thumbnails(square, job["sizes"], job["ext"])}
    if (source.format in FILMS) != (job["kind"] == "video"):
        raise Refused(f"{source.format} where {job['kind']} was announced")
    return picture_of_film(source) if source.format in FILMS else picture_of_image(source)


def _attempt(job: dict[str, Any], fd: int, max_pixels: int) -> tuple[dict[str, Any], bytes]:
    try:
        answer = work(job, fd, max_pixels)
    except Exception as error:  # a broken file makes the libraries raise nearly anything
        return {"error": f"{type(error).__name__}: {error}"[:500]}, b""
    parts: dict[str, bytes] = answer["parts"]
    answer["parts"] = [[name, len(data)] for name, data in parts.items()]
    return answer, b"".join(parts.values())


def main() -> None:
    """Do jobs until the parent hangs up."""
    parent, limits = socket.socket(fileno=int(sys.argv[1])), json.loads(sys.argv[2])
    prepare()
    enforced = confine(limits["memory"])
    parent.sendall(json.dumps(enforced).encode() + b"\n")
    while True:
        line, fds, _, _ = socket.recv_fds(parent, 4096, 1)
        if not line:
            return
        limit_time(limits["cpu_seconds"])
        try:
            answer, data = _attempt(json.loads(line), fds[0], limits["max_pixels"])
        finally:
            for fd in fds:
                os.close(fd)
        parent.sendall(json.dumps(answer).encode() + b"\n" + data)


if __name__ == "__main__":
    main()
