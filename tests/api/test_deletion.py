"""`DELETE files/` and `files/percent/N/`, and the statistics before and after."""

from __future__ import annotations

import os
from typing import Any

import pytest

from tests import samples
from tests.service import User, assert_error


@pytest.fixture
def things(anna: User) -> dict[str, dict[str, Any]]:
    """A file object of each kind."""
    return {
        "image": anna.upload(samples.picture("png", 50, 50), "i.png"),
        "video": anna.upload(os.urandom(200), "v.mp4", media_type="video/mp4"),
        "voice": anna.upload(os.urandom(300), "v.ogg", media_type="audio/ogg+voice"),
        "file": anna.upload(os.urandom(400), "f.txt", media_type="text/plain"),
        "audio": anna.upload(os.urandom(500), "a.mp3", media_type="audio/mpeg"),
        "avatar": anna.avatar(samples.picture("png", 64, 64)),
    }


def left(user: User) -> set[int]:
    return {item["id"] for item in user.items(contexts="file,voice,avatar")}


def all_but(things: dict[str, dict[str, Any]], *gone: str) -> set[int]:
    return {item["id"] for name, item in things.items() if name not in gone}


def test_by_id(anna: User, things: dict[str, dict[str, Any]]) -> None:
    assert anna.delete("files/", id=things["file"]["id"]).status_code == 204
    assert left(anna) == all_but(things, "file")
    assert_error(anna.http.get(things["file"]["file"]), 404)
    assert_error(anna.delete("files/", id=things["file"]["id"]), 404)
    both = [things["audio"]["id"], things["voice"]["id"]]
    assert anna.delete("files/", id=both).status_code == 204
    assert left(anna) == all_but(things, "file", "audio", "voice")


def test_by_url(anna: User, things: dict[str, dict[str, Any]]) -> None:
    assert anna.delete("files/", file=things["image"]["file"]).status_code == 204
    assert left(anna) == all_but(things, "image")
    assert_error(anna.delete("files/", file=things["image"]["file"]), 404)
    for wrong in ("nonsense", "https://example.org/", "/media/", "http://[::1/media/a/b", "//a\u2100b/media/a/b"):
        assert_error(anna.delete("files/", file=wrong), 400, "file")
    assert left(anna) == all_but(things, "image")


def test_by_filters(anna: User, things: dict[str, dict[str, Any]]) -> None:
    assert anna.delete("files/", type="video").status_code == 204
    assert anna.delete("files/", type="video").status_code == 204  # no file matches these filters
    assert anna.delete("files/", media_type="audio/mpeg", size_gte=500, name="A.MP3").status_code == 204
    assert left(anna) == all_but(things, "video", "audio")
    assert anna.delete("files/", date_gte="2000-01-01").status_code == 204
    assert left(anna) == {things["avatar"]["id"]}


def test_a_selector_is_needed(anna: User, things: dict[str, dict[str, Any]]) -> None:
    assert_error(anna.delete("files/"), 400)
    assert_error(anna.http.request("DELETE", "files/", json={}), 400)
    assert_error(anna.delete("files/", id=[]), 400)
    assert_error(anna.delete("files/", name=""), 400)
    assert left(anna) == all_but(things)


def test_parameters_that_could_delete_more_are_refused(anna: User, things: dict[str, dict[str, Any]]) -> None:
    for more in ({"older_than": "2020-01-01"}, {"Type": "voice"}, {"page": 1}):
        assert_error(anna.delete("files/", type="file", **more), 400, *more)
    for url in ([things["image"]["file"]] * 2, [things["image"]["file"], "x"]):
        assert_error(anna.delete("files/", file=url), 400, "file")
    assert_error(anna.http.delete("files/?type=file&size_lte=10&size_lte=100000"), 400, "size_lte")
    for wrong in ({"size_gte": "x"}, {"contexts": ["file", "other"]}, {"date_lte": "once"}):
        assert_error(anna.delete("files/", **wrong), 400, *wrong)
    assert left(anna) == all_but(things)


@pytest.mark.parametrize("empty", [None, "", [], ",", [""], [None]])
def test_an_empty_selector_is_refused(anna: User, things: dict[str, dict[str, Any]], empty: Any) -> None:
    for name in ("id", "file", "type", "contexts", "media_type", "date_gte", "size_lte", "name"):
        if empty != "," or name in ("id", "contexts"):
            assert_error(anna.delete("files/", context="file", **{name: empty}), 400, name)
    assert_error(anna.delete("files/percent/100/", exclude_avatars=empty), 400, "exclude_avatars")
    assert_error(anna.http.delete("files/?file=&type=file"), 400, "file")
    body = {"id": empty}  # a value in the body wins over the one in the query
    assert_error(anna.http.request("DELETE", f"files/?size_gte=0&id={things['file']['id']}", json=body), 400, "id")
    assert left(anna) == all_but(things)


@pytest.mark.parametrize("empty", [None, "", [], [None]])
def test_an_empty_selector_is_refused_by_every_deletion(
    anna: User, things: dict[str, dict[str, Any]], empty: Any
) -> None:
    """Also by that of the account: an empty `jid` may be a mistake for another account."""
    assert_error(anna.delete("avatar/", id=empty), 400, "id")
    assert_error(anna.delete("account/tokens/", token_id=empty), 400, "token_id")
    assert_error(anna.delete("account/", jid=empty), 400, "jid")
    assert_error(anna.http.delete("account/?jid="), 400, "jid")
    assert left(anna) == all_but(things)


def test_a_deletion_is_refused_before_anything_goes(anna: User, things: dict[str, dict[str, Any]]) -> None:
    mine = [thing["id"] for thing in things.values()]
    for wrong in ({"id": [*mine, "x"]}, {"id": [*mine, -1]}, {"id": [*mine, *range(10**12, 10**12 + 500)]},
                  {"id": mine, "date_lte": "soon"}, {"id": mine, "name": "a\0"}, {"id": mine, "file": "nonsense"},
                  {"type": "file", "id": ["", "x"]}):  # fmt: skip
        assert_error(anna.delete("files/", **wrong), 400)
    assert left(anna) == all_but(things)


def test_avatars_are_deleted_only_if_contexts_name_them(anna: User, things: dict[str, dict[str, Any]]) -> None:
    avatar = things["avatar"]
    assert_error(anna.delete("files/", id=avatar["id"]), 404)
    assert_error(anna.delete("files/", file=avatar["file"]), 404)
    assert anna.delete("files/", type="avatar").status_code == 204
    assert anna.delete("files/", media_type="image").status_code == 204
    assert left(anna) == all_but(things, "image")
    assert anna.delete("files/", contexts=["avatar"], id=avatar["id"]).status_code == 204
    assert left(anna) == all_but(things, "image", "avatar")


def test_selectors_in_the_query_or_a_form(anna: User, things: dict[str, dict[str, Any]]) -> None:
    assert anna.http.delete(f"files/?id={things['file']['id']}").status_code == 204
    assert anna.http.request("DELETE", "files/", data={"contexts[]": ["voice"]}).status_code == 204
    body = {"id": things["audio"]["id"]}
    answer = anna.http.request("DELETE", f"files/?id={things['video']['id']}", json=body)  # a value in the body wins
    assert answer.status_code == 204
    assert left(anna) == all_but(things, "file", "voice", "audio")


def test_the_last_link_takes_the_bytes_with_it(anna: User, boris: User) -> None:
    data, before = samples.picture("png", 71, 71), anna.service.stored("blobs", "thumbs", "links", "staging")
    mine, his = anna.upload(data, "m.png"), boris.upload(data, "h.png")
    assert anna.delete("files/", id=mine["id"]).status_code == 204
    assert boris.http.get(his["file"]).content == data
    assert boris.delete("files/", id=his["id"]).status_code == 204
    assert anna.service.stored("blobs", "thumbs", "links", "staging") <= before


# --- Statistics ---


def test_statistics(anna: User, things: dict[str, dict[str, Any]]) -> None:
    stats = anna.get("files/stats/").json()
    assert set(stats) == {"images", "videos", "voices", "files", "avatars", "total", "quota"}
    parts = [stats[name] for name in ("images", "videos", "voices", "files", "avatars")]
    assert [part["count"] for part in parts] == [1, 1, 1, 2, 1]
    assert stats["files"]["used"] == 900 and stats["voices"] == {"count": 1, "used": 300}
    total = {key: sum(part[key] for part in parts) for key in ("count", "used")}
    assert stats["total"] == total
    assert total["used"] == anna.used() == sum(item["size"] for item in things.values())
    assert stats["quota"] == 50 * 1024 * 1024


def test_statistics_take_filters(anna: User, things: dict[str, dict[str, Any]]) -> None:
    for wanted, count in (
        ({"type": "voice"}, 1), ({"contexts": "file"}, 4), ({"contexts": "avatar"}, 1), ({"size_gte": 400}, 2),
        ({"name": "v."}, 2), ({"date_lte": "2000-01-01"}, 0), ({"type": "audio"}, 2),
    ):  # fmt: skip
        stats = anna.get("files/stats/", **wanted).json()
        if "size_gte" in wanted:
            count = sum(item["size"] >= 400 for item in things.values())
        assert stats["total"]["count"] == count, wanted
        assert sum(stats[name]["count"] for name in ("images", "videos", "voices", "files", "avatars")) == count


def test_statistics_follow_deletions(anna: User, things: dict[str, dict[str, Any]]) -> None:
    anna.delete("files/", type="file")
    stats = anna.get("files/stats/").json()
    assert stats["files"] == {"count": 0, "used": 0}
    assert stats["total"]["used"] == anna.used()


# --- Percent ---


def sized(user: User, *sizes: int) -> list[int]:
    return [user.upload(os.urandom(size), f"{size}.bin")["id"] for size in sizes]


@pytest.mark.parametrize(("percent", "count"), [(1, 1), (10, 1), (11, 2), (30, 2), (31, 3), (60, 3), (61, 4), (100, 4)])
def test_percent_deletes_the_oldest_until_the_share_is_reached(anna: User, percent: int, count: int) -> None:
    made = sized(anna, 100, 200, 300, 400)
    page = anna.get(f"files/percent/{percent}/").json()
    assert [item["id"] for item in page["items"]] == made[:count]
    assert page["total_objects"] == count
    assert anna.delete(f"files/percent/{percent}/").status_code == 204
    assert left(anna) == set(made[count:])


@pytest.mark.parametrize(("percent", "count"), [(1, 1), (11, 2), (60, 3), (100, 4)])
def test_old_ios_asks_the_list_for_a_share_and_deletes_up_to_its_first(anna: User, percent: int, count: int) -> None:
    made = sized(anna, 100, 200, 300, 400)
    page = anna.get("files/", percent=percent, type="image").json()
    assert [item["id"] for item in page["items"]] == made[:count][::-1]  # newest first
    assert page["total_objects"] == count
    second = anna.get("files/", percent=percent, obj_per_page=1, page=2).json()
    assert [item["id"] for item in second["items"]] == made[:count][::-1][1:2]
    assert anna.delete("files/", date_lte=page["items"][0]["created_at"]).status_code == 204
    assert left(anna) == set(made[count:])


def test_a_share_by_the_list_has_avatars_too(anna: User) -> None:
    avatar = anna.avatar(samples.picture("png", 64, 64))
    [first] = sized(anna, 5000)
    assert [item["id"] for item in anna.items(percent=100)] == [first, avatar["id"]]
    assert [item["id"] for item in anna.items(percent=100, exclude_avatars=True)] == [first]
    for wrong in ("0", "101", "half", "-1", "1.5"):
        assert_error(anna.get("files/", percent=wrong), 400, "percent")
    anna.delete("files/percent/100/")
    assert anna.get("files/", percent=50).json()["items"] == []


def test_a_share_is_of_all_that_is_used_avatars_too(anna: User) -> None:
    avatar = anna.avatar(samples.picture("png", 64, 64))
    first, second = sized(anna, 5000, 5000)
    assert [item["id"] for item in anna.get("files/percent/1/").json()["items"]] == [avatar["id"]]
    without = anna.get("files/percent/1/", exclude_avatars="true").json()["items"]
    assert [item["id"] for item in without] == [first]
    assert anna.delete("files/percent/100/", exclude_avatars=True).status_code == 204
    assert left(anna) == {avatar["id"]}
    assert anna.delete("files/percent/100/").status_code == 204
    assert left(anna) == set() and second


def test_percent_of_nothing_and_nonsense(anna: User) -> None:
    assert anna.get("files/percent/50/").json()["items"] == []
    assert anna.delete("files/percent/50/").status_code == 204
    for wrong in ("0", "101", "-1", "half", "1.5", "%D9%A1", "000199999"):
        assert_error(anna.get(f"files/percent/{wrong}/"), 400)
        assert_error(anna.delete(f"files/percent/{wrong}/"), 400)
    assert_error(anna.delete("files/percent/10/", exclude="avatars"), 400, "exclude")
    assert anna.get("files/percent/10/", obj_per_page=1, page=2).json()["page"] == 2


def test_one_deletion_takes_several_links_of_some_bytes_and_one_of_others(anna: User, boris: User) -> None:
    shared, own, once = (os.urandom(1000) for _ in range(3))
    kept = boris.upload(shared, "kept.bin")["file"]
    gone = [anna.upload(data, "away.bin")["file"] for data in (shared, shared, own, own, own, once)]
    stored = anna.service.stored_bytes()
    assert anna.delete("files/", name="away").status_code == 204
    assert [anna.http.get(url).status_code for url in gone] == [404] * 6
    assert boris.http.get(kept).content == shared
    assert anna.service.stored_bytes() == stored - 2
    assert "miscounted" not in anna.service.cli("fsck")
