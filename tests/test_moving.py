"""Moving from one database or store to another, and back."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests import samples
from tests.postgres import Postgres
from tests.s3 import BUCKET, S3, client, objects
from tests.service import MIB, Service, User


@pytest.fixture
def postgres() -> Iterator[Postgres]:
    server = Postgres()
    yield server
    server.stop()


def furnished(service: Service) -> tuple[User, dict[str, Any]]:
    """An account with some data of each kind, and what its owner sees of it."""
    user = service.user()
    for number in range(30):
        user.upload(os.urandom(500 + number), f"файл {number}.bin", metadata={"n": number})
    user.avatar(samples.picture("png", 60, 60))
    user.upload(samples.picture("jpeg"), "photo.jpg")
    last = user.upload(b"deleted: its number is never used again")
    user.delete("files/", id=last["id"])
    service.cli("account", "set-quota", user.jid, "20 MiB")
    return user, look(user) | {"last": last["id"]}


def look(user: User) -> dict[str, Any]:
    return {
        "items": [{k: v for k, v in item.items() if isinstance(v, int | str | dict)} for item in
                  user.items(contexts="file,voice,avatar", order_by="name", obj_per_page=500)],
        "stats": user.get("files/stats/").json(), "quota": user.get("account/quota/").json(),
    }  # fmt: skip


def test_to_postgresql_and_back(postgres: Postgres, start_service: Callable[..., Service]) -> None:
    service = start_service(DATABASE_URL="")
    user, before = furnished(service)
    target = postgres.new_database()
    assert "stop it first" in service.cli("move-database", target, code=1)
    service.stop()
    assert "rows copied and compared" in service.cli("move-database", target)
    assert "rows copied and compared" in service.cli("move-database", target)  # nothing left to do
    service.settings["DATABASE_URL"] = target
    service.start()
    assert look(user) == {key: before[key] for key in ("items", "stats", "quota")}
    assert user.upload(b"new")["id"] == before["last"] + 1
    assert "0 wrong" in service.cli("fsck")
    assert user.delete("files/", name="new").status_code == 204
    service.stop()
    service.cli("move-database", f"sqlite:///{service.data_dir}/back.sqlite")
    service.settings["DATABASE_URL"] = f"sqlite:///{service.data_dir}/back.sqlite"
    service.start()
    assert user.upload(b"new")["id"] > before["last"] + 1


def test_a_copy_that_was_cut_short_goes_on(postgres: Postgres, start_service: Callable[..., Service]) -> None:
    service = start_service(DATABASE_URL="")
    user, before = furnished(service)
    service.stop()
    target = postgres.new_database()
    service.cli("move-database", target)
    service.settings["DATABASE_URL"] = target
    service.within(lambda g: g.db.write(lambda c: c.run("DELETE FROM links WHERE id > 10")))
    service.settings["DATABASE_URL"] = ""
    service.cli("move-database", target)
    service.settings["DATABASE_URL"] = target
    service.start()
    assert look(user) == {key: before[key] for key in ("items", "stats", "quota")}


def test_a_target_that_is_not_empty_is_refused(postgres: Postgres, start_service: Callable[..., Service]) -> None:
    service = start_service(DATABASE_URL="")
    furnished(service)
    service.stop()
    target = postgres.new_database()
    service.cli("move-database", target)
    source, service.settings["DATABASE_URL"] = "", target
    service.within(lambda g: g.db.write(lambda c: c.run("UPDATE links SET name = 'changed' WHERE id = 3")))
    service.settings["DATABASE_URL"] = source
    assert "differs" in service.cli("move-database", target, code=1)


# --- Files ---


def test_files_go_to_a_bucket_and_back(bucket: S3, start_service: Callable[..., Service]) -> None:
    there = bucket.settings()
    goal = there.pop("STORAGE_URL")
    service = start_service(**there, STORAGE_URL="")
    user, before = furnished(service)
    first = moved(service, goal)
    assert (first["files"], first["known"]) == (32, 0) and first["bytes"] == user.used()
    late = user.upload(os.urandom(9 * MIB), "late.bin")
    service.stop()
    second = moved(service, goal)
    assert (second["files"], second["known"], second["bytes"]) == (1, 32, late["size"])
    service.settings["STORAGE_URL"] = goal
    shutil.rmtree(service.data_dir / "blobs")
    service.start()
    user.delete("files/", id=late["id"])
    assert look(user) == {key: before[key] for key in ("items", "stats", "quota")}
    for item in user.items(contexts="file,voice,avatar"):
        assert len(user.http.get(item["file"]).content) == item["size"]
        if item["thumbnail"]:
            assert user.http.get(item["thumbnail"]["url"]).headers["Content-Type"] == "image/webp"
    assert "0 wrong" in service.cli("fsck")
    service.stop()
    assert moved(service, "local")["files"] == 32
    service.settings["STORAGE_URL"] = ""
    assert "0 wrong" in service.start().cli("fsck")
    assert look(user) == {key: before[key] for key in ("items", "stats", "quota")}


def moved(service: Service, goal: str, *more: str) -> dict[str, int]:
    [counts] = json.loads(service.cli("move-storage", goal, "--json", *more))
    return dict(counts)


def test_other_bytes_of_the_same_size_are_copied_anew(bucket: S3, start_service: Callable[..., Service]) -> None:
    there = bucket.settings()
    goal = there.pop("STORAGE_URL")
    service = start_service(**there, STORAGE_URL="")
    user = service.user()
    user.upload(b"right")
    moved(service, goal)
    place = {
        "Bucket": BUCKET,
        "Key": f"{goal.removeprefix(f's3://{BUCKET}/')}/{objects({**there, 'STORAGE_URL': goal})[0]}",
    }
    client(bucket.endpoint).put_object(**place, Body=b"wrong")
    quick = moved(service, goal, "--by-size")
    assert (quick["files"], quick["known"]) == (0, 1)
    again = moved(service, goal)
    assert (again["files"], again["known"]) == (1, 0)
    assert client(bucket.endpoint).get_object(**place)["Body"].read() == b"right"
    assert moved(service, goal)["known"] == 1


def test_damaged_files_are_noticed_when_they_are_copied(bucket: S3, start_service: Callable[..., Service]) -> None:
    there = bucket.settings()
    goal = there.pop("STORAGE_URL")
    service = start_service(**there, STORAGE_URL="")
    user = service.user()
    for number in range(3):
        user.upload(os.urandom(1000), f"{number}.bin")
    one, other, _ = [path for path in (service.data_dir / "blobs").rglob("*") if path.is_file()]
    one.write_bytes(os.urandom(1000))
    other.unlink()
    told = service.cli("move-storage", goal, code=1)
    assert "Not all files came along" in told
    assert len(objects({**there, "STORAGE_URL": goal})) == 1
    assert "there already" in service.cli("move-storage", "local", code=1)
    for command, told in (("move-storage", "STORAGE_URL must be like"), ("move-database", "DATABASE_URL must start")):
        said = service.cli(command, "ftp://elsewhere", code=1)
        assert told in said and "Traceback" not in said
