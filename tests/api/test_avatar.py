"""`avatar/`: the square that is kept, its thumbnails, lists and deletion."""

from __future__ import annotations

import hashlib
import io

import pytest
from PIL import Image

from tests import samples
from tests.service import User, assert_error

SIZES = [32, 48, 64, 96, 128, 192, 256, 384, 512, 768]


def opened(user: User, url: str) -> Image.Image:
    answer = user.http.get(url)
    assert answer.status_code == 200
    return Image.open(io.BytesIO(answer.content))


def test_the_object_describes_the_stored_avatar(anna: User) -> None:
    sent = samples.picture("png", 500, 300)
    avatar = anna.avatar(sent, "selfie_avatar.png")
    kept = anna.http.get(avatar["file"]).content
    assert kept != sent
    assert Image.open(io.BytesIO(kept)).size == (300, 300)
    assert (avatar["size"], avatar["hash"]) == (len(kept), hashlib.sha1(kept).hexdigest())
    assert avatar["hashes"]["sha-256"] == hashlib.sha256(kept).hexdigest()
    assert (avatar["width"], avatar["height"]) == (300, 300)
    assert (avatar["context"], avatar["is_avatar"], avatar["media_type"]) == ("avatar", True, "image/png")
    assert avatar["used"] == len(kept) == anna.used()


@pytest.mark.parametrize(
    ("kind", "ext", "format"),
    [("png", "png", "PNG"), ("jpeg", "jpg", "JPEG"), ("webp", "webp", "WEBP"), ("gif", "webp", "WEBP"),
     ("tiff", "webp", "WEBP"), ("bmp", "webp", "WEBP"), ("heic", "webp", "WEBP"), ("avif", "webp", "WEBP")],
)  # fmt: skip
def test_thumbnails_are_ready_before_the_answer(anna: User, kind: str, ext: str, format: str) -> None:
    before = anna.service.stored("thumbs")
    avatar = anna.avatar(samples.picture(kind, 298, 298), f"selfie_avatar.{kind}")
    wanted = [size for size in SIZES if size < 298]
    made = {path.rpartition("/")[2] for path in anna.service.stored("thumbs") - before}
    assert made >= {f"{size}.{ext}" for size in wanted}  # so they are not made on demand
    assert (avatar["media_type"], avatar["name"]) == (f"image/{kind}", f"selfie_avatar.{kind}")
    assert [thumbnail["width"] for thumbnail in avatar["thumbnails"]] == wanted
    for thumbnail in avatar["thumbnails"]:
        size = thumbnail["width"]
        assert thumbnail["height"] == size
        assert thumbnail["url"] == f"{anna.service.url}/media/{avatar['slot_id']}/{size}_selfie_avatar.{ext}"
        image = opened(anna, thumbnail["url"])
        assert (image.size, image.format) == ((size, size), format)
        assert anna.http.head(thumbnail["url"]).headers["Content-Type"] == f"image/{'jpeg' if ext == 'jpg' else ext}"
    url = f"{anna.service.url}/media/{avatar['slot_id']}/thumb_selfie_avatar.webp"
    assert avatar["thumbnail"] == {"url": url, "width": 256, "height": 256}
    assert opened(anna, url).size == (256, 256)


def test_an_avatar_larger_than_1536_is_scaled_down(anna: User) -> None:
    avatar = anna.avatar(samples.picture("jpeg", 2000, 1700), "big.jpg")
    assert avatar["width"] == opened(anna, avatar["file"]).width == 1536
    assert [thumbnail["width"] for thumbnail in avatar["thumbnails"]] == SIZES
    for thumbnail in avatar["thumbnails"]:
        assert opened(anna, thumbnail["url"]).size == (thumbnail["width"], thumbnail["width"])


@pytest.mark.parametrize(("side", "sizes"), [(32, []), (33, [32]), (256, SIZES[:6]), (257, SIZES[:7])])
def test_only_thumbnails_smaller_than_the_avatar_are_there(anna: User, side: int, sizes: list[int]) -> None:
    avatar = anna.avatar(samples.picture("png", side, side), "edge.png")
    assert [thumbnail["width"] for thumbnail in avatar["thumbnails"]] == sizes
    for size in SIZES:
        answer = anna.service.http.get(f"/media/{avatar['slot_id']}/{size}_edge.png")
        assert answer.status_code == (200 if size in sizes else 404)
        assert anna.service.http.get(f"/media/{avatar['slot_id']}/{size}_edge.webp").status_code == 404


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("Я & море №1.png", "%D0%AF%20%26%20%D0%BC%D0%BE%D1%80%D0%B5%20%E2%84%961"),
        ("selfie", "selfie"),
        ("a.b.c.png", "a.b.c"),
        ("50%_off?#.png", "50%25_off%3F%23"),
    ],
)
def test_names_of_thumbnails(anna: User, name: str, stem: str) -> None:
    avatar = anna.avatar(samples.picture("png", 50, 50), name)
    assert [t["url"].rpartition("/")[2] for t in avatar["thumbnails"]] == [f"32_{stem}.png", f"48_{stem}.png"]
    for thumbnail in avatar["thumbnails"]:
        assert opened(anna, thumbnail["url"]).width == thumbnail["width"]


def test_a_name_of_full_length(anna: User) -> None:
    avatar = anna.avatar(samples.picture("png", 100, 100), "я" * 125 + ".png")
    assert len(avatar["name"].encode()) == 254
    for thumbnail in avatar["thumbnails"]:
        assert opened(anna, thumbnail["url"]).width == thumbnail["width"]


def test_the_format_is_that_of_the_bytes_whatever_was_said(anna: User) -> None:
    avatar = anna.upload(
        samples.picture("png", 50, 50), "selfie.jpg", "image/jpeg", path="avatar/upload/", media_type="text/plain"
    )
    assert avatar["media_type"] == "image/png" == anna.http.head(avatar["file"]).headers["Content-Type"]
    assert avatar["thumbnails"][0]["url"].endswith("/32_selfie.png")


def test_a_small_avatar_is_not_scaled_up(anna: User) -> None:
    avatar = anna.avatar(samples.picture("png", 48, 60), "small.png")
    assert avatar["width"] == 48
    assert [thumbnail["width"] for thumbnail in avatar["thumbnails"]] == [32]


def test_it_is_upright_and_without_metadata(anna: User) -> None:
    avatar = anna.avatar(samples.oriented(6, 300, 400), "selfie.jpg")
    image = opened(anna, avatar["file"]).convert("RGB")
    assert image.size == (300, 300)
    for at, colour in (((10, 10), samples.RED), ((290, 10), samples.GREEN), ((10, 290), samples.BLUE)):
        pixel = samples.pixel(image, at)
        assert all(abs(a - b) < 60 for a, b in zip(pixel, colour, strict=True))
    avatar = anna.avatar(samples.located("jpeg"), "located.jpg")
    for url in (avatar["file"], avatar["thumbnail"]["url"], *(made["url"] for made in avatar["thumbnails"])):
        kept = anna.http.get(url).content
        assert b"SECRET" not in kept and not Image.open(io.BytesIO(kept)).getexif()


def test_an_animation_keeps_only_its_first_frame(anna: User) -> None:
    image = opened(anna, anna.avatar(samples.animated("gif", 60), "moving.gif")["file"])
    assert (image.format, getattr(image, "n_frames", 1)) == ("GIF", 1)
    assert samples.pixel(image.convert("RGB"), (5, 5))[0] > 150


def test_without_thumbnails(anna: User) -> None:
    for field in ("create_thumbnails", "create_thumbnail"):
        avatar = anna.avatar(samples.picture("png", 300, 300), "plain.png", **{field: "false"})
        assert avatar["thumbnails"] == []
        assert opened(anna, avatar["thumbnail"]["url"]).size == (256, 256)  # for web pages: it is made on demand
        url = f"/media/{avatar['slot_id']}/48_plain.png"
        assert_error(anna.service.http.get(url), 404)


def test_thumbnails_may_come_with_a_later_upload_of_the_same(anna: User) -> None:
    image = samples.picture("png", 70, 70)
    without = anna.avatar(image, "a.png", create_thumbnails=False)
    again = anna.avatar(image, "a.png")
    assert without["hash"] == again["hash"] and without["thumbnails"] == []
    assert [opened(anna, made["url"]).width for made in again["thumbnails"]] == [32, 48, 64]
    plain = anna.upload(anna.http.get(without["file"]).content, "plain.png")
    assert opened(anna, plain["thumbnail"]["url"]).size == (256, 256)


@pytest.mark.parametrize(
    "data",
    [b"text", b"", samples.SVG, samples.HTML, samples.PLAYLIST, samples.POLYGLOT_GIF, samples.png_lie(60_000, 60_000),
     b"\xff\xd8\xff" + b"x" * 99, samples.noise("jpeg")[:-500], samples.noise("png")[:5000]],
    ids=["text", "empty", "svg", "html", "playlist", "script", "lie", "no jpeg", "cut jpeg", "cut png"],
)  # fmt: skip
def test_what_is_no_image_is_415_and_leaves_nothing(anna: User, data: bytes) -> None:
    before = anna.service.stored_bytes()
    assert_error(anna.send(data, "selfie.jpg", "image/jpeg", "avatar/upload/"), 415)
    assert anna.used() == 0 and anna.service.stored_bytes() == before


def test_a_film_is_no_avatar(anna: User) -> None:
    for container, codec, name in (("mp4", "libx264", "me.mp4"), ("webm", "libvpx", "me.png")):
        assert_error(anna.send(samples.film(container, codec), name, "image/png", "avatar/upload/"), 415)
    assert_error(anna.send(samples.film(), "me.mp4", "video/mp4", context="avatar"), 415)
    assert anna.used() == 0


def test_an_upload_with_context_avatar_is_the_same(anna: User) -> None:
    avatar = anna.upload(samples.picture("png", 100, 100), "selfie.png", context="avatar")
    assert avatar["is_avatar"] and avatar["thumbnails"]


def test_the_sent_size_and_digest_are_those_of_the_sent_bytes(anna: User) -> None:
    sent = samples.picture("png", 100, 80)
    avatar = anna.avatar(sent, "a.png", size=len(sent), hash=hashlib.sha256(sent).hexdigest())
    assert avatar["size"] != len(sent)
    answer = anna.send(sent, "a.png", path="avatar/upload/", hash="0" * 40)
    assert_error(answer, 400, "hash")


def test_avatars_have_a_list_of_their_own(anna: User) -> None:
    avatar = anna.avatar(samples.picture("png", 100, 100))
    file = anna.upload(b"no avatar")
    page = anna.get("avatar/").json()
    assert [item["id"] for item in page["items"]] == [avatar["id"]]
    assert page["items"][0]["thumbnails"] == avatar["thumbnails"]
    assert [item["id"] for item in anna.items("files/")] == [file["id"]]
    assert [item["id"] for item in anna.items("files/", type="avatar")] == [avatar["id"]]
    assert {item["id"] for item in anna.items("files/", contexts="file,avatar")} == {avatar["id"], file["id"]}


def test_two_avatars(anna: User, boris: User) -> None:
    first, second = (anna.avatar(samples.picture("png", side, side), f"{side}.png") for side in (60, 80))
    assert [item["id"] for item in anna.items("avatar/")] == [second["id"], first["id"]]
    assert [item["id"] for item in anna.items("avatar/", order_by="id")] == [first["id"], second["id"]]
    page = anna.get("avatar/", obj_per_page=1, page=2).json()
    assert [item["id"] for item in page["items"]] == [first["id"]]
    assert (page["total_objects"], page["total_pages"], page["obj_per_page"], page["page"]) == (2, 2, 1, 2)
    assert second["used"] == anna.used() == first["size"] + second["size"]
    assert boris.items("avatar/") == []
    assert anna.delete("avatar/", id=first["id"]).status_code == 204
    assert anna.used() == second["size"]
    assert [item["id"] for item in anna.items("avatar/")] == [second["id"]]
    assert opened(anna, second["thumbnails"][0]["url"]).width == 32


def test_an_avatar_counts_against_the_quota(anna: User, admin: User) -> None:
    avatar = anna.avatar(samples.picture("png", 90, 90))
    admin.put("account/quota/", jid=anna.jid, value=avatar["size"] + 10)
    answer = anna.send(samples.picture("png", 91, 91), "other.png", path="avatar/upload/")
    body = assert_error(answer, 403)
    assert body["details"]["used"] == avatar["size"] == anna.used()
    assert len(anna.items("avatar/")) == 1


def test_an_avatar_is_deleted_by_its_id(anna: User, boris: User) -> None:
    avatar, file = anna.avatar(samples.picture("png", 90, 90)), anna.upload(b"plain")
    assert_error(boris.delete("avatar/", id=avatar["id"]), 404)
    assert_error(anna.delete("avatar/", id=file["id"]), 404)
    assert_error(anna.delete("avatar/"), 400, "id")
    assert anna.delete("avatar/", id=avatar["id"]).status_code == 204
    assert_error(anna.delete("avatar/", id=avatar["id"]), 404)
    for url in (avatar["file"], avatar["thumbnail"]["url"], *(made["url"] for made in avatar["thumbnails"])):
        assert_error(anna.http.get(url), 404)


def test_nothing_is_left_of_a_deleted_avatar(anna: User) -> None:
    before = anna.service.stored("blobs", "thumbs", "links", "staging")
    avatar = anna.avatar(samples.picture("png", 123, 123))
    anna.delete("avatar/", id=avatar["id"])
    assert anna.service.stored("blobs", "thumbs", "links", "staging") <= before
    assert anna.used() == 0


def test_the_same_avatar_twice_is_stored_once_and_deleted_apart(anna: User, boris: User) -> None:
    image = samples.picture("png", 130, 130)
    first, second = anna.avatar(image, "a.png"), boris.avatar(image, "b.png")
    assert first["hash"] == second["hash"]
    anna.delete("avatar/", id=first["id"])
    for thumbnail in second["thumbnails"]:
        assert opened(boris, thumbnail["url"]).width == thumbnail["width"]


def test_the_bytes_of_an_avatar_may_have_been_there_as_a_file(anna: User) -> None:
    avatar = anna.avatar(samples.picture("png", 200, 200))
    kept = anna.http.get(avatar["file"]).content
    anna.delete("avatar/", id=avatar["id"])
    anna.upload(kept, "file.png")
    again = anna.avatar(kept, "again.png")
    assert len(again["thumbnails"]) == len(avatar["thumbnails"])
    assert opened(anna, again["thumbnails"][0]["url"]).width == 32


def test_a_slot_for_an_avatar_links_the_avatar(anna: User) -> None:
    avatar = anna.avatar(samples.picture("png", 100, 100))
    found = anna.get("files/slot/", name="again.png", size=avatar["size"], hash=avatar["hash"], context="avatar").json()
    assert found["is_avatar"] and found["id"] != avatar["id"]
    assert opened(anna, found["thumbnails"][0]["url"]).width == 32
