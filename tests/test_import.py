"""`media-gallery import`, with files that lie as ejabberd lays them. tests/xmpp shows it with those of real servers."""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests import warm
from tests.service import MIB, PATIENCE, Service, anyone, assert_error, environment
from tests.waiting import wait_until

AN_HOUR_AGO = int(time.time()) - 3600


def aged(place: Path) -> None:
    """Let a file look as if it had come an hour ago; in a directory, all of them."""
    for path in [place] if place.is_file() else place.rglob("*.*"):
        os.utime(path, (AN_HOUR_AGO, AN_HOUR_AGO))


def report_of(printed: str) -> dict[str, Any]:
    """The report that was printed as JSON; warnings may follow it."""
    return dict(json.loads(printed[: printed.rindex("}") + 1]))


class Docroot:
    """Files of users of a host that no other test has."""

    def __init__(self, path: Path) -> None:
        self.path, self.host = path / "upload", f"{uuid4().hex}.example"
        self.base = f"/old-{uuid4().hex}"

    def add(self, user: str, name: str, data: bytes) -> str:
        """Add a file of an hour ago; return its path at the old service."""
        place = self.path / user / uuid4().hex / name
        place.parent.mkdir(parents=True)
        place.write_bytes(data)
        place.chmod(0o644)
        aged(place)
        return f"{self.base}/{place.relative_to(self.path)}"

    def words(self, *more: str) -> list[str]:
        return ["import", "ejabberd", str(self.path), "--host", self.host, "--address", self.base, *more]

    def import_to(self, service: Service, *more: str, code: int = 0) -> dict[str, Any]:
        return report_of(service.cli(*self.words(*more, "--json"), code=code))


@pytest.fixture
def docroot(tmp_path: Path) -> Docroot:
    return Docroot(tmp_path)


def test_a_run_that_was_killed_is_begun_again_and_takes_nothing_twice(service: Service, docroot: Docroot) -> None:
    files = {docroot.add("anna", f"{n}.bin", os.urandom(2000 + n)): n for n in range(40)}
    docroot.add("anna", "large.bin", os.urandom(3_000_000))
    user = service.user(jid=f"anna@{docroot.host}")
    run = warm.Running(docroot.words(), environment(**service.settings), Path("/dev/null"), Path("/dev/null"))
    wait_until(lambda: user.used() or run.poll() is not None)
    run.kill()
    run.wait(PATIENCE)
    before = len(user.everything())
    report = docroot.import_to(service)
    assert (report["taken"] + report["known"], report["damaged"]) == (41, 0) and report["known"] >= before > 0
    items = user.everything()
    assert sorted(item["name"] for item in items) == sorted([*(f"{n}.bin" for n in files.values()), "large.bin"])
    assert user.used() == sum(item["size"] for item in items)
    for path in files:
        assert anyone.get(service.url + path).status_code == 200
    if not service.settings.get("STORAGE_URL"):
        assert all(place.stat().st_nlink > 1 for place in docroot.path.rglob("*.bin"))
    assert docroot.import_to(service, "--verify")["known"] == 41


def test_files_that_differ_from_what_was_taken_over_are_told(service: Service, docroot: Docroot) -> None:
    docroot.add("anna", "longer.bin", b"first")
    docroot.add("anna", "other.bin", b"right")
    docroot.import_to(service)
    for place in docroot.path.rglob("*.bin"):
        place.unlink()  # it may be the same file as ours
        place.write_bytes(b"longer" if place.name == "longer.bin" else b"wrong")
    assert docroot.import_to(service, code=1)["damaged"] == 1
    report = docroot.import_to(service, "--verify", code=1)
    assert report["damaged"] == 2 and "other.bin: has another content" in "".join(report["told"])


def test_files_without_an_owner_get_one_or_stay_behind(service: Service, docroot: Docroot) -> None:
    paths = [docroot.add("an_a", "node.txt", b"1"), docroot.add("no user", "no.txt", b"")]
    assert docroot.import_to(service)["without_owner"] == 2
    told = service.cli(*docroot.words())
    assert "an_a" in told and "nobody knows whose it is" in told
    rest = f"rest@{docroot.host}"
    assert docroot.import_to(service, "--ownerless", rest)["taken"] == 2
    assert [anyone.get(service.url + path).content for path in paths] == [b"1", b""]
    assert {item["name"] for item in service.user(jid=rest).items()} == {"node.txt", "no.txt"}


def test_an_owner_of_whom_only_a_digest_is_known_finds_the_files(
    service: Service, docroot: Docroot, tmp_path: Path
) -> None:
    anna, boris = (f"{name}@{docroot.host}" for name in ("anna", "boris"))
    hers, his = (hashlib.sha1(jid.encode()).hexdigest() for jid in (anna, boris))
    size = 60 * MIB  # more than the default quota
    large = docroot.add(hers, "hers.bin", b"")
    os.truncate(docroot.path / large.removeprefix(f"{docroot.base}/"), size)
    aged(docroot.path)
    docroot.add(his, "his.txt", b"his")
    (tmp_path / "users").write_text("boris\njuliet\n")
    dry, report = (
        docroot.import_to(service, "--users", str(tmp_path / "users"), *more) for more in (["--dry-run"], [])
    )
    assert dry == report and report["over_quota"] == {f"sha1:{hers}": {"limit": 50 * MIB, "used": size}}
    assert [item["name"] for item in service.user(jid=boris).items()] == ["his.txt"]
    user = service.user(jid=anna)  # signs in for the first time
    assert [item["size"] for item in user.items()] == [size]
    assert_error(user.send(b"one more"), 403)
    assert user.get("account/quota/").json() == {"quota": 50 * MIB, "used": size}
    user.delete("files/", name="hers")
    assert anyone.head(service.url + large).status_code == 404


def test_old_addresses_end_with_their_account_and_hide_none_of_ours(service: Service, docroot: Docroot) -> None:
    path, user = docroot.add("anna", "a.txt", b"text"), service.user(jid=f"anna@{docroot.host}")
    docroot.import_to(service)
    assert anyone.get(service.url + path.replace("a.txt", "b.txt")).status_code == 404
    assert anyone.put(service.url + path, content=b"x").status_code == 404
    twice = anyone.get(service.url + path.replace(".txt", "%252Etxt"))  # as some clients encode it
    assert twice.content == b"text"
    assert "/{old_address:path}" in {line.get("route") for line in service.log_lines()}
    assert user.delete("account/").status_code == 204
    assert anyone.get(service.url + path).status_code == 404
    for ours in ("/api/v1", "/metrics", "/web", "https://gallery.example.org/readyz/"):
        assert "this service's own" in service.cli("import", "ejabberd", str(docroot.path), "--address", ours, code=1)
    docroot.base = "/media"
    shared = docroot.add("boris", "b.txt", b"theirs")
    docroot.import_to(service)
    assert anyone.get(service.url + shared).content == b"theirs"
    uploaded = user.service.user().upload(b"ours")
    assert anyone.get(uploaded["file"]).content == b"ours"


def test_a_place_without_files_of_the_service_is_told(service: Service, tmp_path: Path) -> None:
    assert "internal storage" in service.cli("import", "prosody", str(tmp_path), code=1)
    (tmp_path / "a%2eexample").mkdir()
    (tmp_path / "a%2eexample" / "uploads.list").write_text("item({")
    assert "a.example" in service.cli("import", "prosody", str(tmp_path), "--host", "b.example", code=1)
    assert "not as Prosody writes it" in service.cli("import", "prosody", str(tmp_path), code=1)
    assert "No such file" in service.cli("import", "ejabberd", str(tmp_path / "missing"), code=1)
