"""Small files, which the database keeps: what is special of them. Tests of all calls meet them, too."""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from media_gallery.app import Gallery
from media_gallery.db import Connection
from tests import s3, samples
from tests.s3 import S3
from tests.service import SMALL, Service, User, anyone
from tests.tcp import Way


@pytest.fixture(scope="module")
def small(start_service: Callable[..., Service]) -> Service:
    return start_service(SMALL_FILE_SIZE=SMALL)


def kept(service: Service) -> int:
    """How many files the database keeps."""

    async def rows(gallery: Gallery) -> int:
        [[count]] = await gallery.db.scan(lambda c: c.all("SELECT COUNT(*) FROM contents"))
        return int(count)

    return int(service.within(rows))


def changing(statement: str, *args: Any) -> Callable[[Gallery], Coroutine[Any, Any, Any]]:
    async def change(c: Connection) -> int:
        return await c.run(statement, *args)

    return lambda gallery: gallery.db.write(change)


def test_only_files_up_to_the_limit_are_in_the_database(small: Service) -> None:
    user, before, rows = small.user(), small.stored("blobs", "staging"), kept(small)
    sizes = (0, 1, SMALL - 1, SMALL, SMALL + 1)
    sent = {size: os.urandom(size) for size in sizes}
    files = {size: user.upload(data, f"{size}.bin") for size, data in sent.items()}
    assert (len(small.stored("blobs", "staging") - before), kept(small) - rows) == (1, 4)
    for size, file in files.items():
        answer = anyone.get(file["file"])
        assert answer.content == sent[size] and answer.headers["Content-Length"] == str(size)
        assert anyone.head(file["file"]).headers["Content-Length"] == str(size)
    part = anyone.get(files[SMALL]["file"], headers={"Range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, sent[SMALL][10:20])
    assert user.delete("files/", id=[file["id"] for file in files.values()]).status_code == 204
    assert small.stored("blobs", "staging") == before and kept(small) == rows
    assert anyone.get(files[SMALL]["file"]).status_code == 404


def test_a_changed_limit_leaves_files_where_they_are(start_service: Callable[..., Service]) -> None:
    service, few = start_service(SMALL_FILE_SIZE="100"), os.urandom(100)
    user = service.user()
    first = user.upload(few)
    service.stop()
    service.settings["SMALL_FILE_SIZE"] = "0"
    service.start()
    again, other = user.upload(few), user.upload(os.urandom(100))
    assert kept(service) == 1 and len(service.stored("blobs")) == 1
    for file in (first, again):
        assert anyone.get(file["file"]).content == few
    user.delete("files/", id=first["id"])
    assert anyone.get(again["file"]).content == few
    service.stop()
    service.settings["SMALL_FILE_SIZE"] = "1000"
    service.start()
    assert len(anyone.get(other["file"]).content) == 100
    user.delete("files/", id=[again["id"], other["id"]])
    assert (service.stored_bytes(), user.used()) == (0, 0)


def test_thumbnails_of_small_images_are_made_and_made_again(small: Service) -> None:
    user, data = small.user(), samples.picture("png", 90, 60)
    photo, avatar = user.upload(data, "a.png"), user.avatar(data)
    assert (photo["thumbnail"]["width"], avatar["size"] <= SMALL) == (256, True)
    addresses = [photo["thumbnail"]["url"], *(made["url"] for made in avatar["thumbnails"])]
    before = [Image.open(io.BytesIO(anyone.get(url).content)).size for url in addresses]
    small.within(lambda g: g.store.delete([name.split("/")[-2] for name in small.stored("thumbs")]))
    assert not small.stored("thumbs")
    assert [Image.open(io.BytesIO(anyone.get(url).content)).size for url in addresses] == before
    assert len(before) > 2 and small.stored("thumbs")


def test_fsck_finds_what_the_database_has_lost(small: Service) -> None:
    user = small.user()
    lost, damaged, whole = (user.upload(os.urandom(1000), f"{name}.bin") for name in ("lost", "damaged", "whole"))
    where = "blob_id = (SELECT blob_id FROM links WHERE id = $1)"
    small.within(changing(f"DELETE FROM contents WHERE {where}", lost["id"]))
    small.within(changing(f"UPDATE contents SET data = $2 WHERE {where}", damaged["id"], b"few"))
    assert anyone.get(lost["file"]).status_code == 404
    found = json.loads(small.cli("fsck", "--json", code=1).partition("\n\n")[0])["findings"]
    assert {(finding["kind"], finding["what"].partition(" should")[0]) for finding in found} == {
        ("lost", f"the bytes of link {lost['id']}"),
        ("damaged", f"link {damaged['id']}"),
    }
    assert "(repaired)" in small.cli("fsck", "--repair", "--all-lost", code=1)
    assert {item["id"] for item in user.items()} == {damaged["id"], whole["id"]} and user.used() == 2000
    user.delete("files/", id=damaged["id"])
    assert "0 wrong" in small.cli("fsck")


def test_small_files_do_not_hide_that_the_storage_is_missing(start_service: Callable[..., Service]) -> None:
    service = start_service(SMALL_FILE_SIZE="1000")
    user = service.user()
    for size in (10, 2000):
        user.upload(os.urandom(size))
    (service.tree / "blobs").rename(service.tree / "unmounted")
    assert "none of the 1 oldest files" in service.cli("fsck", "--repair", code=1)
    assert len(user.items()) == 2


def test_they_move_with_the_database(
    start_service: Callable[..., Service], backend: Callable[[], dict[str, Any]], tmp_path: Path
) -> None:
    """By a backup, and by a copy of the database; only the others are files of the backup."""
    service = start_service(SMALL_FILE_SIZE="1000")
    user = service.user()
    sent = [os.urandom(size) for size in (0, 1000, 1001)]
    addresses = [user.upload(data)["file"].removeprefix(service.url) for data in sent]
    [copied] = json.loads(service.cli("backup", str(tmp_path / "copy"), "--json"))
    assert (copied["files"], copied["bytes"]) == (1, 1001)
    service.stop()
    if not service.settings.get("DATABASE_URL"):
        moved = f"sqlite:///{service.data_dir}/moved.sqlite"
        service.cli("move-database", moved)
        service.settings["DATABASE_URL"] = moved
    restored = Service(tmp_path / "restored", **backend())
    restored.data_dir.mkdir(parents=True)
    restored.cli("restore", str(tmp_path / "copy"))
    for place in (service, restored):
        place.start()
        assert [anyone.get(place.url + path).content for path in addresses] == sent
        assert "0 wrong" in place.cli("fsck")
        place.stop()


def test_a_bucket_has_nothing_to_do_with_them(bucket: S3, way: Way, start_service: Callable[..., Service]) -> None:
    there = bucket.settings() | {"S3_ENDPOINT": f"http://127.0.0.1:{way.port}"}
    service = start_service(SMALL_FILE_SIZE=SMALL, **there | {"S3_DELIVERY": "redirect"})
    user = service.user()
    user.upload(os.urandom(SMALL + 1))
    [stored] = s3.objects(service.settings)
    received, data = way.received, os.urandom(SMALL)
    file = user.upload(data)
    answer = anyone.get(file["file"])
    assert (answer.status_code, answer.content) == (200, data)
    user.delete("files/", id=file["id"])
    assert s3.objects(service.settings) == [stored] and way.received - received < len(data)


def test_a_small_file_needs_no_directory(start_service: Callable[..., Service]) -> None:
    service = start_service(SMALL_FILE_SIZE=SMALL, STORAGE_URL="")
    user = service.user()
    shutil.rmtree(service.data_dir / "blobs")
    file = user.upload(b"photo", "note.txt")
    assert User(service, user.jid, user.token).http.get(file["file"]).content == b"photo"
    assert not list((service.data_dir / "links").glob("*/*"))
