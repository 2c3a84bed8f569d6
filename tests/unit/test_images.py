"""What the decoders make of images, in real processes."""

from __future__ import annotations

import io
import os
import struct

import pillow_heif
import pytest
from PIL import Image, ImageOps

from media_gallery.models import AVATAR_SIZES
from media_gallery.thumbnails import Thumbnailer, Undecodable
from tests import samples
from tests.samples import GREEN, RED
from tests.unit.decoding import LIMITS, avatar, is_upright, near, opened, picture, put, shows, shows_pq_quarters


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


async def test_a_thumbnail_made_again_is_the_same(decoder: Thumbnailer) -> None:
    kept = await avatar(decoder, samples.picture("png", 400, 400))
    fd = put(kept.data)
    made = await decoder.avatar_thumbnails(fd, [48, 96], "png")
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


@pytest.mark.parametrize("kind", ["gif", "webp", "avif"])
async def test_the_first_frame_of_an_animation_is_shown(decoder: Thumbnailer, kind: str) -> None:
    data = samples.animated(kind)
    seen, kept = await picture(decoder, data), await avatar(decoder, data)
    assert (seen.width, seen.height) == (100, 100)
    for image in (seen.thumbnails["256.webp"], kept.data, kept.thumbnails["64.webp"]):
        assert near(samples.pixel(opened(image).convert("RGB"), (10, 10)), RED)
        assert getattr(opened(image), "n_frames", 1) == 1


async def test_a_page_behind_an_image_is_dropped_from_an_avatar(decoder: Thumbnailer) -> None:
    kept = await avatar(decoder, samples.polyglot())
    assert is_upright(opened(kept.data))
    assert not any(b"script" in data for data in (kept.data, *kept.thumbnails.values()))


async def test_transparency_stays(decoder: Thumbnailer) -> None:
    clear = Image.new("RGBA", (100, 100), (255, 0, 0, 0))
    for kind in ("png", "webp", "tiff", "gif", "avif", "heic", "bmp"):
        data = samples.alpha_bmp(clear) if kind == "bmp" else samples.encoded(clear, kind)
        seen, kept = await picture(decoder, data), await avatar(decoder, data)
        for image in (
            seen.thumbnails["256.webp"],
            kept.data,
            kept.thumbnails[f"64.{'png' if kind == 'png' else 'webp'}"],
        ):
            assert samples.pixel(opened(image).convert("RGBA"), (5, 5))[3] == 0, kind


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


async def test_the_canvas_around_a_smaller_first_frame_is_transparent(decoder: Thumbnailer) -> None:
    frame = samples.encoded(samples.quarters(100, 100), "gif")
    at = frame.index(b",\0\0\0\0\x64\0\x64\0")  # the image's place on the canvas; the canvas has its size in the header
    for width, height, left, top in ((300, 200, 100, 50), (120, 300, 0, 200), (100, 100, 0, 0)):
        place = struct.pack("<HH", left, top)
        data = frame[:6] + struct.pack("<HH", width, height) + frame[10 : at + 1] + place + frame[at + 5 :]
        seen, kept = await picture(decoder, data), await avatar(decoder, data)
        with pytest.raises(Undecodable):
            await avatar(decoder, data[: len(data) - 80])
        assert (seen.width, seen.height, kept.width) == (width, height, min(width, height))
        wanted = Image.new("RGBA", (width, height))
        wanted.paste(samples.quarters(100, 100), (left, top))
        for image in (seen.thumbnails["256.webp"], kept.data, kept.thumbnails["64.webp"]):
            shown = opened(image).convert("RGBA")
            square = ImageOps.fit(wanted, shown.size, Image.Resampling.BOX)
            for point in ((x * shown.width // 8, y * shown.width // 8) for x in (1, 3, 5, 7) for y in (1, 3, 5, 7)):
                there, right = samples.pixel(shown, point), samples.pixel(square, point)
                assert abs(there[3] - right[3]) < 30 and (right[3] == 0 or near(there[:3], right[:3]))


@pytest.mark.parametrize("kind", ["heic 8", "heic 10", "heic 12", "avif 10"])
async def test_colours_of_high_dynamic_range(decoder: Thumbnailer, kind: str) -> None:
    if kind == "avif 10":
        before = os.sched_getscheduler(0)
        data = samples.wide_film("smpte2084", samples.PQ_QUARTERS, "avif", "libsvtav1")
        assert os.sched_getscheduler(0) == before  # the encoder changes it for root
    else:
        data = samples.wide_heic(int(kind.split()[1]))
    seen, kept = await picture(decoder, data), await avatar(decoder, data)
    for image in (seen.thumbnails["256.webp"], kept.data, kept.thumbnails["32.webp"]):
        assert shows_pq_quarters(opened(image))


@pytest.mark.parametrize("bits", [10, 12])
async def test_grey_of_more_bits(decoder: Thumbnailer, bits: int) -> None:
    grey = b"".join(struct.pack("<H", 0x6400) * 31 + struct.pack("<H", 0xC800) * 31 for _ in range(40))
    heif = pillow_heif.from_bytes("I;16", (62, 40), grey)
    out = io.BytesIO()
    heif.save(out, quality=95, bit_depth=bits)
    seen, kept = await picture(decoder, out.getvalue()), await avatar(decoder, out.getvalue())
    for image in (seen.thumbnails["256.webp"], kept.data):
        shown = opened(image).convert("L")
        assert shown.getpixel((shown.width // 4, 5)) == pytest.approx(0x64, abs=3)
        assert shown.getpixel((shown.width * 3 // 4, 5)) == pytest.approx(0xC8, abs=3)


@pytest.mark.parametrize("kind", ["jpeg", "png", "tiff", "webp", "avif"])
async def test_grey_with_a_profile(decoder: Thumbnailer, kind: str) -> None:
    """The profile is linear, so half of the highest value is 188 in sRGB."""
    mode = "L" if kind in ("jpeg", "png", "tiff") else "RGB"
    profile = samples.grey_profile() if mode == "L" else None
    data = samples.encoded(Image.new(mode, (90, 60), (128,) * len(mode)), kind, icc_profile=profile)
    seen, kept = await picture(decoder, data), await avatar(decoder, data)
    value = 188 if profile else 128
    assert opened(seen.thumbnails["256.webp"]).convert("L").getpixel((9, 9)) == pytest.approx(value, abs=3)
    assert opened(kept.thumbnails["256.webp"]).convert("L").getpixel((9, 9)) == pytest.approx(value, abs=3)
    assert opened(kept.data).info.get("icc_profile") == profile
    assert opened(kept.data).convert("L").getpixel((9, 9)) == pytest.approx(128, abs=3)


async def test_tiff_with_long_offsets(decoder: Thumbnailer) -> None:
    data = samples.picture("tiff", big_tiff=True)
    assert data[:4] == b"II+\0"
    assert is_upright(opened((await picture(decoder, data)).thumbnails["256.webp"]))
    assert is_upright(opened((await avatar(decoder, data)).data))


@pytest.mark.parametrize("progressive", [False, True])
async def test_a_jpeg_without_its_end_marker_is_whole(decoder: Thumbnailer, progressive: bool) -> None:
    data = samples.encoded(Image.effect_noise((300, 200), 80), "jpeg", progressive=progressive)
    assert data[-2:] == b"\xff\xd9"
    kept = await avatar(decoder, data[:-2])
    assert kept.data == (await avatar(decoder, data)).data
    for cut in (3000, 10_000):
        with pytest.raises(Undecodable):
            await avatar(decoder, data[:-cut])


async def test_photos_of_large_sensors(decoder: Thumbnailer) -> None:
    """200 megapixels are many more than may be decoded, but a JPEG can be decoded at a smaller size."""
    size = (16_320, 12_240)
    seen = await picture(decoder, samples.encoded(Image.new("L", size, 99), "jpeg"))
    assert (seen.width, seen.height) == size
    assert opened(seen.thumbnails["256.webp"]).convert("L").getpixel((9, 9)) == pytest.approx(99, abs=3)


async def test_what_is_held_at_once_fits_into_memory() -> None:
    """A progressive JPEG needs memory for the whole, others only for some rows. The headers here state false sizes."""
    small = Thumbnailer(1, **LIMITS | {"memory": 128 << 20, "max_pixels": 10**9})
    little, large = Image.new("L", (77, 77)), (8000, 8000)
    for kind, order, megabytes in (("jpeg", ">HH", 0), ("progressive", ">HH", 128), ("gif", "<HH", 384)):
        how = {"progressive": True} if kind == "progressive" else {}
        whole = samples.encoded(little, "jpeg" if how else kind, **how)
        data = whole.replace(struct.pack(order, 77, 77), struct.pack(order, *large))
        if megabytes:
            with pytest.raises(Undecodable, match=f"{megabytes} MB"):
                await picture(small, data)
        else:
            assert (await picture(small, data)).width == large[0]
    await small.close()
