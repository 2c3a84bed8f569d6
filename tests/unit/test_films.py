"""What the decoders make of films, in real processes. The tests make the films."""

from __future__ import annotations

import io
import os
from fractions import Fraction
from pathlib import Path

import av
import pytest
from PIL import Image

from media_gallery.decoder import films, source
from media_gallery.media_types import FILMS
from media_gallery.thumbnails import Thumbnailer, Undecodable
from tests import samples
from tests.samples import BLUE, GREEN, RED, WHITE
from tests.unit.decoding import is_upright, opened, picture, put, shows, shows_pq_quarters


@pytest.mark.parametrize(
    ("container", "codec"),
    [("mp4", "libx264"), ("mp4", "mpeg4"), ("mp4", "libx265"), ("mov", "libx264"), ("webm", "libvpx"),
     ("webm", "libvpx-vp9"), ("matroska", "libx264"), ("avi", "mpeg4"), ("mpegts", "libx264"), ("mpegts", "mpeg2video"),
     ("flv", "flv"), ("ogg", "libvpx"), ("asf", "wmv2"), ("mpeg", "mpeg2video")],
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


async def test_a_film_of_a_camera_with_a_time_before_each_packet(decoder: Thumbnailer) -> None:
    data = samples.film("mpegts", muxer={"mpegts_m2ts_mode": "1"})
    assert data[4] == data[196] == 0x47
    assert is_upright(opened((await picture(decoder, data, "video")).thumbnails["256.webp"]))


@pytest.mark.parametrize("codec", ["libx264", "mpeg2video"])
async def test_a_stream_that_begins_in_its_middle(decoder: Thumbnailer, codec: str) -> None:
    data = samples.film("mpegts", codec, seconds=4, options={"g": "10"})
    seen = await picture(decoder, data[len(data) // 188 // 3 * 188 :], "video")
    assert is_upright(opened(seen.thumbnails["256.webp"]))


@pytest.mark.parametrize("container", ["mp4", "matroska"])
async def test_a_film_with_one_key_frame_and_pictures_out_of_order(decoder: Thumbnailer, container: str) -> None:
    """By default x264 makes such a file of any film that is longer than a few seconds."""
    data = samples.film(container, seconds=12, width=64, height=48, options={"bf": "8", "g": "1000"})
    seen = await picture(decoder, data, "video")
    assert is_upright(opened(seen.thumbnails["256.webp"]))


async def test_a_film_in_fragments(decoder: Thumbnailer) -> None:
    data = samples.film(muxer={"movflags": "frag_keyframe+empty_moov"}, options={"g": "5"})
    assert is_upright(opened((await picture(decoder, data, "video")).thumbnails["256.webp"]))


@pytest.mark.parametrize("frame", [1, 7])
async def test_a_cut_film_has_the_first_picture_that_players_show(decoder: Thumbnailer, frame: int) -> None:
    seen = await picture(decoder, samples.cut_film(frame), "video")
    assert is_upright(opened(seen.thumbnails["256.webp"]))


@pytest.mark.parametrize("colour", [(0, 0, 0), (12, 12, 14), (250, 250, 250), RED])
async def test_a_later_picture_is_taken_if_the_first_shows_nothing(
    decoder: Thumbnailer, colour: tuple[int, int, int]
) -> None:
    frames = [Image.new("RGB", (320, 180), colour)] * 20 + [samples.quarters(320, 180)] * 20
    seen = await picture(decoder, samples.film(frames=frames, options={"g": "10"}), "video")
    assert is_upright(opened(seen.thumbnails["256.webp"]))


async def test_a_film_of_one_colour_has_a_poster_of_that_colour(decoder: Thumbnailer) -> None:
    seen = await picture(decoder, samples.film(colour=BLUE, options={"g": "5"}), "video")
    assert shows(opened(seen.thumbnails["256.webp"]), BLUE, BLUE, BLUE, BLUE)


TURNED = {
    (1, 0, 0, 1): (RED, GREEN, BLUE, WHITE), (-1, 0, 0, 1): (GREEN, RED, WHITE, BLUE),
    (-1, 0, 0, -1): (WHITE, BLUE, GREEN, RED), (1, 0, 0, -1): (BLUE, WHITE, RED, GREEN),
    (0, 1, 1, 0): (RED, BLUE, GREEN, WHITE), (0, 1, -1, 0): (BLUE, RED, WHITE, GREEN),
    (0, -1, -1, 0): (WHITE, GREEN, BLUE, RED), (0, -1, 1, 0): (GREEN, WHITE, RED, BLUE),
    (0.7071, 0.7071, -0.7071, 0.7071): (RED, GREEN, BLUE, WHITE), (0, 0, 0, 0): (RED, GREEN, BLUE, WHITE),
    (0.9999, 0.01, -0.01, 0.9999): (RED, GREEN, BLUE, WHITE),
}  # fmt: skip
"""Display matrices, and the corners that players show. Only quarter turns count; other angles are ignored."""


@pytest.mark.parametrize(("matrix", "corners"), TURNED.items())
async def test_films_are_turned_and_mirrored(
    decoder: Thumbnailer, matrix: tuple[float, ...], corners: tuple[tuple[int, int, int], ...]
) -> None:
    seen = await picture(decoder, samples.with_matrix(samples.film(seconds=0.5), *matrix), "video")
    assert (seen.width, seen.height) == ((180, 320) if matrix[0] == 0 and matrix[1] else (320, 180))
    assert shows(opened(seen.thumbnails["256.webp"]), *corners)


@pytest.mark.parametrize(
    ("aspect", "size"),
    [(Fraction(4, 3), (640, 360)), (Fraction(8, 9), (427, 360)), (Fraction(1), (480, 360)), (Fraction(99), (480, 360))],
)
async def test_pixels_that_are_not_square(decoder: Thumbnailer, aspect: Fraction, size: tuple[int, int]) -> None:
    seen = await picture(decoder, samples.film(width=480, height=360, seconds=0.5, aspect=aspect), "video")
    assert (seen.width, seen.height) == size
    frame = samples.quarters(480, 360)
    frame.paste((0, 0, 0), (180, 135, 300, 225))  # with the same ratio of width to height as the whole
    data = samples.film(width=480, height=360, frames=[frame], aspect=aspect)
    poster = opened((await picture(decoder, data, "video")).thumbnails["256.webp"]).convert("L")
    across = sum(samples.pixel(poster, (x, 128))[0] < 15 for x in range(256))
    down = sum(samples.pixel(poster, (128, y))[0] < 15 for y in range(256))
    assert across / down == pytest.approx(size[0] / size[1], rel=0.05)


@pytest.mark.parametrize(
    ("transfer", "signal", "value"),
    [("arib-std-b67", 0.38, 100), ("smpte2084", 0.38, 100), ("arib-std-b67", 0.75, 243), ("smpte2084", 0.58, 243),
     ("arib-std-b67", 1, 254), ("smpte2084", 1, 255), ("arib-std-b67", 0, 0), ("smpte2084", 0, 0)],
)  # fmt: skip
async def test_light_of_high_dynamic_range(decoder: Thumbnailer, transfer: str, signal: float, value: int) -> None:
    """Grey of 18 % and reference white by ITU-R BT.2408, table 1; brighter light becomes only a little brighter."""
    colour = (round(signal * 65535),) * 3
    seen = await picture(decoder, samples.wide_film(transfer, [colour] * 4), "video")
    shown = opened(seen.thumbnails["256.webp"]).convert("RGB").getpixel((128, 128))
    assert shown == pytest.approx((value,) * 3, abs=5)


async def test_colours_of_high_dynamic_range(decoder: Thumbnailer) -> None:
    seen = await picture(decoder, samples.wide_film("smpte2084", samples.PQ_QUARTERS), "video")
    assert shows_pq_quarters(opened(seen.thumbnails["256.webp"]))


@pytest.mark.parametrize(
    ("container", "codec", "pixels"),
    [("webm", "libvpx", "yuva420p"), ("webm", "libvpx-vp9", "yuva420p"), ("mov", "prores_ks", "yuva444p10le"),
     ("mov", "png", "rgba"), ("mov", "qtrle", "argb")],
)  # fmt: skip
async def test_films_with_transparency(decoder: Thumbnailer, container: str, codec: str, pixels: str) -> None:
    clear = samples.quarters(64, 48).convert("RGBA")
    clear.paste((255, 0, 0, 0), (0, 0, 32, 48))
    frame = av.VideoFrame.from_bytes(clear.tobytes(), 64, 48, "rgba")
    how = {"auto-alt-ref": "0"} if codec == "libvpx" else {}
    frames = [frame.reformat(format=pixels)] * 3
    data = samples.film(container, codec, 64, 48, frames=frames, pixels=pixels, options=how)
    poster = opened((await picture(decoder, data, "video")).thumbnails["256.webp"])
    assert poster.mode == "RGBA"
    assert samples.pixel(poster, (40, 128))[3] < 20 and samples.pixel(poster, (220, 128))[3] > 235


def test_a_search_ends_where_enough_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(films, "READ", 100)
    file = films._File(io.BytesIO(bytes(1000)))
    file.seek(500)
    assert [len(file.read(60)) for _ in range(3)] == [60, 40, 0]


def test_a_search_ends_where_enough_time_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(films, "TIME", -1)
    fd = put(samples.film(seconds=0.5))
    with pytest.raises(source.Refused, match="without a picture"):
        films.picture_of_film(source.Source(fd, source.Limits(cpu_seconds=60, memory=1 << 30, max_pixels=10**6)))
    os.close(fd)


@pytest.mark.parametrize("demuxer", ["concat", "hls"])
def test_no_other_file_is_opened(tmp_path: Path, demuxer: str) -> None:
    """Not even by demuxers whose purpose is to open other files; we use none of them."""
    assert demuxer not in FILMS
    other = tmp_path / "other.ts"
    other.write_bytes(samples.film("mpegts", "mpeg2video"))
    lists = {
        "concat": f"ffconcat version 1.0\nfile '{other}'\n",
        "hls": f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:10,\nfile://{other}\n#EXT-X-ENDLIST\n",
    }
    options = {"safe": "0", "protocol_whitelist": "file"}
    with av.open(io.BytesIO(lists[demuxer].encode()), format=demuxer, options=options) as film:
        assert next(film.decode(video=0)).width == 320
    with pytest.raises((source.Refused, av.FFmpegError)):
        films.opened(io.BytesIO(lists[demuxer].encode()), demuxer, options)
