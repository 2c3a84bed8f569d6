"""Backups while the service runs, and what can be restored from them."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from tests import samples
from tests.service import MIB, PROGRAM, Service, User, environment


def back_up(service: Service, target: Path, *more: str) -> dict[str, Any]:
    [copied] = json.loads(service.cli("backup", str(target), "--json", *more))
    return dict(copied)


@pytest.fixture
def restored(backend: Callable[[], dict[str, Any]], tmp_path: Path) -> Iterator[Callable[[Path], Service]]:
    """A service on a restored backup, in another place."""
    started: list[Service] = []

    def bring(source: Path) -> Service:
        service = Service(tmp_path / "restored", **backend())
        service.data_dir.mkdir(parents=True)
        started.append(service)
        service.cli("restore", str(source))
        assert ", 0 wrong" in service.cli("fsck")
        return service.start()

    yield bring
    for service in started:
        if service.process:
            service.stop()


def test_everything_comes_back(
    start_service: Callable[..., Service], restored: Callable[[Path], Service], tmp_path: Path
) -> None:
    service = start_service()
    user = service.user()
    file = user.upload(os.urandom(5000), "файл.bin", metadata={"a": 1})
    photo, avatar = user.upload(samples.picture("jpeg"), "photo.jpg"), user.avatar(samples.picture("png", 60, 60))
    gone = user.upload(b"gone")
    user.delete("files/", id=gone["id"])
    copied = back_up(service, tmp_path / "copy")
    assert copied["files"] == 3 and copied["known"] == 0
    data = user.http.get(file["file"]).content
    service.stop()
    shutil.rmtree(service.data_dir)
    again = restored(tmp_path / "copy")
    owner = User(again, user.jid, user.token)
    assert [item["id"] for item in owner.items(contexts="file,voice,avatar")] == [avatar["id"], photo["id"], file["id"]]
    assert owner.http.get(owner.items(name="файл")[0]["file"]).content == data
    for item in owner.items(contexts="avatar"):
        for thumbnail in item["thumbnails"]:
            assert owner.http.get(thumbnail["url"]).status_code == 200  # made again
    assert owner.upload(b"new")["id"] == gone["id"] + 1
    assert owner.used() == file["size"] + photo["size"] + avatar["size"] + 3


def test_under_load(start_service: Callable[..., Service], restored: Callable[[Path], Service], tmp_path: Path) -> None:
    service = start_service()
    user = service.user()
    before = [user.upload(os.urandom(2000), f"before {number}.bin") for number in range(50)]
    stop = threading.Event()

    def live(seed: int) -> None:
        other, dice, mine = service.user(), random.Random(seed), []
        while not stop.is_set():
            mine.append(other.upload(os.urandom(1000))["id"])
            if dice.random() < 0.5:
                other.delete("files/", id=mine.pop(dice.randrange(len(mine))))

    threads = [threading.Thread(target=live, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    first = back_up(service, tmp_path / "copy")
    second = back_up(service, tmp_path / "copy")
    beside = back_up(service, tmp_path / "other", "--older", str(tmp_path / "copy"))
    stop.set()
    for thread in threads:
        thread.join()
    assert first["files"] >= 50 and second["known"] >= 50 and beside["files"] >= 50
    again = restored(tmp_path / "other")
    owner = User(again, user.jid, user.token)
    assert {item["name"] for item in owner.items()} == {file["name"] for file in before}
    for item in owner.items(obj_per_page=5):
        assert len(owner.http.get(item["file"]).content) == 2000


def inodes(place: Path) -> dict[str, int]:
    return {path.name: path.stat().st_ino for path in (place / "blobs").rglob("*") if path.is_file()}


def test_links_on_the_same_file_system_copies_on_another(
    start_service: Callable[..., Service], restored: Callable[[Path], Service], tmp_path: Path
) -> None:
    service = start_service()
    user = service.user()
    for size in (0, 700, 2 * MIB):
        user.upload(os.urandom(size))
    first, second = tmp_path / "first", tmp_path / "second"
    back_up(service, first)
    assert back_up(service, second, "--older", str(first))["files"] == 3
    assert inodes(second) == inodes(first)
    if not service.settings.get("STORAGE_URL"):
        assert inodes(first) == inodes(service.data_dir)
    with TemporaryDirectory(dir="/dev/shm") as elsewhere:
        if Path(elsewhere).stat().st_dev == tmp_path.stat().st_dev:
            pytest.skip("there is no other file system")
        third = Path(elsewhere) / "third"
        assert back_up(service, third, "--older", str(first))["files"] == 3
        assert inodes(third).keys() == inodes(first).keys()
        for path in (third / "blobs").rglob("*"):
            assert path.is_dir() or path.stat().st_nlink == 1
            assert path.is_dir() or path.read_bytes() == (first / path.relative_to(third)).read_bytes()
        owner = User(restored(third), user.jid, user.token)
        assert [len(owner.http.get(item["file"]).content) for item in owner.items()] == [2 * MIB, 700, 0]


def test_bytes_are_on_disk_before_the_rows_that_name_them(
    start_service: Callable[..., Service], tmp_path: Path
) -> None:
    service = start_service()
    service.user().upload(os.urandom(3000))
    with TemporaryDirectory(dir="/dev/shm") as elsewhere:
        target, trace = Path(elsewhere) / "copy", tmp_path / "trace"
        command = [
            shutil.which("strace") or "strace",
            "-f",
            "-y",
            "-e",
            "trace=fsync,fdatasync,rename",
            "-o",
            str(trace),
        ]
        done = subprocess.run([*command, PROGRAM, "backup", str(target)], env=environment(**service.settings),
                              capture_output=True, text=True, timeout=120)  # fmt: skip
        if "ptrace" in done.stderr:
            pytest.skip("tracing is not allowed here")
        assert done.returncode == 0, done.stderr
        [key] = inodes(target)
        order = [
            rf"fsync\(\d+<{target}/blobs/{key[:2]}/\.{key}>",
            rf'rename\("{target}/blobs/{key[:2]}/\.{key}", ',
            rf"fsync\(\d+<{target}/blobs/{key[:2]}>",
            rf"fsync\(\d+<{target}/blobs>",
            rf'rename\("{target}/\.gallery\.sqlite", ',
            rf"fsync\(\d+<{target}>",
        ]
        assert re.search(".*".join(order), trace.read_text(), re.DOTALL), trace.read_text()


def test_a_second_backup_drops_what_was_deleted(start_service: Callable[..., Service], tmp_path: Path) -> None:
    service = start_service()
    user = service.user()
    file = user.upload(b"first")
    back_up(service, tmp_path)
    user.upload(b"second")
    user.delete("files/", id=file["id"])
    assert back_up(service, tmp_path)["files"] == 1
    assert len([path for path in (tmp_path / "blobs").rglob("*") if path.is_file()]) == 1


def test_a_restore_needs_an_empty_target(start_service: Callable[..., Service], tmp_path: Path) -> None:
    service = start_service()
    service.user().upload(b"x")
    back_up(service, tmp_path / "copy")
    assert "stop it first" in service.cli("restore", str(tmp_path / "copy"), code=1)
    service.stop()
    assert "not empty" in service.cli("restore", str(tmp_path / "copy"), code=1)
    assert "is no backup" in service.cli("restore", str(tmp_path), code=1)
