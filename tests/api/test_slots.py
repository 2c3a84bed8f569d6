"""`GET files/slot/`."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from media_gallery.app import microseconds
from tests import samples
from tests.service import MIB, User, assert_error


def test_a_file_that_is_not_there_may_come(anna: User) -> None:
    answer = anna.get("files/slot/", name="a.bin", size=1000)
    assert (answer.status_code, answer.json()) == (200, {"quota": 50 * MIB, "used": 0, "max_file_size": 20 * MIB})
    for digest in ("0" * 40, "0" * 64, "0" * 32, "0" * 128, "sha-512:abc"):
        answer = anna.get("files/slot/", name="a.bin", size=1000, hash=digest)
        assert (answer.status_code, set(answer.json())) == (200, {"quota", "used", "max_file_size"})


@pytest.mark.parametrize("algorithm", ["sha1", "sha256"])
def test_a_known_file_gets_a_new_link(anna: User, algorithm: str) -> None:
    data = os.urandom(3000)
    first = anna.upload(data, "first.jpg", "image/jpeg", metadata={"a": 1})
    digest = hashlib.new(algorithm, data).hexdigest()
    found = anna.get("files/slot/", name="second name.jpg", size=3000, hash=digest.upper()).json()
    assert found["hash"] == digest  # the digest of the request
    assert found["hashes"]["sha-256"] == hashlib.sha256(data).hexdigest()
    assert found["id"] != first["id"] and found["slot_id"] != first["slot_id"]
    assert (found["name"], found["media_type"]) == ("second name.jpg", "image/jpeg")
    assert (found["used"], found["quota"]) == (6000, 50 * MIB)
    assert anna.http.get(found["file"]).content == data
    anna.delete("files/", id=first["id"])
    assert anna.http.get(found["file"]).content == data


def test_the_size_must_fit_too(anna: User) -> None:
    data = b"12345"
    anna.upload(data)
    answer = anna.get("files/slot/", name="a", size=6, hash=hashlib.sha1(data).hexdigest())
    assert "file" not in answer.json()


def test_the_request_may_change_type_and_context(anna: User) -> None:
    data = os.urandom(50)
    anna.upload(data, "a.ogg", "audio/ogg")
    digest = hashlib.sha1(data).hexdigest()
    found = anna.get("files/slot/", name="a.ogg", size=50, hash=digest, media_type="audio/ogg+voice").json()
    assert (found["media_type"], found["context"]) == ("audio/ogg", "voice")
    found = anna.get("files/slot/", name="a.ogg", size=50, hash=digest, context="voice").json()
    assert found["context"] == "voice"
    found = anna.get("files/slot/", name="a.ogg", size=50, hash=digest, media_type="audio/opus").json()
    assert (found["media_type"], found["context"]) == ("audio/opus", "voice")  # as in the newest link
    found = anna.get("files/slot/", name="a.ogg", size=50, hash=digest, media_type="ogg").json()
    assert (found["media_type"], found["context"]) == ("audio/opus", "voice")


def test_metadata_stay_unless_the_request_changes_them(anna: User) -> None:
    data, meters = os.urandom(60), {"meters": "1 2 3", "duration": 4}
    anna.upload(data, "a.ogg", "audio/ogg", metadata=meters)
    digest = hashlib.sha1(data).hexdigest()
    found = anna.get("files/slot/", name="b.ogg", size=60, hash=digest, media_type="audio/ogg").json()
    assert (found["metadata"], found["context"]) == (meters, "voice")
    found = anna.get("files/slot/", name="c.ogg", size=60, hash=digest, metadata='{"duration": 5}').json()
    assert found["metadata"] == {"duration": 5}
    assert anna.items(name="b.ogg")[0]["metadata"] == meters
    assert_error(anna.get("files/slot/", name="c", size=60, hash=digest, metadata="[1]"), 400, "metadata")


# --- An upload after a hit ---


def hit(user: User, data: bytes, name: str = "sent.bin", **said: str) -> dict[str, Any]:
    """The link that a slot gives if the account has these bytes."""
    digest = hashlib.sha256(data).hexdigest()
    found = user.get("files/slot/", name=name, size=len(data), hash=digest, **said).json()
    assert found["file"]
    return dict(found)


def test_one_upload_after_a_slot_hit_takes_over_its_link(anna: User) -> None:
    data = os.urandom(5000)
    anna.upload(data, "first.bin", metadata={"a": 1})
    found, stored = hit(anna, data), anna.service.stored_bytes()
    taken = anna.upload(data, "sent.bin")
    found["hash"] = found["hashes"]["sha-1"]  # the slot's answer has the digest of its request
    assert taken == found
    assert (anna.used(), len(anna.items())) == (10_000, 2)
    again = anna.upload(data, "sent.bin")
    assert again["id"] != found["id"] and anna.used() == 15_000
    assert anna.service.stored_bytes() == stored
    for file in (found, again):
        assert anna.http.get(file["file"]).content == data


def test_a_slot_hit_that_fills_the_quota_leaves_room_for_its_upload_alone(admin: User, anna: User) -> None:
    data = os.urandom(600)
    anna.upload(data, "first.bin")
    admin.put("account/quota/", jid=anna.jid, value=1500)
    found = hit(anna, data)
    assert_error(anna.send(os.urandom(600), "sent.bin"), 403)
    for size in (601, 2 * MIB):  # the second comes in several pieces
        refusal = anna.send(os.urandom(size), "sent.bin")
        assert_error(refusal, 403)
        assert (refusal.json()["details"]["quota"], refusal.json()["details"]["used"]) == (1500, 1200)
    assert anna.upload(data, "sent.bin")["id"] == found["id"] and anna.used() == 1200
    assert_error(anna.send(data, "sent.bin"), 403)
    assert_error(anna.get("files/slot/", name="x", size=600, hash=found["hash"]), 403)


def test_the_link_has_what_the_upload_says(anna: User) -> None:
    data = samples.picture("png", 91, 92)
    anna.upload(data, "first", "application/x-unheard-of")
    found = hit(anna, data, "photo.png")
    assert found["thumbnail"] is None
    taken = anna.upload(data, "photo.png", "image/png", metadata={"width": 91})
    assert (taken["id"], taken["file"], taken["metadata"]) == (found["id"], found["file"], {"width": 91})
    assert (taken["media_type"], taken["width"]) == ("image/png", 91)
    assert samples.is_image(anna.http.get(taken["thumbnail"]["url"]).content)
    sound = os.urandom(70)
    anna.upload(sound, "first.ogg", "audio/ogg")
    found = hit(anna, sound, "voice.ogg")
    assert found["context"] == "file"
    taken = anna.upload(sound, "voice.ogg", "audio/ogg", metadata={"meters": "5"})
    assert (taken["id"], taken["context"]) == (found["id"], "voice")
    stats = anna.get("files/stats/").json()
    assert stats["voices"] == {"count": 1, "used": 70} and stats["images"] == {"count": 1, "used": len(data)}
    assert stats["total"]["used"] == anna.used() == 2 * len(data) + 140
    assert anna.items(type="voice")[0]["id"] == found["id"]


def test_a_link_keeps_what_the_upload_does_not_say(anna: User) -> None:
    data = os.urandom(80)
    anna.upload(data, "first", "audio/ogg+voice", metadata={"meters": "5"})
    found = hit(anna, data, "voice")
    taken = anna.upload(data, "voice", "multipart/form-data")
    kept = ("id", "media_type", "context", "metadata")
    assert [taken[key] for key in kept] == [found[key] for key in kept]


def test_a_link_that_no_upload_takes_over(anna: User, boris: User) -> None:
    data = os.urandom(90)
    anna.upload(data, "first.bin")
    boris.upload(data, "first.bin")
    before = microseconds()
    found = hit(anna, data)
    after = microseconds()
    for user, sent, name in ((anna, data, "other.bin"), (boris, data, "sent.bin"), (anna, data[:-1], "sent.bin")):
        assert user.upload(sent, name)["id"] != found["id"]
    past = "UPDATE links SET awaited_until = $2 WHERE id = $1 AND awaited_until > $2"
    ten_minutes = "SELECT 1 FROM links WHERE id = $1 AND awaited_until BETWEEN $2 AND $3"
    assert anna.service.within(
        lambda g: g.db.read(lambda c: c.one(ten_minutes, found["id"], before + 600 * 10**6, after + 600 * 10**6))
    )
    anna.service.within(lambda g: g.db.write(lambda c: c.run(past, found["id"], before)))
    assert anna.upload(data, "sent.bin")["id"] != found["id"]
    gone = hit(anna, data, "gone.bin")
    anna.delete("files/", id=gone["id"])
    assert anna.upload(data, "gone.bin")["id"] != gone["id"]
    face = samples.picture("png", 50, 50)
    avatar = anna.avatar(face, "me.png")
    plain = hit(anna, anna.http.get(avatar["file"]).content, "me.png")
    assert plain["context"] == "file"
    assert anna.avatar(anna.http.get(avatar["file"]).content, "me.png")["id"] != plain["id"]


def test_uploads_at_once_take_it_over_once(anna: User) -> None:
    data = os.urandom(100)
    anna.upload(data, "first.bin")
    found = hit(anna, data)
    with ThreadPoolExecutor(4) as threads:
        sent = list(threads.map(lambda _: anna.upload(data, "sent.bin")["id"], range(4)))
    assert len(set(sent)) == 4 and found["id"] in sent
    assert anna.used() == 500 and len(anna.items()) == 5


def test_another_accounts_file_is_never_given_away(anna: User, boris: User) -> None:
    data = os.urandom(100)
    boris.upload(data)
    for digest in (hashlib.sha1(data).hexdigest(), hashlib.sha256(data).hexdigest()):
        assert set(anna.get("files/slot/", name="a", size=100, hash=digest).json()) == {
            "quota",
            "used",
            "max_file_size",
        }


def test_no_avatar_is_made_of_a_plain_file(anna: User) -> None:
    data = samples.picture("png", 60, 60)
    anna.upload(data, "a.png")
    answer = anna.get(
        "files/slot/", name="a.png", size=len(data), hash=hashlib.sha1(data).hexdigest(), context="avatar"
    )
    assert "file" not in answer.json()


def test_it_refuses_what_the_upload_would(anna: User, admin: User) -> None:
    body = assert_error(anna.get("files/slot/", name="a", size=20 * MIB + 1), 413)
    assert body["details"] == {"max_file_size": 20 * MIB}
    admin.put("account/quota/", jid=anna.jid, value=1000)
    anna.upload(b"x" * 600)
    digest = hashlib.sha1(b"x" * 600).hexdigest()
    for hash_ in ("", digest):
        body = assert_error(anna.get("files/slot/", name="a", size=600, hash=hash_), 403)
        assert body["details"] == {"quota": 1000, "used": 600, "required": 600}
        assert set(body) == {"status", "error", "details"}  # web clients take an answer with a `quota` for a success


def test_name_and_size_are_required(anna: User) -> None:
    assert_error(anna.get("files/slot/"), 400, "name", "size")
    assert_error(anna.get("files/slot/", name="a"), 400, "size")
    assert_error(anna.get("files/slot/", name="a", size="big"), 400, "size")
    assert_error(anna.get("files/slot/", name="a", size=-1), 400, "size")
    assert_error(anna.get("files/slot/", name="a", size=2**70), 400, "size")


def test_names_are_cleaned(anna: User) -> None:
    anna.upload(b"clean me")
    found = anna.get("files/slot/", name="../x\x00y.txt", size=8, hash=hashlib.sha1(b"clean me").hexdigest()).json()
    assert found["name"] == "xy.txt"
