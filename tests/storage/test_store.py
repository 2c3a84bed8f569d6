"""What every store promises (`media_gallery/storage/__init__.py`): one suite that each store passes.

For a new store, add an entry to `INTERFACES`, and to `store` how to open it. What only some stores can do is tested on
those stores; the tests also check which stores these are.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from media_gallery.errors import NotFound, Unavailable
from media_gallery.settings import Settings
from media_gallery.storage import Addresses, BlobFiles, BlobStore, LinkTree, Slot, Staged, make_store
from media_gallery.storage import tree as tree_module
from media_gallery.storage.staging import BATCH, CACHED
from tests.service import anyone

INTERFACES = {"local": {"tree", "files"}, "s3": {"addresses"}}
"""The stores, and which of the optional interfaces each has."""


@pytest.fixture(params=INTERFACES)
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[BlobStore]:
    values: dict[str, Any] = {}
    if request.param == "s3":
        values = request.getfixturevalue("bucket").settings() | {"S3_DELIVERY": "redirect"}
    store = make_store(Settings(data_dir=tmp_path / "data", **{name.lower(): value for name, value in values.items()}))
    await store.start()
    assert {name for name in ("tree", "files", "addresses") if getattr(store, name)} == INTERFACES[request.param]
    yield store
    await store.close()


def having(interface: str) -> pytest.MarkDecorator:
    """The mark of a test of what only some stores can do."""
    stores = [name for name, interfaces in INTERFACES.items() if interface in interfaces]
    return pytest.mark.parametrize("store", stores, indirect=True)


async def staged(store: BlobStore, data: bytes, key: str = "", piece: int = 100_000) -> Staged:
    writer = store.writer(key)
    for start in range(0, len(data), piece):
        await writer.write(data[start : start + piece])
    return await writer.finish()


async def kept(store: BlobStore, data: bytes, key: str = "") -> str:
    """Commit these bytes; return their key."""
    file = await staged(store, data, key)
    await store.commit(file)
    return file.key


async def read(store: BlobStore, key: str, start: int, end: int) -> bytes:
    return b"".join([piece async for piece in store.read(key, start, end)])


def through(fd: int) -> bytes:
    """All bytes of a descriptor, read as the decoder reads them."""
    os.lseek(fd, 0, os.SEEK_SET)
    with os.fdopen(fd, "rb", closefd=False) as file:
        return file.read()


async def everything(store: BlobStore) -> list[str]:
    return [key async for keys in store.keys(-1) for key in keys]


# --- Every store ---


@pytest.mark.parametrize("size", [0, 1, BATCH - 1, BATCH, BATCH + 1, 3 * BATCH + 7, 3 * CACHED + 7])
async def test_what_is_written_is_read_back(store: BlobStore, size: int) -> None:
    data = os.urandom(size)
    file = await staged(store, data)
    assert (file.size, file.sha256, file.sha1) == (
        size, hashlib.sha256(data).hexdigest(), hashlib.sha1(data).hexdigest(),
    )  # fmt: skip
    async with store.opened_staged(file) as fd:
        assert through(fd) == data
    assert await store.size(file.key) is None
    await store.commit(file)
    assert await store.size(file.key) == size and await everything(store) == [file.key]
    for _ in range(2):  # the second time from where the store keeps it
        async with store.opened(file.key) as fd:
            assert through(fd) == data
    for start, end in ((0, size), (size // 3, size // 2), (max(0, size - 1), size)):
        assert await read(store, file.key, start, end) == data[start:end]
    assert await store.sweep_staging(-1) == (0, 0)


async def test_a_descriptor_holds_what_is_deleted(store: BlobStore) -> None:
    key = await kept(store, b"data")
    async with store.opened(key) as fd:
        await store.delete([key])
        assert through(fd) == b"data"
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(pieces=st.lists(st.integers(0, 2 * BATCH), max_size=6))
async def test_digests_do_not_depend_on_how_bytes_arrive(store: BlobStore, pieces: list[int]) -> None:
    writer, whole = store.writer(), b""
    for number, size in enumerate(pieces):
        piece = bytes([number]) * size
        whole += piece
        await writer.write(piece)
    file = await writer.finish()
    assert (file.size, file.sha256) == (len(whole), hashlib.sha256(whole).hexdigest())
    await store.discard(file)


@pytest.mark.parametrize("size", [100, 3 * BATCH])
async def test_what_is_discarded_leaves_nothing(store: BlobStore, size: int) -> None:
    writer = store.writer()
    await writer.write(os.urandom(size))
    await writer.discard()
    await store.discard(await staged(store, os.urandom(size)))
    assert await store.sweep_staging(-1) == (0, 0)
    assert await everything(store) == []


async def test_an_upload_fails_if_a_sync_fails_while_it_comes(
    store: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system tells once that it could not write something: the next sync succeeds."""
    failed: list[int] = []
    real = os.fdatasync

    def sync(fd: int) -> None:
        if not failed:
            failed.append(fd)
            raise OSError(errno.EIO, "as if the disk failed")
        real(fd)

    monkeypatch.setattr(os, "fdatasync", sync)
    writer = store.writer()
    with pytest.raises(Unavailable):
        for _ in range(4):
            await writer.write(bytes(CACHED // 2))
        await writer.finish()
    await writer.discard()
    assert failed and await store.sweep_staging(-1) == (0, 0)


async def test_keys_are_never_the_same(store: BlobStore) -> None:
    keys = {(await staged(store, b"same bytes")).key for _ in range(100)}
    assert len(keys) == 100


@pytest.mark.parametrize("size", [100, 3 * BATCH])
async def test_bytes_can_be_put_under_a_given_key(store: BlobStore, size: int) -> None:
    """Bytes from another store keep their key, and replace damaged bytes."""
    key, data = "ab" * 16, os.urandom(size)
    for before in (None, b"damaged"):
        if before:
            await kept(store, before, key)
        assert await kept(store, data, key) == key
        assert await read(store, key, 0, size) == data
        await store.delete([key])


async def test_what_is_not_there_is_not_found(store: BlobStore) -> None:
    key = "ab" * 16
    assert await store.size(key) is None and await store.thumbnail(key, "256.webp") is None
    with pytest.raises(NotFound):
        await read(store, key, 0, 10)
    with pytest.raises(NotFound):
        async with store.opened(key):
            pass


async def test_deleting_is_final_and_may_be_repeated(store: BlobStore) -> None:
    key, other = await kept(store, b"data"), await kept(store, b"other")
    await store.put_thumbnails(key, {"256.webp": b"small"})
    await store.delete([key])
    await store.delete([key, "0" * 32])
    assert await store.size(key) is None
    assert await store.thumbnail(key, "256.webp") is None
    assert await everything(store) == [other]


async def test_what_is_unfinished_is_deleted_by_its_key(store: BlobStore) -> None:
    file = await staged(store, os.urandom(3 * BATCH))
    await store.delete([file.key])
    assert await store.sweep_staging(-1) == (0, 0)


async def test_thumbnails(store: BlobStore) -> None:
    key = await kept(store, b"data")
    assert await store.thumbnail(key, "256.webp") is None
    await store.put_thumbnails(key, {"256.webp": b"one", "48.png": b"two"})
    await store.put_thumbnails(key, {"256.webp": b"three"})
    assert await store.thumbnail(key, "256.webp") == b"three"
    assert await store.thumbnail(key, "48.png") == b"two"


@having("files")
async def test_thumbnails_may_be_put_and_deleted_at_once(store: BlobStore) -> None:
    """Each needs the directory that the other removes or makes. (Ceph refuses some of two such deletions.)"""
    key = os.urandom(16).hex()

    async def live() -> None:
        for _ in range(50):
            await store.put_thumbnails(key, {"256.webp": b"small", "48.png": b"smaller"})
            await store.delete([key])

    await asyncio.gather(*(live() for _ in range(4)))
    assert await store.thumbnail(key, "256.webp") is None and await everything(store) == []


async def test_listings_leave_out_new_files(store: BlobStore) -> None:
    key, lonely = await kept(store, b"data"), "cd" * 16
    await store.put_thumbnails(lonely, {"256.webp": b"of bytes that have gone"})
    left = await staged(store, os.urandom(3 * BATCH))
    assert [keys async for keys in store.keys(60)] == []
    assert set(await everything(store)) == {key, lonely}
    assert await store.sweep_staging(60) == await store.sweep_staging(-1, {left.key}) == (0, 0)
    assert await store.sweep_staging(-1) == (1, 3 * BATCH)


async def test_an_upload_that_comes_slowly_counts_as_new(
    store: BlobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("media_gallery.storage.staging.TOUCH", 0)
    writer = store.writer()
    await writer.write(os.urandom(BATCH))
    [path] = (tmp_path / "data" / "staging").iterdir()
    os.utime(path, (0, 0))
    await writer.write(b"too little for a batch")
    assert await store.sweep_staging(60) == (0, 0)
    await writer.discard()


async def test_it_says_when_it_can_take_something(store: BlobStore) -> None:
    store.check_room()
    await store.check()


# --- A tree of links ---


def tree_of(store: BlobStore) -> LinkTree:
    assert store.tree
    return store.tree


def slot(number: int, name: str = "name.txt", media_type: str = "text/plain", **thumbnails: str) -> Slot:
    return Slot(f"{number:032x}", name, media_type, thumbnails)


async def published(tree: LinkTree) -> set[str]:
    return {found async for slots in tree.slots(-1) for found in slots}


@having("tree")
async def test_what_is_published_can_be_looked_at_and_withdrawn(store: BlobStore) -> None:
    tree, key = tree_of(store), await kept(store, b"data")
    one, two = slot(7, thumb_name="256.webp"), slot(8)
    assert not await tree.is_published(key, one)
    await tree.publish(key, one)
    await tree.publish(key, two)
    assert await tree.is_published(key, one) and await tree.is_published(key, two)
    assert await published(tree) == {one.id, two.id} and [slots async for slots in tree.slots(60)] == []
    await tree.unpublish([one.id, "f" * 32])
    assert not await tree.is_published(key, one) and await tree.is_published(key, two)
    assert await published(tree) == {two.id}


@having("tree")
async def test_what_is_published_anew_leads_to_nothing_else(store: BlobStore) -> None:
    tree, key, other = tree_of(store), await kept(store, b"data"), await kept(store, b"other")
    for before in (slot(1, thumb_name="256.webp"), slot(1, "other.txt")):
        await tree.publish(other, before)
        assert not await tree.is_published(key, slot(1))
        await tree.publish(key, slot(1))
        assert await tree.is_published(key, slot(1)) and not await tree.is_published(other, before)
    nothing = Slot(slot(1).id, None, "text/plain", {})
    for _ in range(2):  # what was there is gone, and nothing is made
        await tree.publish(key, nothing)
        assert await tree.is_published(key, nothing) and slot(1).id not in await published(tree)


@having("tree")
async def test_a_slot_may_be_published_withdrawn_and_looked_at_by_several_at_once(store: BlobStore) -> None:
    """A deletion, an upload, and the commands beside the service have no lock between them."""
    tree, key, busy = tree_of(store), await kept(store, b"data"), slot(7, thumb_name="256.webp")

    async def live() -> None:
        for _ in range(100):
            await tree.publish(key, busy)
            await tree.is_published(key, busy)
            await tree.unpublish([busy.id])
            await tree.is_published(key, busy)

    await asyncio.gather(*(live() for _ in range(4)))
    assert busy.id not in await published(tree)
    await tree.publish(key, busy)
    assert await tree.is_published(key, busy)


@having("tree")
async def test_the_tree_leads_to_the_bytes_but_never_under_another_type(store: BlobStore, tmp_path: Path) -> None:
    tree, key = tree_of(store), await kept(store, b"data")
    await store.put_thumbnails(key, {"256.webp": b"small"})
    for number, name, media_type in ((1, "page.txt", "text/plain"), (2, "page.jpg", "text/html")):
        await tree.publish(key, slot(number, name, media_type, thumb_page="256.webp"))
        place = next(path for path in (tmp_path / "data").rglob(f"{number:032x}"))
        found = {path.name: path.read_bytes() for path in place.iterdir()}
        assert found == {"thumb_page": b"small"} | ({"page.txt": b"data"} if number == 1 else {})


@having("tree")
@pytest.mark.parametrize("hidden", [False, True])
async def test_a_tree_is_sound_once_that_is_noted(
    store: BlobStore, hidden: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if hidden:  # a confinement may hide the boot id
        monkeypatch.setattr(tree_module, "BOOT_ID", tmp_path / "none")
    tree = tree_of(store)
    assert not await tree.is_sound()
    await tree.note_sound()
    assert await tree.is_sound()


# --- Blobs that are files ---


def files_of(store: BlobStore) -> BlobFiles:
    assert store.files
    return store.files


@having("files")
async def test_a_blob_is_a_file_below_the_stores_directory(store: BlobStore, tmp_path: Path) -> None:
    files, key = files_of(store), await kept(store, b"data")
    file = await files.file(key)
    place = tmp_path / "data" / file.place
    assert str(place) == file.path and place.read_bytes() == b"data"
    await store.delete([key])
    with pytest.raises(NotFound):
        await files.file(key)
    with pytest.raises(NotFound):
        await files.link_out(key, tmp_path / "out")


@having("files")
async def test_a_file_goes_out_and_comes_in_by_another_name(store: BlobStore, tmp_path: Path) -> None:
    files, key, out = files_of(store), await kept(store, b"data"), tmp_path / "deep" / "out"
    await files.link_out(key, out)
    assert out.samefile((await files.file(key)).path)
    await kept(store, b"replaced", key)
    assert out.read_bytes() == b"data"
    await files.link_in(key, out)
    assert await read(store, key, 0, 4) == b"data" and await store.size(key) == 4


@having("files")
async def test_a_file_of_the_host_is_staged_by_another_name_if_nobody_else_can_change_it(
    store: BlobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, source, data = files_of(store), tmp_path / "source", os.urandom(BATCH + 1)
    source.write_bytes(data)
    source.chmod(0o644)
    os.utime(source, (1, 1))
    adopted = await files.adopt("a" * 32, source)
    sha256, sha1 = hashlib.sha256(data).hexdigest(), hashlib.sha1(data).hexdigest()
    assert adopted == Staged("a" * 32, len(data), sha256, sha1)
    await store.commit(adopted)
    assert source.samefile((await files.file("a" * 32)).path) and source.stat().st_mtime == 1
    assert await read(store, "a" * 32, 0, len(data)) == data
    for mode in (0o444, 0o640):
        source.chmod(mode)
        assert await files.adopt("b" * 32, source) is None
    source.chmod(0o644)
    (tmp_path / "link").symlink_to(source)
    assert await files.adopt("c" * 32, tmp_path / "link") is None
    assert await files.adopt("d" * 32, tmp_path / "missing") is None
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert await files.adopt("e" * 32, source) is None
    assert not list((tmp_path / "data" / "staging").iterdir())


# --- Addresses for clients ---


def addresses_of(store: BlobStore) -> Addresses:
    assert store.addresses
    return store.addresses


@having("addresses")
async def test_anybody_can_fetch_from_an_address(store: BlobStore) -> None:
    key = await kept(store, b"data")
    url, seconds = await addresses_of(store).address(key, "text/plain", 'attachment; filename="a.txt"')
    answer = anyone.get(url)
    assert answer.content == b"data" and seconds > 0
    assert answer.headers["Content-Type"] == "text/plain"
    assert answer.headers["Content-Disposition"] == 'attachment; filename="a.txt"'
    assert anyone.get(url.replace(key, "0" * 32)).status_code == 403
