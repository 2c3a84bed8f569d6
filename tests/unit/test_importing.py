"""What is read of other services: Prosody's index, and the directories of ejabberd."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from media_gallery.errors import BadRequest
from media_gallery.importing import ejabberd, prosody

INDEX = rb"""item({
	["attr"] = {
		["filename"] = "\"a\'\\b\".txt";
		["size"] = "7";
		["content-type"] = "text/plain";
		["xmlns"] = "urn:xmpp:http:upload:0";
		["stamp"] = "2026-11-28T10:00:00Z";
	};
	["with"] = "romeo@\208\180\208\190\208\188.example";
	["when"] = 1764324000;
	["name"] = "request";
	["key"] = "aB-_9";
	["more"] = { 1; -2.5e3, "x"; { }; true, nil; };
});
item({ ["key"] = "other", ["when"] = 1.5, ["attr"] = { ["filename"] = "n\n", ["size"] = "1" } });
"""


def test_an_index_of_prosody_is_read(tmp_path: Path) -> None:
    place = tmp_path / "up%2dload%2eexample%2eorg"
    place.mkdir()
    (place / "uploads.list").write_bytes(INDEX + b" " * 500)  # where Prosody could not write an item
    (tmp_path / "example%2eorg").mkdir()
    assert prosody.hosts(tmp_path) == ["up-load.example.org"]
    first, second = prosody.files(tmp_path, ["up-load.example.org"])
    assert first.place == place / "http_file_share" / "aB%2d%5f9.bin"
    assert first.address == 'aB-_9/"a\'\\b".txt' and first.name == '"a\'\\b".txt'
    assert first.owner == "romeo@дом.example" and first.media_type == "text/plain"
    assert (first.created_at, first.size) == (1764324000 * 1_000_000, 7)
    assert (second.owner, second.created_at, second.media_type, second.name) == (None, 1_500_000, None, "n\n")
    item = next(prosody.items(INDEX))
    assert item["more"] == {1: 1.0, 2: -2500.0, 3: "x", 4: {}, 5: True, 6: None}


@pytest.mark.parametrize(
    "index",
    [
        b"item({", b"os.execute('x');", b'item({ ["a"] = f(); });', b"item({});x", b"item({}", b'item({["a" = 1});',
        b'item("\\999");', b"item(1.2.3);", b"item(1e999);", b"item({ [{}] = 1; });", b"item(" + b"{" * 100_000,
    ],
)  # fmt: skip
def test_an_index_that_is_no_list_of_items_is_refused(index: bytes) -> None:
    with pytest.raises(BadRequest, match="at byte"):
        list(prosody.items(index))


def test_an_index_of_other_things_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    upload = b'item({ ["key"] = %s; ["when"] = %s; ["attr"] = { ["filename"] = %s; ["size"] = %s; }; });'
    (tmp_path / "a" / "uploads.list").write_bytes(upload % (b'"k"', b"1", b'"n"', b"7"))
    assert len(list(prosody.files(tmp_path, ["a"]))) == 1
    wrong = [(b"1", b"1", b'"n"', b"7"), (b'"k"', b'"x"', b'"n"', b"7"), (b'"k"', b"1", b"{}", b"7")]
    wrong += [(b'"k"', b"1", b'"n"', size) for size in (b'"x"', b"-1", b"1.5", b"nil")]
    for item in (b"item({});", b"item(1);", *(upload % values for values in wrong)):
        (tmp_path / "a" / "uploads.list").write_bytes(item)
        with pytest.raises(BadRequest, match="no upload"):
            list(prosody.files(tmp_path, ["a"]))


def test_owners_on_ejabberd_are_found_only_if_they_are_certain() -> None:
    sha1 = hashlib.sha1(b"romeo@example.org").hexdigest()
    nobody = ejabberd.Owners()
    assert nobody.find(sha1) is None and nobody.find("romeo") is None
    by_host = ejabberd.Owners(host="example.org")
    assert by_host.find("romeo.m-1") == "romeo.m-1@example.org"
    assert by_host.find(sha1) is None
    assert by_host.find("romeo_m") is None  # it may be romeo+m
    users = ejabberd.Owners(["romeo@example.org", "romeo+m@example.org", "ромео@example.org"], "example.org")
    assert users.find(sha1) == "romeo@example.org" == users.find("romeo")
    assert users.find("romeo_m") == "romeo+m@example.org" and users.find("ромео") == "ромео@example.org"
    assert users.find("juliet") is None  # has no account there any more
    several = ejabberd.Owners(["romeo+m@example.org", "romeo_m@example.org"], "example.org")
    assert several.find("romeo_m") is None


def test_files_of_ejabberd_are_found_in_their_places(tmp_path: Path) -> None:
    for path in ("romeo/slot1/a.txt", "romeo/slot1/120.png", "juliet/slot2/б.txt"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("x")
    (tmp_path / "other.txt").write_text("not of the module")
    (tmp_path / "link").symlink_to(tmp_path / "romeo")
    found = {file.address: file.owner for file in ejabberd.files(tmp_path, ejabberd.Owners(host="example.org"))}
    assert found == {"romeo/slot1/a.txt": "romeo@example.org", "romeo/slot1/120.png": "romeo@example.org",
                     "juliet/slot2/б.txt": "juliet@example.org"}  # fmt: skip
