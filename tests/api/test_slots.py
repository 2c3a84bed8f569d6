"""`GET files/slot/`."""

from __future__ import annotations

import hashlib
import os

import pytest

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
    assert found["hash"] == digest  # the one that was asked with
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


def test_type_and_context_may_be_said_anew(anna: User) -> None:
    data = os.urandom(50)
    anna.upload(data, "a.ogg", "audio/ogg")
    digest = hashlib.sha1(data).hexdigest()
    found = anna.get("files/slot/", name="a.ogg", size=50, hash=digest, media_type="audio/ogg+voice").json()
    assert (found["media_type"], found["context"]) == ("audio/ogg", "voice")
    found = anna.get("files/slot/", name="a.ogg", size=50, hash=digest, context="voice").json()
    assert found["context"] == "voice"
    found = anna.get("files/slot/", name="a.ogg", size=50, hash=digest, media_type="audio/opus").json()
    assert (found["media_type"], found["context"]) == ("audio/opus", "voice")  # as the newest one
    found = anna.get("files/slot/", name="a.ogg", size=50, hash=digest, media_type="ogg").json()
    assert (found["media_type"], found["context"]) == ("audio/opus", "voice")


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
        assert set(body) == {"status", "error", "details"}  # a quota beside them is a yes for web clients


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
