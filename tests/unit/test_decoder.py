"""The decoders: what they make of images and films, and that their limits hold. Real processes."""

from __future__ import annotations

import asyncio
import io
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from media_gallery.models import AVATAR_SIZES
from media_gallery.thumbnails import Avatar, Busy, DecoderFailed, Picture, Thumbnailer, Undecodable
from tests import samples
from tests.samples import BLUE, GREEN, RED, WHITE

LIMITS: dict[str, Any] = {"timeout": 20, "cpu_seconds": 20, "memory": 1 << 30, "max_pixels": 20_000_000}


@pytest.fixture(scope="module")
async def decoder() -> AsyncIterator[Thumbnailer]:
    thumbnailer = Thumbnailer(1, **LIMITS)
    yield thumbnailer
    await thumbnailer.close()


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


def near(colour: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    return all(abs(a - b) < 60 for a, b in zip(colour, wanted, strict=True))


def is_upright(image: Image.Image) -> bool:
    """Whether the four quarters of `samples.quarters` are where they belong."""
    pixels, (w, h) = image.convert("RGB"), image.size
    places = {
        (w // 4, h // 4): RED,
        (3 * w // 4, h // 4): GREEN,
        (w // 4, 3 * h // 4): BLUE,
        (3 * w // 4, 3 * h // 4): WHITE,
    }
    return all(near(pixels.getpixel(place), colour) for place, colour in places.items())  # type: ignore[arg-type]


# --- Images ---


@pytest.mark.parametrize("kind", samples.FORMATS)
async def test_every_format_has_a_thumbnail(decoder: Thumbnailer, kind: str) -> None:
    seen = await picture(decoder, samples.picture(kind))
    assert (seen.width, seen.height) == (400, 300)
    thumbnail = opened(seen.thumbnails["256.webp"])
    assert (thumbnail.format, thumbnail.size) == ("WEBP", (256, 256))
    assert is_upright(thumbnail)


@pytest.mark.parametrize("kind", samples.FORMATS)
async def test_an_avatar_keeps_its_format(decoder: Thumbnailer, kind: str) -> None:
    kept = await avatar(decoder, samples.picture(kind))
    image = opened(kept.data)
    assert kept.media_type == f"image/{kind}"
    assert str(image.format).lower() == {"heic": "heif"}.get(kind, kind)
    assert image.size == (kept.width, kept.width) == (300, 300)
    assert is_upright(image)


@pytest.mark.parametrize("orientation", range(1, 9))
async def test_images_are_turned_upright(decoder: Thumbnailer, orientation: int) -> None:
    data = samples.oriented(orientation)
    seen, kept = await picture(decoder, data), await avatar(decoder, data)
    assert (seen.width, seen.height) == (400, 300)
    for image in (seen.thumbnails["256.webp"], kept.data, kept.thumbnails["128.jpg"]):
        assert is_upright(opened(image))
        assert opened(image).getexif().get(0x0112, 1) == 1


async def test_the_centre_is_cut_out(decoder: Thumbnailer) -> None:
    wide = Image.new("RGB", (900, 300), RED)
    wide.paste(GREEN, (300, 0, 600, 300))
    kept = await avatar(decoder, samples.encoded(wide, "png"))
    assert opened(kept.data).convert("RGB").getcolors() == [(300 * 300, GREEN)]


@pytest.mark.parametrize(("side", "kept_side"), [(20, 20), (1536, 1536), (1537, 1536), (2000, 1536)])
async def test_avatars_are_scaled_down_never_up(decoder: Thumbnailer, side: int, kept_side: int) -> None:
    kept = await avatar(decoder, samples.picture("jpeg", side + 10, side))
    assert kept.width == kept_side == opened(kept.data).width


@pytest.mark.parametrize(
    ("kind", "ext"), [("png", "png"), ("jpeg", "jpg"), ("webp", "webp"), ("gif", "webp"), ("tiff", "webp")]
)
async def test_avatar_thumbnails(decoder: Thumbnailer, kind: str, ext: str) -> None:
    kept = await avatar(decoder, samples.picture(kind, 500, 256))
    sizes = [size for size in AVATAR_SIZES if size < 256]
    assert set(kept.thumbnails) == {f"{size}.{ext}" for size in sizes} | {"256.webp"}
    for size in sizes:
        image = opened(kept.thumbnails[f"{size}.{ext}"])
        assert image.size == (size, size)
        assert str(image.format).lower() == {"jpg": "jpeg"}.get(ext, ext)
        assert is_upright(image)


async def test_thumbnails_are_made_again_the_same(decoder: Thumbnailer) -> None:
    kept = await avatar(decoder, samples.picture("png", 400, 400))
    fd = put(kept.data)
    made = await decoder.more(fd, [48, 96], "png")
    os.close(fd)
    assert {name: opened(data).size for name, data in made.items()} == {"48.png": (48, 48), "96.png": (96, 96)}


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp", "heic", "avif", "tiff"])
async def test_the_profile_stays_and_the_rest_goes(decoder: Thumbnailer, kind: str) -> None:
    profile = samples.profile()
    seen = await picture(decoder, samples.picture(kind, icc_profile=profile))
    kept = await avatar(decoder, samples.picture(kind, icc_profile=profile))
    for data in (seen.thumbnails["256.webp"], kept.data):
        assert opened(data).info.get("icc_profile") == profile
    located = samples.located(kind)
    assert b"SECRETCAMERA" in located
    seen, kept = await picture(decoder, located), await avatar(decoder, located)
    for data in (kept.data, *kept.thumbnails.values(), *seen.thumbnails.values()):
        assert b"SECRETCAMERA" not in data and not opened(data).getexif().get_ifd(0x8825)


@pytest.mark.parametrize("kind", ["gif", "webp"])
async def test_the_first_frame_of_an_animation_is_shown(decoder: Thumbnailer, kind: str) -> None:
    data = samples.animated(kind)
    seen, kept = await picture(decoder, data), await avatar(decoder, data)
    assert (seen.width, seen.height) == (100, 100)
    for image in (seen.thumbnails["256.webp"], kept.data, kept.thumbnails["64.webp"]):
        assert near(opened(image).convert("RGB").getpixel((10, 10)), RED)  # type: ignore[arg-type]


async def test_transparency_stays(decoder: Thumbnailer) -> None:
    clear = Image.new("RGBA", (300, 300), (255, 0, 0, 0))
    for kind in ("png", "webp"):
        kept = await avatar(decoder, samples.encoded(clear, kind))
        assert opened(kept.data).convert("RGBA").getpixel((5, 5))[3] == 0  # type: ignore[index]


async def test_colours_for_print_become_colours_for_screens(decoder: Thumbnailer) -> None:
    seen = await picture(decoder, samples.encoded(samples.quarters(400, 300).convert("CMYK"), "jpeg"))
    assert opened(seen.thumbnails["256.webp"]).mode == "RGB"
    kept = await avatar(decoder, samples.encoded(samples.quarters(400, 300).convert("L"), "png"))
    assert opened(kept.data).size == (300, 300)


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1), (30, 8000)])
async def test_odd_shapes(decoder: Thumbnailer, size: tuple[int, int]) -> None:
    data = samples.encoded(Image.new("RGB", size, RED), "png")
    seen = await picture(decoder, data)
    assert (seen.width, seen.height) == size
    assert opened(seen.thumbnails["256.webp"]).size == (256, 256)
    assert (await avatar(decoder, data)).width == min(size)


# --- Films ---


@pytest.mark.parametrize(
    ("container", "codec"),
    [("mp4", "libx264"), ("mp4", "mpeg4"), ("mov", "libx264"), ("webm", "libvpx"), ("matroska", "libx264")],
)
async def test_films_have_posters(decoder: Thumbnailer, container: str, codec: str) -> None:
    seen = await picture(decoder, samples.film(container, codec), "video")
    assert (seen.width, seen.height) == (320, 180)
    poster = opened(seen.thumbnails["256.webp"])
    assert poster.size == (256, 256) and is_upright(poster)


@pytest.mark.parametrize("degrees", [90, 180, 270])
async def test_films_are_turned_upright(decoder: Thumbnailer, degrees: int) -> None:
    seen = await picture(decoder, samples.turned_film(degrees), "video")
    assert (seen.width, seen.height) == ((320, 180) if degrees == 180 else (180, 320))
    poster = opened(seen.thumbnails["256.webp"]).convert("RGB")
    corner = {90: BLUE, 180: WHITE, 270: GREEN}[degrees]  # what comes to the upper left by turning clockwise
    assert near(poster.getpixel((30, 30)), corner)  # type: ignore[arg-type]


# --- Hostile files ---


@pytest.mark.parametrize(
    "data",
    [
        b"", b"x", os.urandom(50_000), samples.POLYGLOT_GIF, samples.SVG, samples.HTML, samples.PLAYLIST,
        b"\xff\xd8\xff" + os.urandom(5000), samples.png_lie(60_000, 60_000), samples.png_bomb(10_000, 10_000),
        b"%PDF-1.4\n", samples.picture("png")[:30],
         b"\0\0\0\x18ftypmp42" + os.urandom(4000),
    ],
)  # fmt: skip
async def test_what_is_no_image_is_refused(decoder: Thumbnailer, data: bytes) -> None:
    for kind in ("image", "video"):
        with pytest.raises(Undecodable):
            await picture(decoder, data, kind)
    with pytest.raises(Undecodable):
        await avatar(decoder, data)
    assert (await picture(decoder, samples.picture())).width == 400


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp", "gif", "tiff", "heic", "avif", "bmp"])
async def test_an_image_that_is_cut_short_is_no_avatar(decoder: Thumbnailer, kind: str) -> None:
    data = samples.picture(kind)
    with pytest.raises(Undecodable):
        await avatar(decoder, data[: len(data) * 2 // 3])


async def test_of_a_photo_that_is_cut_short_the_thumbnail_shows_what_is_there(decoder: Thumbnailer) -> None:
    data = samples.picture("jpeg")
    seen = await picture(decoder, data[: len(data) * 2 // 3])
    assert near(opened(seen.thumbnails["256.webp"]).convert("RGB").getpixel((30, 30)), RED)  # type: ignore[arg-type]


async def test_a_film_is_no_avatar_and_a_photo_no_film(decoder: Thumbnailer) -> None:
    with pytest.raises(Undecodable):
        await avatar(decoder, samples.film())
    with pytest.raises(Undecodable):
        await picture(decoder, samples.picture(), "video")
    with pytest.raises(Undecodable):
        await picture(decoder, samples.film(), "image")


async def test_memory_is_limited() -> None:
    small = Thumbnailer(1, **LIMITS | {"memory": 150 << 20, "max_pixels": 10**9})
    bomb = samples.encoded(Image.new("P", (8000, 6000)), "gif")  # a small file, 192 MB decoded
    with pytest.raises((Undecodable, DecoderFailed)):
        await picture(small, bomb)
    assert (await picture(small, samples.picture())).width == 400
    await small.close()


async def test_a_decoder_that_hangs_or_dies_costs_one_job() -> None:
    decoder = Thumbnailer(1, **LIMITS | {"timeout": 2})
    for fault in (signal.SIGSTOP, signal.SIGKILL, signal.SIGSEGV):
        await picture(decoder, samples.picture())
        [child] = decoder._idle
        os.kill(child.process.pid, fault)
        with pytest.raises(DecoderFailed):
            await picture(decoder, samples.picture())
        assert child.process.poll() is not None
    assert (await picture(decoder, samples.picture())).width == 400
    await decoder.close()


async def test_processor_time_is_limited() -> None:
    decoder = Thumbnailer(1, **LIMITS | {"cpu_seconds": 0, "max_pixels": 10**9})
    with pytest.raises(DecoderFailed):
        await avatar(decoder, samples.png_bomb(30_000, 30_000))
    await decoder.close()


async def test_a_caller_that_gives_up_harms_nobody(decoder: Thumbnailer) -> None:
    task = asyncio.create_task(picture(decoder, samples.picture("jpeg", 3000, 2000)))
    await asyncio.sleep(0.005)
    task.cancel()
    assert (await picture(decoder, samples.picture())).width == 400


async def test_too_many_jobs_are_refused() -> None:
    decoder = Thumbnailer(1, **LIMITS, queue=3)
    results = await asyncio.gather(*(picture(decoder, samples.picture()) for _ in range(5)), return_exceptions=True)
    assert sum(isinstance(result, Busy) for result in results) == 2
    assert sum(isinstance(result, Picture) for result in results) == 3
    await decoder.close()
    with pytest.raises(Busy):
        await picture(decoder, samples.picture())


async def test_a_decoder_owns_nothing(decoder: Thumbnailer) -> None:
    await picture(decoder, samples.picture())
    [child] = decoder._idle
    home = Path(f"/proc/{child.process.pid}")
    limits = {line[:25].strip(): line[25:].split()[0] for line in (home / "limits").read_text().splitlines()}
    assert limits["Max file size"] == "0" and limits["Max core file size"] == "0"
    assert limits["Max data size"] == str(1 << 30) and limits["Max open files"] == "64"
    assert "NoNewPrivs:\t1" in (home / "status").read_text()
    assert (home / "ns/net").readlink() != (home.parent / "self/ns/net").readlink()
    assert not any(name.startswith("MEDIA_GALLERY") for name in (home / "environ").read_text().split("\0"))


async def test_no_decoder_is_left_behind() -> None:
    decoder = Thumbnailer(2, **LIMITS)
    await asyncio.gather(*(picture(decoder, samples.picture()) for _ in range(4)))
    children = [child.process for child in decoder._idle]
    assert len(children) == 2
    await decoder.close()
    assert all(child.poll() is not None for child in children)
