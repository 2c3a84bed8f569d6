"""Thumbnails of images and films, and files that have none."""

from __future__ import annotations

import io
import os

import pytest
from PIL import Image

from tests import samples
from tests.service import User, assert_error


def thumbnail(user: User, url: str) -> Image.Image:
    answer = user.http.get(url)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "image/webp"
    return Image.open(io.BytesIO(answer.content))


@pytest.mark.parametrize("kind", samples.FORMATS)
def test_images(anna: User, kind: str) -> None:
    data = samples.picture(kind)
    file = anna.upload(data, f"holiday.photo.{kind}", f"image/{kind}")
    url = f"{anna.service.url}/media/{file['slot_id']}/thumb_holiday.photo.webp"
    assert file["thumbnail"] == {"url": url, "width": 256, "height": 256}
    assert (file["width"], file["height"]) == (400, 300)
    assert thumbnail(anna, url).size == (256, 256)
    assert anna.http.get(file["file"]).content == data  # the original is never altered


def test_measures_are_those_of_the_image_as_it_is_seen(anna: User) -> None:
    file = anna.upload(samples.oriented(6, 300, 200), "turned.jpg", "image/jpeg")
    assert (file["width"], file["height"]) == (300, 200)


@pytest.mark.parametrize(
    ("container", "media_type"), [("mp4", "video/mp4"), ("mov", "video/quicktime"), ("matroska", "video/x-matroska")]
)
def test_films(anna: User, container: str, media_type: str) -> None:
    file = anna.upload(samples.film(container), "film.mp4", media_type)
    assert (file["width"], file["height"]) == (320, 180)
    assert thumbnail(anna, file["thumbnail"]["url"]).size == (256, 256)


def test_names_with_other_letters(anna: User) -> None:
    file = anna.upload(samples.picture("png"), "Отпуск & море #1.png", "image/png")
    assert file["thumbnail"]["url"].endswith(
        "thumb_%D0%9E%D1%82%D0%BF%D1%83%D1%81%D0%BA%20%26%20%D0%BC%D0%BE%D1%80%D0%B5%20%231.webp"
    )
    assert thumbnail(anna, file["thumbnail"]["url"]).size == (256, 256)


def test_a_name_of_full_length(anna: User) -> None:
    file = anna.upload(samples.picture("png"), "n" * 251 + ".png", "image/png")
    assert len(file["name"]) == 255
    assert thumbnail(anna, file["thumbnail"]["url"]).size == (256, 256)


def test_encrypted_bytes_under_an_images_name_are_kept_as_they_are(anna: User) -> None:
    data = os.urandom(50_000)
    file = anna.upload(data, "photo.jpg", "image/jpeg")
    assert file["media_type"] == "image/jpeg"
    assert file["thumbnail"] is None and file["width"] is None
    answer = anna.http.get(file["file"])
    assert (answer.content, answer.headers["Content-Type"]) == (data, "image/jpeg")


def test_a_thumbnail_that_cannot_be_made_is_a_placeholder(anna: User) -> None:
    file = anna.upload(samples.png_lie(50_000, 50_000), "huge.png", "image/png")
    assert file["thumbnail"] is None
    assert thumbnail(anna, f"/media/{file['slot_id']}/thumb_huge.webp".join([anna.service.url, ""])).size == (256, 256)


def test_no_thumbnails_where_none_are_wanted(anna: User) -> None:
    file = anna.upload(samples.picture("png"), "plain.png", "image/png", create_thumbnails="false")
    assert file["thumbnail"] is None
    assert_error(anna.service.http.get(f"/media/{file['slot_id']}/thumb_plain.webp"), 404)


def test_other_files_have_none(anna: User) -> None:
    for name, media_type in (("a.txt", "text/plain"), ("a.ogg", "audio/ogg"), ("a.pdf", "application/pdf")):
        file = anna.upload(b"bytes", name, media_type)
        assert file["thumbnail"] is None
        assert_error(anna.service.http.get(f"/media/{file['slot_id']}/thumb_a.webp"), 404)


def test_every_link_to_the_same_image_has_its_thumbnail(anna: User, boris: User) -> None:
    data = samples.picture("png", 210, 190)
    files = [anna.upload(data, "one.png"), anna.upload(data, "two.png"), boris.upload(data, "three.png")]
    slot = anna.get("files/slot/", name="four.png", size=len(data), hash=files[0]["hash"]).json()
    for file in (*files, slot):
        assert (file["width"], file["height"]) == (210, 190)
    anna.delete("files/", id=files[0]["id"])
    for user, file in ((anna, files[1]), (boris, files[2]), (anna, slot)):
        assert thumbnail(user, file["thumbnail"]["url"]).size == (256, 256)


def test_a_thumbnail_that_got_lost_is_made_again(anna: User) -> None:
    file = anna.upload(samples.picture("png", 222, 111), "lost.png")
    avatar = anna.avatar(samples.picture("png", 111, 222), "lost_too.png")
    for path in (anna.service.data_dir / "thumbs").rglob("*.*"):
        if path.is_file():
            path.unlink()
    assert thumbnail(anna, file["thumbnail"]["url"]).size == (256, 256)
    for made in avatar["thumbnails"]:
        answer = anna.http.get(made["url"])
        assert Image.open(io.BytesIO(answer.content)).size == (made["width"], made["height"])


def test_the_tree_of_links_leads_to_the_files(anna: User) -> None:
    data = samples.picture("png", 120, 130)
    avatar, file = anna.avatar(data), anna.upload(data, "plain.png")
    for item in (avatar, file):
        place = anna.service.data_dir / "links" / item["slot_id"][:2] / item["slot_id"]
        assert (place / item["name"]).read_bytes() == anna.http.get(item["file"]).content
        for made in [item["thumbnail"], *item.get("thumbnails", [])]:
            assert (place / made["url"].rpartition("/")[2]).read_bytes() == anna.http.get(made["url"]).content
