"""The decoders, as real processes: hostile files harm nobody, and the limits hold."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
from pathlib import Path

import pytest
from PIL import Image

from media_gallery import thumbnails
from media_gallery.thumbnails import Busy, DecoderFailed, Picture, Thumbnailer, Undecodable
from tests import samples
from tests.samples import RED
from tests.unit.decoding import LIMITS, avatar, is_upright, near, opened, picture


def children() -> set[int]:
    """Processes that this one has started, and that still exist."""
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
    """How many this process has open, without those of objects that nobody uses any more: Python may close them now."""
    gc.collect()
    return len(list(Path("/proc/self/fd").iterdir()))


# --- Hostile files ---


@pytest.mark.parametrize(
    "data",
    [
        b"", b"x", os.urandom(50_000), samples.POLYGLOT_GIF, samples.SVG, samples.HTML, samples.PLAYLIST,
        b"\xff\xd8\xff" + os.urandom(5000), samples.png_lie(60_000, 60_000), samples.png_bomb(10_000, 10_000),
        b"%PDF-1.4\n", samples.picture("png")[:30], b"\0\0\0\x18ftypmp42" + os.urandom(4000),
        b"ffconcat version 1.0\nfile /etc/passwd\n", b"<MPD xmlns='urn:mpeg:dash:schema:mpd:2011'/>",
        b"v=0\no=- 0 0 IN IP4 127.0.0.1\nm=video 9 RTP/AVP 96\n", b"1\n00:00:00,000 --> 00:00:01,000\nsubtitle\n",
        b"RIFF\0\0\0\0AVI " + os.urandom(4000), b"FLV\1" + os.urandom(4000), b"OggS\0" + os.urandom(4000),
        b"\0\0\1\xba" + os.urandom(4000), b"G".ljust(188, b"\0") * 99,
    ],
    ids=["empty", "one byte", "noise", "gif script", "svg", "html", "playlist", "jpeg noise", "png lie", "png bomb",
         "pdf", "png head", "mp4 noise", "concat", "dash", "sdp", "subtitles", "avi noise", "flv noise", "ogg noise",
         "mpeg noise", "ts noise"],
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
async def test_a_damaged_file_harms_at_most_its_own_job(decoder: Thumbnailer, kind: str) -> None:
    """Each is decoded or refused. Whatever it does to the libraries, the next file is decoded."""
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


async def test_the_thumbnail_of_a_photo_cut_short_shows_what_is_there(decoder: Thumbnailer) -> None:
    data = samples.picture("jpeg")
    seen = await picture(decoder, data[: len(data) * 2 // 3])
    assert near(samples.pixel(opened(seen.thumbnails["256.webp"]).convert("RGB"), (30, 30)), RED)


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
async def test_a_file_is_tried_again_if_its_decoder_hangs_or_dies(fault: signal.Signals) -> None:
    decoder = Thumbnailer(1, **LIMITS)
    await picture(decoder, samples.picture())
    [child] = decoder._idle
    os.kill(child.process.pid, fault)
    if fault == signal.SIGSTOP:
        decoder.timeout = 0.1
    task = asyncio.create_task(picture(decoder, samples.picture()))
    while child.process.poll() is None:  # noqa: ASYNC110
        await asyncio.sleep(0)
    decoder.timeout = LIMITS["timeout"]  # for the next decoder, which is starting now
    assert (await task).width == 400
    assert decoder._idle != [child]
    await decoder.close()


@pytest.fixture
def endless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every avatar be an endless job for a decoder."""
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


async def test_if_no_decoder_starts_the_file_was_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
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
