"""The decoders: what they make of images and films, and that their limits hold. Real processes."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from media_gallery import thumbnails
from media_gallery.models import AVATAR_SIZES
from media_gallery.thumbnails import Avatar, Busy, DecoderFailed, Picture, Thumbnailer, Undecodable
from tests import samples
from tests.samples import BLUE, GREEN, RED, WHITE

LIMITS: dict[str, Any] = {"timeout": 60, "cpu_seconds": 60, "memory": 1 << 30, "max_pixels": 20_000_000}


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


def shows(image: Image.Image, *corners: tuple[int, int, int]) -> bool:
    """Whether these colours are in its quarters: above from left to right, then below."""
    pixels, (w, h) = image.convert("RGB"), image.size
    places = [(x * w // 4, y * h // 4) for y in (1, 3) for x in (1, 3)]
    return all(near(pixels.getpixel(at), colour) for at, colour in zip(places, corners, strict=True))  # type: ignore[arg-type]


def is_upright(image: Image.Image) -> bool:
    """Whether the four quarters of `samples.quarters` are where they belong."""
    return shows(image, RED, GREEN, BLUE, WHITE)


def children() -> set[int]:
    """Processes that this one has started, and that are still there."""
    found = set()
    for place in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((place / "stat").read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
        if parent == os.getpid():
            found.add(int(place.name))
    return found


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


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
@pytest.mark.parametrize(
    ("kind", "ext"),
    [("jpeg", "jpg"), ("png", "png"), ("webp", "webp"), ("tiff", "webp"), ("heic", "webp"), ("avif", "webp")],
)
async def test_images_are_turned_upright(decoder: Thumbnailer, kind: str, ext: str, orientation: int) -> None:
    data = samples.oriented(orientation, kind=kind)
    seen, kept = await picture(decoder, data), await avatar(decoder, data)
    assert (seen.width, seen.height) == (400, 300)
    for image in (seen.thumbnails["256.webp"], kept.data, kept.thumbnails[f"128.{ext}"]):
        assert is_upright(opened(image))
        assert opened(image).getexif().get(0x0112, 1) == 1


@pytest.mark.parametrize("orientation", range(1, 9))
async def test_small_images_grow_and_are_turned_upright(decoder: Thumbnailer, orientation: int) -> None:
    seen = await picture(decoder, samples.oriented(orientation, 200, 40))
    assert (seen.width, seen.height) == (200, 40)
    thumbnail = opened(seen.thumbnails["256.webp"])
    assert thumbnail.size == (256, 256) and is_upright(thumbnail)


async def test_the_centre_is_cut_out(decoder: Thumbnailer) -> None:
    wide = Image.new("RGB", (900, 300), RED)
    wide.paste(GREEN, (300, 0, 600, 300))
    for image in (wide, wide.transpose(Image.Transpose.ROTATE_90)):
        data = samples.encoded(image, "png")
        seen, kept = await picture(decoder, data), await avatar(decoder, data)
        assert opened(kept.data).convert("RGB").getcolors() == [(300 * 300, GREEN)]
        assert shows(opened(kept.thumbnails["32.png"]), GREEN, GREEN, GREEN, GREEN)
        assert shows(opened(seen.thumbnails["256.webp"]), GREEN, GREEN, GREEN, GREEN)


@pytest.mark.parametrize(("side", "kept_side"), [(20, 20), (1536, 1536), (1537, 1536), (2000, 1536)])
async def test_avatars_are_scaled_down_never_up(decoder: Thumbnailer, side: int, kept_side: int) -> None:
    kept = await avatar(decoder, samples.picture("jpeg", side + 10, side))
    assert kept.width == kept_side
    assert opened(kept.data).size == (kept_side, kept_side)
    assert is_upright(opened(kept.data))


@pytest.mark.parametrize("side", [1, 31, 32, 33, 255, 256, 257, 768, 769])
async def test_thumbnails_are_smaller_than_the_avatar(decoder: Thumbnailer, side: int) -> None:
    kept = await avatar(decoder, samples.picture("png", side, side))
    assert set(kept.thumbnails) == {f"{size}.png" for size in AVATAR_SIZES if size < side} | {"256.webp"}


@pytest.mark.parametrize(
    ("kind", "ext"),
    [("png", "png"), ("jpeg", "jpg"), ("webp", "webp"), ("gif", "webp"), ("tiff", "webp"), ("bmp", "webp"),
     ("heic", "webp"), ("avif", "webp")],
)  # fmt: skip
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
    for width, height in ((400, 300), (90, 60)):
        sent = samples.picture(kind, width, height, icc_profile=profile)
        seen, kept = await picture(decoder, sent), await avatar(decoder, sent)
        for data in (seen.thumbnails["256.webp"], kept.data, *kept.thumbnails.values()):
            assert opened(data).info.get("icc_profile") == profile
            assert is_upright(opened(data))
    located = samples.located(kind)
    assert b"SECRETCAMERA" in located
    assert kind == "tiff" or opened(located).getexif().get_ifd(0x8825)
    seen, kept = await picture(decoder, located), await avatar(decoder, located)
    for data in (kept.data, *kept.thumbnails.values(), *seen.thumbnails.values()):
        assert b"SECRET" not in data
        assert 0x010F not in opened(data).getexif() and not opened(data).getexif().get_ifd(0x8825)


@pytest.mark.parametrize("kind", ["gif", "webp"])
async def test_the_first_frame_of_an_animation_is_shown(decoder: Thumbnailer, kind: str) -> None:
    data = samples.animated(kind)
    seen, kept = await picture(decoder, data), await avatar(decoder, data)
    assert (seen.width, seen.height) == (100, 100)
    for image in (seen.thumbnails["256.webp"], kept.data, kept.thumbnails["64.webp"]):
        assert near(opened(image).convert("RGB").getpixel((10, 10)), RED)  # type: ignore[arg-type]
        assert getattr(opened(image), "n_frames", 1) == 1


async def test_a_page_behind_an_image_is_dropped_from_an_avatar(decoder: Thumbnailer) -> None:
    kept = await avatar(decoder, samples.polyglot())
    assert is_upright(opened(kept.data))
    assert not any(b"script" in data for data in (kept.data, *kept.thumbnails.values()))


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


@pytest.mark.parametrize("size", [(1, 1), (1, 30_000), (30_000, 1), (30, 8000), (257, 60_000)])
@pytest.mark.parametrize("kind", ["png", "jpeg"])
async def test_odd_shapes(decoder: Thumbnailer, kind: str, size: tuple[int, int]) -> None:
    data = samples.encoded(Image.new("RGB", size, RED), kind)
    seen = await picture(decoder, data)
    assert (seen.width, seen.height) == size
    thumbnail = opened(seen.thumbnails["256.webp"])
    assert thumbnail.size == (256, 256) and shows(thumbnail, RED, RED, RED, RED)
    assert (await avatar(decoder, data)).width == min(size)


# --- Films ---


@pytest.mark.parametrize(
    ("container", "codec"),
    [("mp4", "libx264"), ("mp4", "mpeg4"), ("mov", "libx264"), ("webm", "libvpx"), ("webm", "libvpx-vp9"),
     ("matroska", "libx264")],
)  # fmt: skip
async def test_films_have_posters(decoder: Thumbnailer, container: str, codec: str) -> None:
    seen = await picture(decoder, samples.film(container, codec), "video")
    assert (seen.width, seen.height) == (320, 180)
    poster = opened(seen.thumbnails["256.webp"])
    assert poster.size == (256, 256) and is_upright(poster)


@pytest.mark.parametrize("degrees", [90, 180, 270])
async def test_films_are_turned_upright(decoder: Thumbnailer, degrees: int) -> None:
    seen = await picture(decoder, samples.turned_film(degrees), "video")
    assert (seen.width, seen.height) == ((320, 180) if degrees == 180 else (180, 320))
    corners = {90: (BLUE, RED, WHITE, GREEN), 180: (WHITE, BLUE, GREEN, RED), 270: (GREEN, WHITE, RED, BLUE)}[degrees]
    assert shows(opened(seen.thumbnails["256.webp"]), *corners)


async def test_a_tall_film(decoder: Thumbnailer) -> None:
    seen = await picture(decoder, samples.film(width=64, height=400), "video")
    assert (seen.width, seen.height) == (64, 400)
    poster = opened(seen.thumbnails["256.webp"])
    assert poster.size == (256, 256) and is_upright(poster)


async def test_a_film_without_pictures_has_no_poster(decoder: Thumbnailer) -> None:
    with pytest.raises(Undecodable):
        await picture(decoder, samples.sound(), "video")


@pytest.mark.parametrize("container", ["mp4", "mov"])
async def test_a_film_that_is_cut_short_has_no_poster(decoder: Thumbnailer, container: str) -> None:
    data = samples.film(container)
    for part in (10, 50, 90):
        with pytest.raises(Undecodable):
            await picture(decoder, data[: len(data) * part // 100], "video")


# --- Hostile files ---


@pytest.mark.parametrize(
    "data",
    [
        b"", b"x", os.urandom(50_000), samples.POLYGLOT_GIF, samples.SVG, samples.HTML, samples.PLAYLIST,
        b"\xff\xd8\xff" + os.urandom(5000), samples.png_lie(60_000, 60_000), samples.png_bomb(10_000, 10_000),
        b"%PDF-1.4\n", samples.picture("png")[:30], b"\0\0\0\x18ftypmp42" + os.urandom(4000),
    ],
    ids=["empty", "one byte", "noise", "gif script", "svg", "html", "playlist", "jpeg noise", "png lie", "png bomb",
         "pdf", "png head", "mp4 noise"],
)  # fmt: skip
async def test_what_is_no_image_is_refused(decoder: Thumbnailer, data: bytes) -> None:
    for kind in ("image", "video"):
        with pytest.raises(Undecodable):
            await picture(decoder, data, kind)
    with pytest.raises(Undecodable):
        await avatar(decoder, data)
    assert (await picture(decoder, samples.picture())).width == 400


@pytest.mark.parametrize("kind", samples.FORMATS)
async def test_the_pixel_limit(kind: str) -> None:
    small = Thumbnailer(1, **LIMITS | {"max_pixels": 120 * 100})
    for width, height in ((120, 100), (100, 120)):
        assert (await picture(small, samples.picture(kind, width, height))).width == width
        assert (await avatar(small, samples.picture(kind, width, height))).width == 100
        for data in (samples.picture(kind, width + 1, height), samples.picture(kind, width, height + 1)):
            with pytest.raises(Undecodable):
                await picture(small, data)
            with pytest.raises(Undecodable):
                await avatar(small, data)
    await small.close()


async def test_the_pixel_limit_of_films() -> None:
    film = samples.film(width=320, height=180)
    for pixels in (320 * 180, 320 * 180 - 1):
        small = Thumbnailer(1, **LIMITS | {"max_pixels": pixels})
        if pixels == 320 * 180:
            assert (await picture(small, film, "video")).width == 320
        else:
            with pytest.raises(Undecodable):
                await picture(small, film, "video")
        await small.close()


async def test_a_bomb_just_over_the_limit(decoder: Thumbnailer) -> None:
    assert (await picture(decoder, samples.png_bomb(5000, 4000))).width == 5000
    bomb = samples.png_bomb(5000, 4001)
    assert len(bomb) < 5000
    with pytest.raises(Undecodable):
        await picture(decoder, bomb)


@pytest.mark.parametrize("kind", samples.FORMATS)
async def test_an_image_that_is_cut_short_is_no_avatar(decoder: Thumbnailer, kind: str) -> None:
    data = samples.noise(kind)
    for part in (2, 10, 50, 90, 99):
        with pytest.raises(Undecodable):
            await avatar(decoder, data[: len(data) * part // 100])


@pytest.mark.parametrize("kind", [*samples.FORMATS, "mp4", "webm"])
async def test_damaged_files_cost_their_own_job_at_most(decoder: Thumbnailer, kind: str) -> None:
    """Each is shown or refused, and whatever it does to the libraries, what comes after it is shown."""
    films = {"mp4": "libx264", "webm": "libvpx"}
    whole = samples.film(kind, films[kind]) if kind in films else samples.noise(kind)
    for seed in range(12):
        data = samples.damaged(whole, seed)
        try:
            seen = await picture(decoder, data, "video" if kind in films else "image")
            assert opened(seen.thumbnails["256.webp"]).size == (256, 256)
            if kind not in films:
                kept = await avatar(decoder, data)
                assert opened(kept.data).width == kept.width
        except (Undecodable, DecoderFailed):
            pass
    assert is_upright(opened((await picture(decoder, samples.picture())).thumbnails["256.webp"]))


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
    large = Thumbnailer(1, **LIMITS | {"max_pixels": 10**9})
    small = Thumbnailer(1, **LIMITS | {"memory": 150 << 20, "max_pixels": 10**9})
    bomb = samples.encoded(Image.new("P", (8000, 6000)), "gif")  # a small file, 192 MB decoded
    assert (await picture(large, bomb)).width == 8000
    await large.close()
    with pytest.raises((Undecodable, DecoderFailed)):
        await picture(small, bomb)
    assert (await picture(small, samples.picture())).width == 400
    await small.close()


@pytest.mark.parametrize("fault", [signal.SIGSTOP, signal.SIGKILL, signal.SIGSEGV])
async def test_the_file_is_not_blamed_for_a_decoder_that_hangs_or_dies(fault: signal.Signals) -> None:
    decoder = Thumbnailer(1, **LIMITS)
    await picture(decoder, samples.picture())
    [child] = decoder._idle
    os.kill(child.process.pid, fault)
    if fault == signal.SIGSTOP:
        decoder.timeout = 0.1
    task = asyncio.create_task(picture(decoder, samples.picture()))
    while child.process.poll() is None:  # noqa: ASYNC110
        await asyncio.sleep(0)
    decoder.timeout = LIMITS["timeout"]  # for the other one, which is starting now
    assert (await task).width == 400
    assert decoder._idle != [child]
    await decoder.close()


@pytest.fixture
def endless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A decoder to which every avatar is a job without an end."""
    program = tmp_path / "decoder.py"
    program.write_text("""
from media_gallery import decoder

def work(job, *args, real=decoder.work):
    while job["job"] == "avatar":
        pass
    return real(job, *args)

decoder.work = work
decoder.main()
""")
    monkeypatch.setattr(thumbnails, "PROGRAM", program)


@pytest.mark.usefixtures("endless")
async def test_processor_time_is_limited() -> None:
    decoder = Thumbnailer(1, **LIMITS | {"cpu_seconds": 0})
    with pytest.raises(DecoderFailed, match=f"status -{signal.SIGXCPU}$"):
        await avatar(decoder, samples.picture())
    await decoder.close()
    decoder = Thumbnailer(1, **LIMITS)
    assert (await picture(decoder, samples.picture())).width == 400
    await decoder.close()


@pytest.mark.usefixtures("endless")
async def test_a_job_has_a_time_limit() -> None:
    decoder = Thumbnailer(1, **LIMITS | {"timeout": 0.5, "cpu_seconds": 10**6})
    with pytest.raises(DecoderFailed, match="longer"):
        await avatar(decoder, samples.picture())
    decoder.timeout = LIMITS["timeout"]
    assert (await picture(decoder, samples.picture())).width == 400
    await decoder.close()


@pytest.mark.parametrize("moment", [0, 0.005, 0.05])
async def test_a_caller_that_gives_up_harms_nobody(decoder: Thumbnailer, moment: float) -> None:
    await picture(decoder, samples.picture())
    before, [child] = descriptors(), decoder._idle
    os.kill(child.process.pid, signal.SIGSTOP)
    task = asyncio.create_task(picture(decoder, samples.picture("jpeg", 3000, 2000)))
    await asyncio.sleep(moment)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    os.kill(child.process.pid, signal.SIGCONT)
    assert (await picture(decoder, samples.picture())).width == 400
    assert descriptors() == before


async def test_no_descriptor_is_lost() -> None:
    before, decoder = descriptors(), Thumbnailer(2, **LIMITS)
    await picture(decoder, samples.picture())
    os.kill(decoder._idle[0].process.pid, signal.SIGKILL)
    sent = [b"x", samples.picture(), samples.png_lie(60_000, 60_000)] * 3
    await asyncio.gather(*(picture(decoder, data) for data in sent), return_exceptions=True)
    await decoder.close()
    assert descriptors() == before


async def test_a_decoder_is_replaced_after_many_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thumbnails, "RECYCLE", 2)
    decoder, before = Thumbnailer(1, **LIMITS), children()
    await picture(decoder, samples.picture())
    [first] = children() - before
    await picture(decoder, samples.picture())
    assert children() == before
    await picture(decoder, samples.picture())
    assert children() - before and first not in children()
    await decoder.close()


async def test_where_no_decoder_starts_nothing_was_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder, before = Thumbnailer(1, **LIMITS), descriptors()
    with monkeypatch.context() as patch:
        for program in ("/nowhere/python", "/bin/true"):
            patch.setattr(sys, "executable", program)
            with pytest.raises(Busy):
                await picture(decoder, samples.picture())
    assert descriptors() == before
    assert (await picture(decoder, samples.picture())).width == 400
    await decoder.close()


async def test_too_many_jobs_are_refused() -> None:
    decoder = Thumbnailer(1, **LIMITS, queue=3)
    results = await asyncio.gather(*(picture(decoder, samples.picture()) for _ in range(5)), return_exceptions=True)
    assert sum(isinstance(result, Busy) for result in results) == 2
    assert sum(isinstance(result, Picture) for result in results) == 3
    assert (await picture(decoder, samples.picture())).width == 400
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
    status = (home / "status").read_text()
    assert "NoNewPrivs:\t1" in status and f"CapEff:\t{0:016x}" in status
    assert not any(name.startswith("MEDIA_GALLERY") for name in (home / "environ").read_text().split("\0"))
    opened_files = sorted(str(fd.readlink()) for fd in (home / "fd").iterdir())
    assert opened_files[:3] == ["/dev/null"] * 3
    assert len(opened_files) == 4 and opened_files[3].startswith("socket:")


async def test_no_decoder_is_left_behind() -> None:
    before, decoder = children(), Thumbnailer(2, **LIMITS)
    await asyncio.gather(*(picture(decoder, samples.picture()) for _ in range(4)))
    assert len(children() - before) == 2
    await decoder.close()
    assert children() == before


@pytest.mark.parametrize("moment", [0, 0.001, 0.005, 0.02, 0.1])
async def test_closing_while_decoders_start_leaves_none(moment: float) -> None:
    before, decoder, held = children(), Thumbnailer(2, **LIMITS), descriptors()
    tasks = [asyncio.create_task(picture(decoder, samples.picture())) for _ in range(4)]
    await asyncio.sleep(moment)
    await decoder.close()
    assert children() == before
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(result, Busy | Picture) for result in results)
    assert descriptors() == held


async def test_closing_while_decoders_work_or_hang_leaves_none() -> None:
    before, decoder = children(), Thumbnailer(2, **LIMITS)
    await asyncio.gather(*(picture(decoder, samples.picture()) for _ in range(2)))
    working = children() - before
    for pid in working:
        os.kill(pid, signal.SIGSTOP)
    tasks = [asyncio.create_task(picture(decoder, samples.picture())) for _ in range(4)]
    while decoder._idle:  # noqa: ASYNC110
        await asyncio.sleep(0)
    await decoder.close()
    assert children() == before
    assert all(isinstance(result, Busy) for result in await asyncio.gather(*tasks, return_exceptions=True))
