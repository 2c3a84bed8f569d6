"""`media-gallery import django`, with tables and files such as the published sources of that gallery make."""

from __future__ import annotations

import asyncio
import hashlib
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from PIL import Image

from tests import samples
from tests.service import Service, anyone
from tests.test_import import aged, report_of

TABLES = """
CREATE TABLE auth_user (id INTEGER PRIMARY KEY, username VARCHAR(150) NOT NULL);
CREATE TABLE api_entityfile (id INTEGER PRIMARY KEY, file VARCHAR(100) NOT NULL, hash VARCHAR(100) {old});
CREATE TABLE api_mediafile (
    id INTEGER PRIMARY KEY, entity_file_id INTEGER NOT NULL, user_id INTEGER NOT NULL, avatar_thumbs BOOLEAN NOT NULL,
    title VARCHAR(255) NOT NULL, metadata {json}, created_at {moment} NOT NULL, is_avatar BOOLEAN NOT NULL {new}
);
CREATE TABLE api_thumbnail (id INTEGER PRIMARY KEY, entity_file_id INTEGER NOT NULL, file VARCHAR(100) NOT NULL,
                            is_avatar BOOLEAN NOT NULL, side_size INTEGER NOT NULL)
"""
NAMES = ", size INTEGER, media_type VARCHAR(255), name VARCHAR(255)"
"""Columns that have moved from one table to the other."""


@dataclass
class DjangoGallery:
    """Rows and files of that gallery; `newer`: with the newer of its two sorts of tables."""

    media: Path
    newer: bool
    statements: list[str] = field(default_factory=list)
    base: str = field(default_factory=lambda: f"/{uuid4().hex}/media")

    def create(self, postgres: bool) -> None:
        self.statements += TABLES.format(
            old="" if self.newer else NAMES, new=NAMES if self.newer else "",
            json="JSONB" if postgres else "TEXT", moment="TIMESTAMPTZ" if postgres else "DATETIME",
        ).split(";")  # fmt: skip

    def insert(self, table: str, **values: Any) -> None:
        said = (
            "NULL" if v is None else str(v).upper() if isinstance(v, bool) else "'" + str(v).replace("'", "''") + "'"
            for v in values.values()
        )
        self.statements.append(f"INSERT INTO {table} ({', '.join(values)}) VALUES ({', '.join(said)})")

    def add(self, number: int, user: int, name: str, data: bytes, media_type: str, **more: Any) -> str:
        """Add a file with this number; return its path there."""
        md5 = hashlib.md5(data).hexdigest()
        place = self.media / "originals" / md5[:3] / md5[3:6] / md5[6:]
        names = {"size": 0, "media_type": media_type, "name": name}
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
        aged(place)
        self.insert("api_entityfile", id=number, file=place.relative_to(self.media), hash=f"{md5[:-1]}{number % 10}"
                    if more.pop("wrong", False) else md5, **({} if self.newer else names))  # fmt: skip
        avatar = more.pop("avatar", False)
        self.insert("api_mediafile", id=number, entity_file_id=number, user_id=user, avatar_thumbs=avatar,
                    title=f"Title{number}", metadata=more.pop("metadata", None),
                    created_at=f"2023-05-22 10:50:0{number}.000012+00:00"[: None if self.newer else 26],
                    is_avatar=avatar, **(names if self.newer else {}))  # fmt: skip
        return f"{self.base}/Title{number}/{name}"


@pytest.mark.parametrize("newer", [False, True])
def test_files_of_the_django_gallery_come_with_owners_times_and_addresses(
    service: Service, backend: Callable[[], dict[str, Any]], tmp_path: Path, newer: bool
) -> None:
    old, host = DjangoGallery(tmp_path / "uploaded", newer), f"{uuid4().hex}.example"
    url = backend().get("DATABASE_URL", "")
    old.create(bool(url))
    for number, name in enumerate(["admin", f"anna@{host}", f"boris@{host}"]):
        old.insert("auth_user", id=number, username=name)
    photo, face, song = samples.picture("jpeg"), samples.picture("png", 300, 300), b"OggS\0" + bytes(100)
    addresses = {
        old.add(1, 1, "photo one.jpg", photo, "image/jpeg"): photo,
        old.add(2, 1, "face.png", face, "image/png", avatar=True): face,
        old.add(3, 2, "song.ogg", song, "audio/ogg+voice", metadata='{"duration": 3}'): song,
    }
    old.insert("api_thumbnail", id=1, entity_file_id=2, file="thumbnails/48", is_avatar=True, side_size=48)
    old.add(4, 0, "of the administrator.txt", b"admin", "text/plain")
    old.add(5, 1, "damaged.txt", b"damaged", "text/plain", wrong=True)
    database = url or str(tmp_path / "db.sqlite3")
    write(database, old.statements)

    words = ["import", "django", str(old.media), "--database", database, "--address", f"https://old.example{old.base}/"]
    report = report_of(service.cli(*words, "--json", code=1))
    assert (report["taken"], report["without_owner"], report["damaged"]) == (3, 1, 1)
    for address, data in addresses.items():
        assert anyone.get(service.url + address).content == data
    anna, boris = (service.user(jid=f"{name}@{host}") for name in ("anna", "boris"))
    [item], [avatar] = anna.items(), anna.items("avatar/")
    assert (item["name"], item["created_at"]) == ("photo one.jpg", "2023-05-22T10:50:01.000012Z")
    assert (avatar["size"], avatar["width"], avatar["context"]) == (len(face), 300, "avatar")
    [voice] = boris.items()
    assert (voice["context"], voice["media_type"], voice["metadata"]) == ("voice", "audio/ogg", {"duration": 3})
    for path, side in (("1/thumb_photo one.jpg", 256), ("2/thumb_face.png", 256), ("2/48_face.webp", 48)):
        thumbnail = anyone.get(f"{service.url}{old.base}/Title{path}")
        with Image.open(BytesIO(thumbnail.content)) as image:
            assert image.size == (side, side), path
    assert anna.delete("avatar/", id=avatar["id"]).status_code == 204
    assert anyone.get(f"{service.url}{old.base}/Title2/48_face.webp").status_code == 404
    assert report_of(service.cli(*words, "--json", "--deleted", code=1))["taken"] == 1


def write(database: str, statements: list[str]) -> None:
    if not database.startswith("postgresql://"):
        with closing(sqlite3.connect(database)) as connection:
            for statement in statements:
                connection.execute(statement)
            connection.commit()
        return

    async def run() -> None:
        connection = await asyncpg.connect(database)
        for statement in statements:
            await connection.execute(statement)
        await connection.close()

    asyncio.run(run())


def test_another_database_is_refused(service: Service, tmp_path: Path) -> None:
    other, text = tmp_path / "other.sqlite3", tmp_path / "text"
    write(str(other), ["CREATE TABLE api_mediafile (id INTEGER)"])
    text.write_text("no database" * 100)
    refusals = {other: "not the tables", text: "not a database", tmp_path / "missing": "unable to open"}
    for database, told in refusals.items():
        said = service.cli("import", "django", str(tmp_path), "--database", str(database), code=1)
        assert told in said and "Traceback" not in said
