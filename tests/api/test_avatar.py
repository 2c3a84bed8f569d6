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


def test_the_object_tells_of_what_is_kept(anna: User) -> None:
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
    [("png", "png", "PNG"), ("jpeg", "jpg", "JPEG"), ("webp", "webp", "WEBP"), ("gif", "webp", "WEBP")],
)
def test_thumbnails_are_ready_before_the_answer(anna: User, kind: str, ext: str, format: str) -> None:
    avatar = anna.avatar(samples.picture(kind, 300, 300), f"selfie_avatar.{kind}")
    wanted = [size for size in SIZES if size < 300]
    assert [thumbnail["width"] for thumbnail in avatar["thumbnails"]] == wanted
    for thumbnail in avatar["thumbnails"]:
        size = thumbnail["width"]
        assert thumbnail["height"] == size
        assert thumbnail["url"] == f"{anna.service.url}/media/{avatar['slot_id']}/{size}_selfie_avatar.{ext}"
        image = opened(anna, thumbnail["url"])
        assert (image.size, image.format) == ((size, size), format)
        assert anna.http.head(thumbnail["url"]).headers["Content-Type"] == f"image/{'jpeg' if ext == 'jpg' else ext}"


def test_an_avatar_larger_than_1536_is_scaled_down(anna: User) -> None:
    avatar = anna.avatar(samples.picture("jpeg", 2000, 1700), "big.jpg")
    assert avatar["width"] == opened(anna, avatar["file"]).width == 1536
    assert [thumbnail["width"] for thumbnail in avatar["thumbnails"]] == SIZES


def test_a_small_avatar_is_not_scaled_up(anna: User) -> None:
    avatar = anna.avatar(samples.picture("png", 48, 60), "small.png")
    assert avatar["width"] == 48
    assert [thumbnail["width"] for thumbnail in avatar["thumbnails"]] == [32]


def test_it_stands_upright_and_says_nothing_of_its_owner(anna: User) -> None:
    avatar = anna.avatar(samples.oriented(6, 300, 400), "selfie.jpg")
    image = opened(anna, avatar["file"]).convert("RGB")
    assert image.getpixel((10, 10))[0] > 150  # type: ignore[index]
    avatar = anna.avatar(samples.located("jpeg"), "located.jpg")
    kept = anna.http.get(avatar["file"]).content
    assert b"SECRETCAMERA" not in kept and not Image.open(io.BytesIO(kept)).getexif()


def test_without_thumbnails(anna: User) -> None:
    for field in ("create_thumbnails", "create_thumbnail"):
        avatar = anna.avatar(samples.picture("png", 300, 300), "plain.png", **{field: "false"})
        assert avatar["thumbnails"] == []
        assert avatar["thumbnail"] is None
        url = f"/media/{avatar['slot_id']}/48_plain.png"
        assert_error(anna.service.http.get(url), 404)


@pytest.mark.parametrize(
    "data",
    [b"text", b"", samples.SVG, samples.POLYGLOT_GIF, samples.png_lie(60_000, 60_000), b"\xff\xd8\xff" + b"x" * 99],
)
def test_what_is_no_image_is_415_and_leaves_nothing(anna: User, data: bytes) -> None:
    before = anna.service.stored_bytes()
    assert_error(anna.send(data, "selfie.jpg", "image/jpeg", "avatar/upload/"), 415)
    assert anna.used() == 0 and anna.service.stored_bytes() == before


def test_a_film_is_no_avatar(anna: User) -> None:
    assert_error(anna.send(samples.film(), "me.mp4", "video/mp4", "avatar/upload/"), 415)


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


def test_an_avatar_is_deleted_by_its_id(anna: User, boris: User) -> None:
    avatar, file = anna.avatar(samples.picture("png", 90, 90)), anna.upload(b"plain")
    assert_error(boris.delete("avatar/", id=avatar["id"]), 404)
    assert_error(anna.delete("avatar/", id=file["id"]), 404)
    assert_error(anna.delete("avatar/"), 400, "id")
    assert anna.delete("avatar/", id=avatar["id"]).status_code == 204
    assert_error(anna.delete("avatar/", id=avatar["id"]), 404)
    for url in (avatar["file"], avatar["thumbnails"][0]["url"]):
        assert_error(anna.http.get(url), 404)


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
