"""`GET files/`: pages, order, and filters, which are compared with a simple model."""

from __future__ import annotations

import os
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests import samples
from tests.model import model
from tests.service import Service, User, assert_error

KINDS = [
    ("Anna's photo.jpg", "image/jpeg", "file"),
    ("ПРИВЕТ.png", "image/png", "file"),
    ("привет.txt", "text/plain", "file"),
    ("100%_done.pdf", "application/pdf", "file"),
    ("film.mp4", "video/mp4", "file"),
    ("song.mp3", "audio/mpeg", "file"),
    ("voice.ogg", "audio/ogg", "voice"),
    ("Voice 2.ogg", "audio/ogg", "voice"),
    ("a_b.bin", "application/x-data", "file"),
    ("axb.bin", "application/octet-stream", "file"),
    ("Straße.gif", "image/gif", "file"),
    ("film.webm", "video/webm", "file"),
]


@pytest.fixture(scope="module")
def library(service: Service) -> tuple[User, list[dict[str, Any]]]:
    """An account with thirty files of all kinds; their file objects, oldest first."""
    user, items = service.user("library"), []
    for number in range(30):
        name, media_type, context = KINDS[number % len(KINDS)]
        items.append(user.upload(os.urandom(10 + number * 7 % 50), name, media_type=media_type, context=context))
    for number in range(3):
        items.append(user.avatar(samples.picture("png", 40 + number, 40), f"selfie{number}.png"))
    for item in items:
        del item["quota"], item["used"]
    return user, items


def ids(items: list[dict[str, Any]]) -> list[int]:
    return [item["id"] for item in items]


# --- Pages ---


def test_a_page(library: tuple[User, list[dict[str, Any]]]) -> None:
    user, items = library
    page = user.get("files/").json()
    assert set(page) == {"items", "total_objects", "total_pages", "obj_per_page", "page"}
    assert (page["total_objects"], page["total_pages"], page["obj_per_page"], page["page"]) == (30, 1, 50, 1)
    assert page["items"] == [item for item in reversed(items) if not item["is_avatar"]]


def test_pages_join_to_the_whole(library: tuple[User, list[dict[str, Any]]]) -> None:
    user, items = library
    pages = [user.get("files/", obj_per_page=7, page=number).json() for number in range(1, 7)]
    assert [len(page["items"]) for page in pages] == [7, 7, 7, 7, 2, 0]
    assert all((page["total_pages"], page["total_objects"]) == (5, 30) for page in pages)
    assert [id_ for page in pages for id_ in ids(page["items"])] == ids(items[:30])[::-1]


def test_500_at_most(library: tuple[User, list[dict[str, Any]]]) -> None:
    user, _ = library
    assert user.get("files/", obj_per_page=501).json()["obj_per_page"] == 500
    for wrong in (
        {"obj_per_page": 0},
        {"page": 0},
        {"page": -1},
        {"page": "x"},
        {"obj_per_page": "many"},
        {"page": 2**80},
    ):
        assert_error(user.get("files/", **wrong), 400, *wrong)
    assert user.get("files/", page=2**40).json()["items"] == []


def test_an_empty_account(anna: User) -> None:
    page = anna.get("files/").json()
    assert page == {"items": [], "total_objects": 0, "total_pages": 0, "obj_per_page": 50, "page": 1}


@pytest.mark.parametrize("order", ["id", "created_at", "name", "size"])
def test_order(library: tuple[User, list[dict[str, Any]]], order: str) -> None:
    user, items = library
    key = {"name": lambda i: (i["name"].casefold(), i["id"])}.get(order, lambda i: (i[order], i["id"]))
    rising = sorted((item for item in items if not item["is_avatar"]), key=key)
    assert ids(user.items(order_by=order)) == ids(rising)
    assert ids(user.items(order_by=f"-{order}")) == ids(rising)[::-1]
    assert_error(user.get("files/", order_by="colour"), 400, "order_by")


# --- Filters ---


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data())
def test_filters_combine_with_and(library: tuple[User, list[dict[str, Any]]], data: st.DataObject) -> None:
    user, items = library
    some_id = st.sampled_from(ids(items)) | st.just(10**12)
    moment = st.sampled_from([item["created_at"] for item in items])
    wanted = data.draw(
        st.fixed_dictionaries(
            {},
            optional={
                "id": st.lists(some_id, min_size=1, max_size=4),
                "type": st.sampled_from(["image", "video", "voice", "file", "audio", "avatar"]),
                "contexts": st.lists(st.sampled_from(["file", "voice", "avatar"]), min_size=1, max_size=3),
                "media_type": st.sampled_from(["image", "image/", "image/*", "*/png", "ogg", "IMAGE/PNG", "*"]),
                "size_gte": st.integers(0, 60),
                "size_lte": st.integers(0, 60),
                "name": st.sampled_from(["a", "Привет", "%", "_", "photo", "STRASSE", ".ogg", "'", "\\"]),
                "date_gte": moment,
                "date_lte": moment,
            },
        )
    )
    assert sorted(ids(user.items(**wanted, obj_per_page=500))) == model(items, wanted)


@pytest.mark.parametrize("type_", ["image", "video", "voice", "file", "audio", "avatar"])
def test_types(library: tuple[User, list[dict[str, Any]]], type_: str) -> None:
    user, items = library
    found = sorted(ids(user.items(type=type_)))
    assert found and found == model(items, {"type": type_})


def test_dates(library: tuple[User, list[dict[str, Any]]]) -> None:
    user, items = library
    day = datetime.fromisoformat(items[0]["created_at"]).date()
    last = datetime.fromisoformat(items[29]["created_at"]).date()
    assert len(user.items(date_gte=str(day), date_lte=str(last))) == 30  # a date in lte includes that whole day
    assert user.items(date_gte=str(last + timedelta(days=1))) == []
    assert len(user.items(date_gte=f"{day:%Y%m%d}", date_lte=f"{last:%G-W%V-%u}")) == 30
    assert user.items(date_lte=str(day - timedelta(days=1))) == []
    third = items[2]["created_at"]
    assert ids(user.items(date_gte=third, date_lte=third)) == [items[2]["id"]]
    for far in ("9999-12-31", "10000-01-01", "+275760-09-13T00:00:00.000Z", "9999-12-31T23:59:59-12:00"):
        assert len(user.items(date_lte=far)) == 30 and user.items(date_gte=far) == []
    for long_ago in ("0000-01-01", "-0044-03-15", "0001-01-01T00:00:00+12:00"):
        assert len(user.items(date_gte=long_ago)) == 30 and user.items(date_lte=long_ago) == []
    there = (datetime.fromisoformat(third) + timedelta(hours=3)).replace(tzinfo=None).isoformat() + "+03:00"
    assert ids(user.items(date_gte=there, date_lte=there)) == [items[2]["id"]]
    for wrong in ("yesterday", "2026-13-01", "2026-1-1", "99999-13-01"):
        assert_error(user.get("files/", date_gte=wrong), 400, "date_gte")


def test_lists_in_four_forms(library: tuple[User, list[dict[str, Any]]]) -> None:
    user, items = library
    wanted = model(items, {"contexts": ["voice", "avatar"]})
    for query in ("contexts=voice&contexts=avatar", "contexts[]=voice&contexts[]=avatar", "contexts=voice,avatar",
                  "context=voice&context=avatar", "contexts%5B%5D=voice&contexts=avatar"):  # fmt: skip
        assert sorted(ids(user.http.get(f"files/?{query}").json()["items"])) == wanted, query
    answer = user.http.request("GET", "files/", json={"contexts": ["voice", "avatar"]})
    assert sorted(ids(answer.json()["items"])) == wanted


def test_a_query_wins_over_a_body(library: tuple[User, list[dict[str, Any]]]) -> None:
    user, items = library
    answer = user.http.request("GET", "files/?type=voice", json={"type": "image"})
    assert sorted(ids(answer.json()["items"])) == model(items, {"type": "voice"})


def test_wrong_filters(anna: User) -> None:
    for wrong in ({"type": "music"}, {"contexts": "other"}, {"size_gte": "big"}, {"size_lte": -1}, {"id": "one"}):
        assert_error(anna.get("files/", **wrong), 400, *wrong)
    assert anna.get("files/", unheard_of="x").status_code == 200


def test_a_type_is_found_by_its_other_names(anna: User) -> None:
    file = anna.upload(b"x", "a", "image/jpg")
    assert file["media_type"] == "image/jpeg"
    for wanted in ("image/jpg", "IMAGE/JPG", "image/jpeg", "jpeg", "image/*"):
        assert [item["id"] for item in anna.items(media_type=wanted)] == [file["id"]]


def test_500_ids_at_most(library: tuple[User, list[dict[str, Any]]]) -> None:
    user, items = library
    some = [item["id"] for item in items[:2]]
    fits = [*some, *range(10**12, 10**12 + 498)]
    for _ in range(2):
        assert user.get("files/", id=",".join(map(str, fits))).json()["total_objects"] == 2
        fits *= 2  # repeated ids do not count again
    assert_error(user.get("files/", id=",".join(map(str, [*fits, 10**13]))), 400, "id")
    assert_error(user.get("files/stats/", id=",".join(map(str, [*fits, 10**13]))), 400, "id")
    assert_error(user.delete("files/", id=[*fits, 10**13]), 400, "id")
    assert user.get("files/", id=some).json()["total_objects"] == 2
