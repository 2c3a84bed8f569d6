"""Thumbnails of images and films, and files that have none."""

from __future__ import annotations

import io
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest
from PIL import Image

from tests import samples
from tests.service import PATIENCE, SMALL, Service, User, anyone, assert_error


def thumbnail(user: User, url: str) -> Image.Image:
    answer = user.http.get(url)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "image/webp"
    return Image.open(io.BytesIO(answer.content))


def assert_placeholder(answer: httpx.Response) -> None:
    """A placeholder: clients keep it only for a short time, and do not take it for the thumbnail that may follow."""
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "image/webp"
    assert Image.open(io.BytesIO(answer.content)).size == (256, 256)
    assert answer.headers["Cache-Control"] == "public, max-age=60"
    assert "ETag" not in answer.headers and "Last-Modified" not in answer.headers
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def decoders(service: Service) -> list[int]:
    """The decoder processes of the service."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            ours = os.getsid(int(place.name)) == service.process.pid  # type: ignore[union-attr]
            if ours and b"media_gallery/decoder" in (place / "cmdline").read_bytes():
                found.append(int(place.name))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


@contextmanager
def stopped_decoders(user: User) -> Iterator[list[int]]:
    """Decoders that are stopped during the block."""
    first = user.upload(samples.noise("png", 20, 20), "first.png")
    thumbnail(user, first["thumbnail"]["url"])  # so that a decoder runs
    pids = decoders(user.service)
    assert pids
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield pids
    finally:
        for pid in set(pids) & set(decoders(user.service)):
            with suppress(ProcessLookupError):  # one that was killed may be ending
                os.kill(pid, signal.SIGCONT)


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
    data = samples.oriented(6, 300, 200)
    file = anna.upload(data, "turned.jpg", "image/jpeg")
    assert (file["width"], file["height"]) == (300, 200)
    seen = thumbnail(anna, file["thumbnail"]["url"]).convert("RGB")
    for at, colour in (((40, 40), samples.RED), ((216, 40), samples.GREEN), ((40, 216), samples.BLUE)):
        assert all(abs(a - b) < 60 for a, b in zip(samples.pixel(seen, at), colour, strict=True))
    assert anna.http.get(file["file"]).content == data
    [listed] = anna.items()
    assert (listed["width"], listed["height"], listed["thumbnail"]) == (300, 200, file["thumbnail"])


def test_the_metadata_of_a_photo_stay_in_the_file_and_not_in_the_thumbnail(anna: User) -> None:
    data = samples.located("jpeg")
    file = anna.upload(data, "located.jpg", "image/jpeg")
    assert anna.http.get(file["file"]).content == data
    assert b"SECRET" not in anna.http.get(file["thumbnail"]["url"]).content


@pytest.mark.parametrize(
    ("container", "codec", "media_type"),
    [("mp4", "libx264", "video/mp4"), ("mov", "libx264", "video/quicktime"), ("webm", "libvpx", "video/webm"),
     ("webm", "libvpx-vp9", "video/webm"), ("matroska", "libx264", "video/x-matroska"),
     ("avi", "mpeg4", "video/x-msvideo"), ("mpegts", "libx264", "video/mp2t"), ("asf", "wmv2", "video/x-ms-wmv")],
)  # fmt: skip
def test_films(anna: User, container: str, codec: str, media_type: str) -> None:
    data = samples.film(container, codec)
    file = anna.upload(data, "film.mp4", media_type)
    assert (file["width"], file["height"]) == (320, 180)
    assert file["thumbnail"]["url"] == f"{anna.service.url}/media/{file['slot_id']}/thumb_film.webp"
    assert thumbnail(anna, file["thumbnail"]["url"]).size == (256, 256)
    assert anna.http.get(file["file"]).content == data


def test_a_film_held_upright(anna: User) -> None:
    file = anna.upload(samples.turned_film(90), "phone.mp4", "video/mp4")
    assert (file["width"], file["height"]) == (180, 320)
    seen = thumbnail(anna, file["thumbnail"]["url"]).convert("RGB")
    assert all(abs(a - b) < 60 for a, b in zip(samples.pixel(seen, (40, 40)), samples.BLUE, strict=True))


# --- Thumbnails that are not there yet ---


@pytest.fixture(scope="module")
def hasty(start_service: Callable[..., Service]) -> Service:
    """A service whose uploads do not wait for thumbnails."""
    return start_service(THUMBNAIL_WAIT="0")


@pytest.fixture
def carla(hasty: Service) -> User:
    return hasty.user("carla")


def test_the_address_of_a_thumbnail_waits_for_it(carla: User) -> None:
    with ThreadPoolExecutor(2) as threads, stopped_decoders(carla) as pids:
        file = carla.upload(samples.picture("png", 301, 201), "slow.png", "image/png")
        assert file["thumbnail"]["url"].endswith("/thumb_slow.webp")
        asked = [threads.submit(anyone.get, file["thumbnail"]["url"], timeout=PATIENCE) for _ in range(2)]
        assert carla.http.get(file["file"]).status_code == 200  # the file itself waits for nothing
        assert not any(answer.done() for answer in asked)
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
        for answer in asked:
            assert Image.open(io.BytesIO(answer.result().content)).size == (256, 256)
            assert answer.result().headers["Cache-Control"] == "public, max-age=31536000, immutable"
    [listed] = carla.items(name="slow")
    assert (listed["width"], listed["height"]) == (301, 201)


def test_a_killed_decoder_does_not_harm_the_file(carla: User) -> None:
    with stopped_decoders(carla) as pids:
        file = carla.upload(samples.picture("png", 302, 202), "doomed.png", "image/png")
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
    carla.service.wait_until(lambda: thumbnail(carla, file["thumbnail"]["url"]) and carla.items()[0]["width"] == 302)
    assert carla.items()[0]["thumbnail"] == file["thumbnail"]
    assert thumbnail(carla, file["thumbnail"]["url"]).size == (256, 256)
    carla.upload(samples.picture("png", 303, 203), "next.png")
    carla.service.wait_until(lambda: carla.items()[0]["width"] == 303)


# --- Names ---


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


@pytest.mark.parametrize(("mark", "ext", "context"), [("thumb_", "webp", "file"), ("32_", "png", "avatar")])
def test_a_name_that_its_own_thumbnail_would_have(anna: User, mark: str, ext: str, context: str) -> None:
    name = f"{(mark * 100)[: 254 - len(ext)]}.{ext}"
    file = anna.upload(samples.picture("png", 60, 50), name, f"image/{ext}", context=context)
    assert file["name"] == name
    addresses = {file["file"]} | {made["url"] for made in (file["thumbnail"], *file.get("thumbnails", []))}
    assert len(addresses) == 2 + len(file.get("thumbnails", []))
    assert len(anna.http.get(file["file"]).content) == file["size"]
    assert thumbnail(anna, file["thumbnail"]["url"]).size == (256, 256)
    for made in file.get("thumbnails", []):
        assert Image.open(io.BytesIO(anna.http.get(made["url"]).content)).size == (made["width"], made["height"])
    if not anna.service.settings.get("STORAGE_URL"):
        place = anna.service.tree / "links" / file["slot_id"][:2] / file["slot_id"]
        served = {entry.name for entry in place.iterdir() if entry.exists()}  # links to what there is not lead nowhere
        assert served == {httpx.URL(url).path.rpartition("/")[2] for url in addresses - {file["file"]}}


# --- Files whose content does not fit their name ---


@pytest.mark.parametrize(
    ("name", "media_type"),
    [("photo.jpg", "image/jpeg"), ("photo.heic", "image/heic"), ("film.mp4", "video/mp4"), ("film.webm", "video/webm")],
)
def test_encrypted_bytes_under_another_name_are_kept_as_they_are(anna: User, name: str, media_type: str) -> None:
    data = os.urandom(50_000)
    file = anna.upload(data, name, media_type)
    assert (file["name"], file["media_type"], file["size"]) == (name, media_type, len(data))
    assert file["width"] is None and file["height"] is None
    answer = anna.http.get(file["file"])
    assert (answer.content, answer.headers["Content-Type"]) == (data, media_type)
    assert anna.items()[0]["thumbnail"] == file["thumbnail"]
    assert_placeholder(anyone.get(file["thumbnail"]["url"]))


@pytest.mark.parametrize(
    ("data", "name", "media_type"),
    [(samples.PLAYLIST, "list.mp4", "video/mp4"), (samples.PLAYLIST, "list.m3u8", "video/vnd.apple.mpegurl"),
     (samples.SVG, "drawing.svg", "image/svg+xml"), (samples.HTML, "page.png", "image/png"),
     (samples.POLYGLOT_GIF, "script.gif", "image/gif"), (samples.sound(), "music.mp4", "video/mp4"),
     (samples.picture("png", 71, 17), "photo.mp4", "video/mp4"),
     (samples.film(width=96, height=64), "film.png", "image/png"),
     (b"", "empty.jpg", "image/jpeg")],
    ids=["playlist as film", "playlist", "svg", "html", "script", "sound", "photo as film", "film as photo", "empty"],
)  # fmt: skip
def test_what_is_no_such_image_or_film_is_kept_and_shown_by_a_placeholder(
    anna: User, data: bytes, name: str, media_type: str
) -> None:
    file = anna.upload(data, name, media_type)
    assert file["thumbnail"]["width"] == file["thumbnail"]["height"] == 256 and file["width"] is None
    assert_placeholder(anyone.get(file["thumbnail"]["url"]))
    answer = anna.http.get(file["file"])
    assert (answer.status_code, answer.content, answer.headers["Content-Type"]) == (200, data, media_type)


def test_bytes_that_came_under_a_wrong_type_have_a_thumbnail_under_the_right_one(anna: User, boris: User) -> None:
    data = samples.picture("png", 207, 107)
    assert_placeholder(anyone.get(anna.upload(data, "photo.mp4", "video/mp4")["thumbnail"]["url"]))
    file = boris.upload(data, "photo.png", "image/png")
    assert (file["width"], file["height"]) == (207, 107)
    assert thumbnail(boris, file["thumbnail"]["url"]).size == (256, 256)


def test_an_image_of_another_format_than_its_name_says_has_one(anna: User) -> None:
    file = anna.upload(samples.picture("webp"), "photo.jpg", "image/jpeg")
    assert (file["media_type"], file["width"]) == ("image/jpeg", 400)
    assert thumbnail(anna, file["thumbnail"]["url"]).size == (256, 256)


def test_a_thumbnail_that_cannot_be_made_is_a_placeholder(anna: User) -> None:
    file = anna.upload(samples.png_lie(50_000, 50_000), "huge.png", "image/png")
    url = f"{anna.service.url}/media/{file['slot_id']}/thumb_huge.webp"
    assert file["thumbnail"] == {"url": url, "width": 256, "height": 256}
    assert_placeholder(anyone.get(url))
    assert anyone.head(url).status_code == 200
    assert anyone.get(url, headers={"Range": "bytes=0-1"}).status_code in (200, 206)


def test_a_thumbnail_that_was_not_wanted_is_made_when_it_is_asked_for(anna: User) -> None:
    file = anna.upload(samples.picture("png", 305, 205), "plain.png", "image/png", create_thumbnails="false")
    assert file["width"] is None  # it is not decoded yet
    assert thumbnail(anna, file["thumbnail"]["url"]).size == (256, 256)
    assert anna.items()[0]["width"] == 305
    avatar = anna.avatar(samples.picture("png", 306, 206), create_thumbnails="false")
    assert avatar["thumbnails"] == []
    assert thumbnail(anna, avatar["thumbnail"]["url"]).size == (256, 256)


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
    for path in (anna.service.tree / "thumbs").rglob("*.*"):
        if path.is_file():
            path.unlink()
    assert thumbnail(anna, file["thumbnail"]["url"]).size == (256, 256)
    for made in avatar["thumbnails"]:
        answer = anna.http.get(made["url"])
        assert Image.open(io.BytesIO(answer.content)).size == (made["width"], made["height"])


def test_the_tree_of_links_leads_to_the_files(anna: User) -> None:
    data = samples.noise("png", 120, 130)
    avatar, file = anna.avatar(data), anna.upload(data, "plain.png")
    assert min(avatar["size"], file["size"]) > SMALL
    for item in (avatar, file):
        place = anna.service.tree / "links" / item["slot_id"][:2] / item["slot_id"]
        assert (place / item["name"]).read_bytes() == anna.http.get(item["file"]).content
        for made in [item["thumbnail"], *item.get("thumbnails", [])]:
            assert (place / made["url"].rpartition("/")[2]).read_bytes() == anna.http.get(made["url"]).content
