"""`POST files/upload/`."""

from __future__ import annotations

import hashlib

from tests.service import User, assert_error


def test_the_file_object_says_what_was_kept(anna: User) -> None:
    data = b"some text"
    file = anna.upload(data, "notes.txt", "text/plain", metadata={"duration": 12})
    assert file["size"] == len(data)
    assert file["hash"] == hashlib.sha1(data).hexdigest()
    assert file["hashes"] == {"sha-256": hashlib.sha256(data).hexdigest(), "sha-1": file["hash"]}
    assert (file["name"], file["media_type"], file["context"]) == ("notes.txt", "text/plain", "file")
    assert file["is_avatar"] is False
    assert file["metadata"] == {"duration": 12}
    assert file["thumbnail"] is None
    assert "thumbnails" not in file
    assert len(file["slot_id"]) >= 22
    assert file["file"] == f"{anna.service.url}/media/{file['slot_id']}/notes.txt"
    assert (file["quota"], file["used"]) == (50 * 1024 * 1024, len(data))
    assert anna.http.get(file["file"]).content == data


def test_no_file_is_refused(anna: User) -> None:
    assert_error(anna.http.post("files/upload/", files={"other": ("a", b"x")}), 400, "file")
