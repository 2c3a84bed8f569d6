"""The local store: what is on disk before an upload is acknowledged, and what happens when there is no room."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from bench.servers import family
from media_gallery.http.media import PLACEHOLDER
from media_gallery.storage.staging import BATCH
from tests import samples
from tests.faults.raw import END, part
from tests.service import MIB, SMALL, Service, assert_error


def mount(*words: object) -> None:
    mounted = subprocess.run(["mount", *map(str, words)], capture_output=True)
    if mounted.returncode:
        said = mounted.stderr.decode()
        assert "permission denied" in said or "superuser" in said, said
        pytest.skip("mounting is not allowed here")


def unmount(place: Path) -> None:
    subprocess.run(["umount", "-l", place], check=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A separate file system with room for 12 MiB and 1500 files."""
    place = tmp_path / "small"
    place.mkdir()
    mount("-t", "tmpfs", "-o", "size=12m,nr_inodes=1500", "tmpfs", place)
    yield place
    unmount(place)


def fill(disk: Path, leave: int) -> None:
    """Fill a file system with somebody else's data until only `leave` bytes are free."""
    with (disk / "filler").open("ab", buffering=0) as file, suppress(OSError):
        while (more := shutil.disk_usage(disk).free - leave) > 0:
            file.write(b"\0" * min(more, MIB))


def test_a_full_disk_is_507_and_loses_nothing(small_disk: Path, start_service: Callable[..., Service]) -> None:
    service = start_service(DATA_DIR=small_disk / "data", MIN_FREE_SPACE="0")
    service.data_dir = small_disk / "data"
    user = service.user()
    kept = user.upload(os.urandom(MIB))
    fill(small_disk, 2 * MIB)
    for size in (3 * MIB, 5 * MIB):
        assert_error(user.send(os.urandom(size)), 507)
    assert not list((service.data_dir / "staging").iterdir())
    assert user.used() == MIB
    assert len(user.http.get(kept["file"]).content) == MIB
    fill(small_disk, 0)
    assert service.http.get("/readyz").status_code in (503, 507)
    answer = user.send(os.urandom(100))
    assert answer.status_code in (503, 507), answer.text
    assert len(user.http.get(kept["file"]).content) == MIB
    (small_disk / "filler").unlink()
    assert user.upload(os.urandom(3 * MIB))["used"] == 4 * MIB
    assert "0 wrong" in service.cli("fsck")


def test_if_no_upload_fits_deletions_still_work(small_disk: Path, start_service: Callable[..., Service]) -> None:
    service = start_service(DATA_DIR=small_disk / "data", MIN_FREE_SPACE="4 MiB", STORAGE_URL="")
    service.data_dir = small_disk / "data"
    user, leaver, large = service.user(), service.user("boris"), os.urandom(MIB)
    file, again = user.upload(large), user.upload(b"small")
    leaver.upload(os.urandom(3000))
    fill(small_disk, 6 * MIB)
    assert_error(user.send(os.urandom(4 * MIB)), 507)  # it would use the room that is kept for deletions
    assert not list((service.data_dir / "staging").iterdir())
    assert user.upload(b"a small one")["used"] == MIB + 16
    fill(small_disk, 4 * MIB - 200_000)
    for data in (b"new", large):
        assert_error(user.send(data), 507)
    assert_error(user.get("files/slot/", name="again.bin", size=5, hash=again["hash"]), 507)
    assert_error(service.http.get("/readyz"), 507)
    assert user.http.get(file["file"]).content == large
    assert user.delete("files/", id=again["id"]).status_code == 204
    assert leaver.delete("account/").status_code == 204
    assert user.delete("files/", id=file["id"]).status_code == 204
    service.wait_until(lambda: user.send(b"new").status_code == 201)  # the deletion has freed a megabyte
    (small_disk / "filler").unlink()
    assert user.upload(os.urandom(3 * MIB))["used"] == 3 * MIB + 14
    assert "0 wrong" in service.cli("fsck")


def fill_with_files(disk: Path) -> Path:
    """Make somebody else's files until no more can be made; return their directory."""
    place = disk / "filler"
    place.mkdir()
    with suppress(OSError):
        for number in itertools.count():
            (place / str(number)).touch()
    return place


@pytest.mark.parametrize("full", ["blocks", "inodes"])
def test_people_can_delete_on_a_disk_without_any_free_room(
    small_disk: Path, start_service: Callable[..., Service], full: str
) -> None:
    """Refused uploads leave nothing. Once there is room again, everything works."""
    service = start_service(DATA_DIR=small_disk / "data", MIN_FREE_SPACE="0", DATABASE_URL="", STORAGE_URL="")
    service.data_dir = small_disk / "data"
    reserve = service.data_dir / "gallery.sqlite.reserve"
    user, leaver = service.user(), service.user("boris")
    files = [user.upload(os.urandom(20_000)) for _ in range(20)]
    leaver.upload(samples.picture("png", 60, 60), "a.png")
    service.wait_until(lambda: reserve.exists() and reserve.stat().st_size)
    before = service.stored("blobs", "links", "staging")
    if full == "inodes":
        fill_with_files(small_disk)
    else:
        fill(small_disk, 0)
    assert_error(user.send(os.urandom(100)), 507)
    assert_error(user.send(os.urandom(700_000)), 507)
    assert_error(user.send(samples.picture("png", 50, 50), "b.png", path="avatar/upload/"), 507)
    if full == "blocks":  # a start needs some room, too
        service.stop()
        service.start()
    assert service.stored("blobs", "links", "staging") == before and len(user.items()) == 20
    assert user.delete("files/", id=[file["id"] for file in files[:10]]).status_code == 204
    assert user.delete("files/", id=files[10]["id"]).status_code == 204
    assert leaver.delete("account/").status_code == 204
    assert user.used() == 9 * 20_000
    if full == "inodes":
        shutil.rmtree(small_disk / "filler")
    else:
        (small_disk / "filler").unlink()
    assert user.upload(os.urandom(MIB))["used"] == MIB + 9 * 20_000
    service.tidy()
    assert reserve.stat().st_size
    assert "0 for gc, 0 wrong" in service.cli("fsck", GC_GRACE="0")


def test_a_deletion_does_not_wait_for_a_store_that_can_only_be_read(
    tmp_path: Path, start_service: Callable[..., Service]
) -> None:
    service = start_service(STORAGE_URL="")
    user = service.user()
    gone, kept = user.upload(os.urandom(1000)), user.upload(os.urandom(1000))
    places = [service.data_dir / kind for kind in ("blobs", "thumbs", "links", "staging")]
    with ExitStack() as stack:
        for place in places:
            mount("--bind", place, place)
            stack.callback(unmount, place)
            mount("-o", "remount,bind,ro", place)
        for size in (1000, 700_000):
            assert_error(user.send(os.urandom(size)), 503)
        assert_error(service.http.get("/readyz"), 503)
        assert user.delete("files/", id=gone["id"]).status_code == 204
        assert user.http.get(gone["file"]).status_code == 404
        assert len(user.items()) == 1
    service.tidy()
    assert len(service.stored("blobs")) == 1 and user.http.get(kept["file"]).is_success
    assert not service.stored("links") or gone["slot_id"] not in str(service.stored("links"))
    assert user.upload(os.urandom(1000))["used"] == 2000
    assert "0 for gc, 0 wrong" in service.cli("fsck", GC_GRACE="0")


def test_uploads_get_503_if_a_directory_is_missing(start_service: Callable[..., Service]) -> None:
    service = start_service()
    user = service.user()
    kept = user.upload(os.urandom(MIB))
    for place in ("staging", "blobs"):
        (service.tree / place).rename(service.tree / "elsewhere")
        for size in (3 * MIB, 100) if place == "blobs" else (3 * MIB,):
            assert_error(user.send(os.urandom(size)), 503)
        if place == "staging":
            assert_error(service.http.get("/readyz"), 503)
        (service.tree / "elsewhere").rename(service.tree / place)
    assert user.used() == MIB
    assert service.http.get("/readyz").is_success
    service.tree.joinpath("blobs").rename(service.tree / "elsewhere")
    assert_error(user.http.get(kept["file"]), 404)
    assert user.http.head(kept["file"]).status_code == 404
    service.tree.joinpath("elsewhere").rename(service.tree / "blobs")
    assert user.upload(os.urandom(3 * MIB))["used"] == 4 * MIB


def looked_over(service: Service) -> int:
    """How often the service has published what was missing in the tree."""
    return service.log().count("the tree of links was looked over")


def test_what_is_not_synced_is_made_again(start_service: Callable[..., Service]) -> None:
    """A power cut may leave links and thumbnails missing or empty."""
    service = start_service(STORAGE_URL="")
    user = service.user()
    photo, avatar = user.upload(samples.picture("jpeg"), "a.jpg"), user.avatar(samples.picture("png", 60, 60))
    service.wait_until(lambda: looked_over(service) == 1)  # the first start looks, too
    os.killpg(service.process.pid, signal.SIGKILL)  # type: ignore[union-attr]
    for path in service.data_dir.glob("links/*/*"):
        shutil.rmtree(path)
    for number, path in enumerate(sorted(service.data_dir.glob("thumbs/*/*/*"))):
        path.write_bytes(b"") if number % 2 else path.unlink()
    (service.data_dir / "boot").write_text("another start of the machine")
    service.start()
    urls = [photo["file"], photo["thumbnail"]["url"], avatar["file"], *[small["url"] for small in avatar["thumbnails"]]]
    for url in urls:
        answer = user.http.get(url)
        assert answer.status_code == 200 and samples.is_image(answer.content)
        assert answer.content != PLACEHOLDER
    service.wait_until(lambda: looked_over(service) == 2)
    assert "0 for gc, 0 wrong" in service.cli("fsck", GC_GRACE="0")
    for mend in (["gc"], ["fsck", "--repair"]):
        for path in service.data_dir.glob("links/*/*"):
            shutil.rmtree(path)
        assert "2 wrong" in service.cli("fsck", code=1)
        service.cli(*mend)
        assert "0 for gc, 0 wrong" in service.cli("fsck", GC_GRACE="0")


@contextmanager
def traced(service: Service, trace: Path) -> Iterator[None]:
    """Record in a file, in order, what the workers write, sync and send during the block."""
    assert service.process
    children = [str(pid) for pid in family(service.process.pid)[1:]]
    calls = "trace=openat,fsync,fdatasync,rename,pwrite64,sendto,write,writev,sendmsg"
    command = ["strace", "-f", "-y", "-e", calls, "-o", str(trace), *[word for pid in children for word in ("-p", pid)]]
    tracer = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    service.wait_until(
        lambda: (
            tracer.poll() is not None
            or (trace.exists() and service.http.get("/healthz").is_success and trace.stat().st_size)
        )
    )
    if tracer.poll() is not None:
        _, said = tracer.communicate()
        assert "Operation not permitted" in said, said
        pytest.skip("tracing is not allowed here")
    yield
    tracer.send_signal(signal.SIGINT)
    tracer.wait()


def before_answer(trace: Path, status: str) -> str:
    """What was recorded before the first byte of an answer was sent."""
    return trace.read_text().partition(f"HTTP/1.1 {status}")[0]


WAL_WRITE = r"pwrite64\(\d+<\S*gallery\.sqlite-wal>"
WAL_SYNC = r"(?:fsync|fdatasync)\(\d+<\S*gallery\.sqlite-wal>"
needs_strace = pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed")


@needs_strace
@pytest.mark.parametrize("size", [2000, 3 * BATCH])
def test_file_and_directory_are_synced_before_the_answer(
    start_service: Callable[..., Service], tmp_path: Path, size: int
) -> None:
    service = start_service()
    user = service.user()
    assert service.tree
    user.upload(b"warm")
    body = part("file", os.urandom(size), "a.bin") + END
    with traced(service, tmp_path / "trace"):
        answer = user.http.post(
            "files/upload/", content=body, headers={"Content-Type": "multipart/form-data; boundary=faults"}
        )
    assert answer.status_code == 201
    before = before_answer(tmp_path / "trace", "201 Created")
    file = re.search(r"fsync\(\d+<\S*/blobs/../([0-9a-f]{32})>", before)
    assert file, before
    key = file[1]
    directory = re.search(rf"fsync\(\d+<\S*/blobs/{key[:2]}>", before)
    assert directory
    if size >= BATCH:
        moved = re.search(rf"rename\(.*staging/{key}.*blobs/{key[:2]}/{key}", before)
        assert moved and moved.start() < file.start()
    assert file.start() < directory.start()
    if "DATABASE_URL" not in service.settings:  # PostgreSQL syncs in its own process
        assert directory.start() < list(re.finditer(WAL_SYNC, before))[-1].start()


@needs_strace
def test_a_small_file_is_synced_with_its_row_before_the_answer(
    start_service: Callable[..., Service], tmp_path: Path
) -> None:
    service = start_service(DATABASE_URL="", SMALL_FILE_SIZE=SMALL)  # PostgreSQL syncs in its own process
    user = service.user()
    with traced(service, tmp_path / "trace"):
        user.upload(os.urandom(SMALL))
    before = before_answer(tmp_path / "trace", "201 Created")
    written = [match.end() for match in re.finditer(WAL_WRITE, before)]
    assert len(written) > SMALL // 4096 and written[-1] < list(re.finditer(WAL_SYNC, before))[-1].start(), before
    assert "/blobs/" not in before


@needs_strace
@pytest.mark.parametrize("what", ["files/", "account/"])
def test_a_deletion_is_synced_before_its_answer(
    start_service: Callable[..., Service], tmp_path: Path, what: str
) -> None:
    service = start_service(DATABASE_URL="")  # PostgreSQL syncs in its own process
    user = service.user()
    file = user.upload(b"to be deleted")
    with traced(service, tmp_path / "trace"):
        answer = user.delete(what, **({"id": file["id"]} if what == "files/" else {}))
    assert answer.status_code == 204
    before = before_answer(tmp_path / "trace", "204 No Content")
    written = [match.end() for match in re.finditer(WAL_WRITE, before)]
    synced = [match.start() for match in re.finditer(WAL_SYNC, before)]
    assert written and synced and written[-1] < synced[-1], before
