"""The local store: what is on disk before an upload is acknowledged, and what happens when there is no room."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from media_gallery.storage.local import BATCH
from tests.faults.raw import END, part
from tests.service import MIB, Service, assert_error


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 12 MiB of its own."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", place], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting is not allowed here")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def test_a_full_disk_is_507_and_loses_nothing(small_disk: Path, start_service: Callable[..., Service]) -> None:
    service = start_service(DATA_DIR=small_disk / "data")
    service.data_dir = small_disk / "data"
    user = service.user()
    kept = user.upload(os.urandom(MIB))
    filler = small_disk / "filler"
    room = shutil.disk_usage(small_disk).free
    filler.write_bytes(b"\0" * (room - 2 * MIB))
    for size in (3 * MIB, 5 * MIB):
        assert_error(user.send(os.urandom(size)), 507)
    assert not list((service.data_dir / "staging").iterdir())
    assert user.used() == MIB
    assert len(user.http.get(kept["file"]).content) == MIB
    with filler.open("ab", buffering=0) as file, pytest.raises(OSError):
        while True:
            file.write(b"\0" * 4096)
    assert service.http.get("/readyz").status_code in (503, 507)
    answer = user.send(os.urandom(100))
    assert answer.status_code in (503, 507), answer.text
    assert len(user.http.get(kept["file"]).content) == MIB
    filler.unlink()
    assert user.upload(os.urandom(3 * MIB))["used"] == 4 * MIB
    assert user.delete("files/", id=kept["id"]).status_code == 204
    assert "0 wrong" in service.cli("fsck")


@pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed")
@pytest.mark.parametrize("size", [2000, 3 * BATCH])
def test_file_and_directory_are_synced_before_the_answer(
    start_service: Callable[..., Service], tmp_path: Path, size: int
) -> None:
    service = start_service()
    user = service.user()
    user.upload(b"warm")
    traced = tmp_path / "trace"
    assert service.process
    children = subprocess.run(
        ["pgrep", "-P", str(service.process.pid)], capture_output=True, text=True, check=True
    ).stdout.split()
    calls = "trace=openat,fsync,fdatasync,rename,sendto,write,writev,sendmsg"
    tracer = subprocess.Popen(
        ["strace", "-f", "-y", "-e", calls, "-o", str(traced), *[word for pid in children for word in ("-p", pid)]],
        stderr=subprocess.PIPE,
    )
    service.wait_until(
        lambda: (
            tracer.poll() is not None
            or (traced.exists() and service.http.get("/healthz").is_success and traced.stat().st_size)
        )
    )
    if tracer.poll() is not None:
        pytest.skip("tracing is not allowed here")
    body = part("file", os.urandom(size), "a.bin") + END
    answer = user.http.post(
        "files/upload/", content=body, headers={"Content-Type": "multipart/form-data; boundary=faults"}
    )
    assert answer.status_code == 201
    tracer.send_signal(signal.SIGINT)
    tracer.wait()
    lines = traced.read_text().splitlines()
    sent = next(number for number, line in enumerate(lines) if "201 Created" in line)
    before = "\n".join(lines[:sent])
    file = re.search(r"fsync\(\d+<\S*/blobs/../([0-9a-f]{32})>", before)
    assert file, before
    key = file[1]
    directory = re.search(rf"fsync\(\d+<\S*/blobs/{key[:2]}>", before)
    database = [match.start() for match in re.finditer(r"(fsync|fdatasync)\(\d+<\S*gallery\.sqlite-wal>", before)]
    assert directory
    if size >= BATCH:
        moved = re.search(rf"rename\(.*staging/{key}.*blobs/{key[:2]}/{key}", before)
        assert moved and moved.start() < file.start()
    assert file.start() < directory.start()
    if "DATABASE_URL" not in service.settings:  # another one syncs in a process of its own
        assert directory.start() < database[-1]
