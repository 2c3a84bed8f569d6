"""Moving house: from one database to another, and back."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests import samples
from tests.postgres import Postgres
from tests.service import Service, User


@pytest.fixture
def postgres() -> Iterator[Postgres]:
    server = Postgres()
    yield server
    server.stop()


def furnished(service: Service) -> tuple[User, dict[str, Any]]:
    """An account with a bit of everything, and what it looks like to its owner."""
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
