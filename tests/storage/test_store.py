"""What every store promises (`media_gallery/storage/__init__.py`), shown on each there is."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from media_gallery.errors import NotFound
from media_gallery.settings import Settings
from media_gallery.storage import BlobStore, Slot, Staged, open_store
from media_gallery.storage.s3 import PART
from media_gallery.storage.staging import BATCH, CACHED
from tests import s3
from tests.s3 import S3
from tests.tcp import Way


@pytest.fixture(params=["local", "s3"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[BlobStore]:
    values = request.getfixturevalue("bucket").settings() if request.param == "s3" else {}
    store = open_store(Settings(data_dir=tmp_path, **{name.lower(): value for name, value in values.items()}))
    await store.start()
    yield store
    await store.close()


async def staged(store: BlobStore, data: bytes, piece: int = 100_000) -> Staged:
    writer = store.writer()
    for start in range(0, len(data), piece):
        await writer.write(data[start : start + piece])
    return await writer.finish()


async def read(fd: int) -> bytes:
    with os.fdopen(fd, "rb") as file:
        return file.read()


def slot(number: int = 1, **thumbnails: str) -> Slot:
    return Slot(f"{number:032x}", "name.txt", "text/plain", thumbnails)


async def everything(store: BlobStore) -> list[str]:
    return [key async for keys in store.keys(-1) for key in keys]


@pytest.mark.parametrize("size", [0, 1, BATCH - 1, BATCH, BATCH + 1, 3 * BATCH + 7, 3 * CACHED + 7])
async def test_what_is_written_is_read_back(store: BlobStore, size: int) -> None:
    data = os.urandom(size)
    file = await staged(store, data)
    assert (file.size, file.sha256, file.sha1) == (
        size, hashlib.sha256(data).hexdigest(), hashlib.sha1(data).hexdigest(),
    )  # fmt: skip
    assert await read(await store.open_staged(file)) == data
    assert await store.size(file.key) is None
    await store.commit(file, slot())
    assert await store.size(file.key) == size
    for _ in range(2):  # the second time from where it is kept
        assert await read(await store.open(file.key)) == data
    for start, end in ((0, size), (size // 3, size // 2), (max(0, size - 1), size)):
        assert b"".join([piece async for piece in store.read(file.key, start, end)]) == data[start:end]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pieces=st.lists(st.integers(0, 2 * BATCH), max_size=6))
async def test_digests_do_not_hang_on_how_bytes_arrive(store: BlobStore, pieces: list[int]) -> None:
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


async def test_keys_are_never_the_same(store: BlobStore) -> None:
    keys = {(await staged(store, b"same bytes")).key for _ in range(100)}
    assert len(keys) == 100


async def test_deleting_is_final_and_may_be_repeated(store: BlobStore) -> None:
    file = await staged(store, b"data")
    await store.commit(file, slot())
    await store.put_thumbnails(file.key, {"256.webp": b"small"})
    await store.delete([file.key])
    await store.delete([file.key, "0" * 32])
    assert await store.size(file.key) is None
    assert await store.thumbnail(file.key, "256.webp") is None
    with pytest.raises(NotFound):
        await store.open(file.key)
    assert await everything(store) == []


async def test_thumbnails(store: BlobStore) -> None:
    file = await staged(store, b"data")
    await store.commit(file, slot())
    assert await store.thumbnail(file.key, "256.webp") is None
    await store.put_thumbnails(file.key, {"256.webp": b"one", "48.png": b"two"})
    await store.put_thumbnails(file.key, {"256.webp": b"three"})
    assert await store.thumbnail(file.key, "256.webp") == b"three"
    assert await store.thumbnail(file.key, "48.png") == b"two"


async def test_what_is_published_can_be_compared_and_withdrawn(store: BlobStore) -> None:
    file = await staged(store, b"data")
    place = slot(7, **{"thumb_name.webp": "256.webp"})
    await store.commit(file, place)
    assert await store.published(place.id) == store.publication(file.key, place)
    if store.path(file.key):  # there is a tree
        assert [found async for slots in store.slots(-1) for found in slots] == [place.id]
    await store.publish(file.key, slot(8))
    await store.unpublish([place.id, "f" * 32])
    assert await store.published(place.id) == {}
    assert await store.published(slot(8).id) == store.publication(file.key, slot(8))


async def test_a_name_that_tells_another_type_is_not_in_the_tree(store: BlobStore) -> None:
    file = await staged(store, b"x")
    place = Slot(f"{1:032x}", "page.jpg", "text/html", {"thumb_page.webp": "256.webp"})
    await store.commit(file, place)
    published = await store.published(place.id)
    assert published == store.publication(file.key, place)
    assert "page.jpg" not in published and (not store.path(file.key) or "thumb_page.webp" in published)


async def test_listings_leave_out_what_is_young(store: BlobStore) -> None:
    await store.commit(await staged(store, b"data"), slot())
    await staged(store, os.urandom(3 * BATCH))
    assert [keys async for keys in store.keys(60)] == []
    assert [slots async for slots in store.slots(60)] == []
    assert await store.sweep_staging(60) == (0, 0)
    assert await store.sweep_staging(-1) == (1, 3 * BATCH)


async def test_an_upload_that_comes_slowly_is_young(
    store: BlobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("media_gallery.storage.staging.TOUCH", 0)
    writer = store.writer()
    await writer.write(os.urandom(BATCH))
    [path] = (tmp_path / "staging").iterdir()
    os.utime(path, (0, 0))
    await writer.write(b"too little for a batch")
    assert await store.sweep_staging(60) == (0, 0)
    await writer.discard()


async def test_it_says_when_it_can_take_nothing(store: BlobStore) -> None:
    await store.check()


@pytest.mark.parametrize("cut", [False, True])
async def test_a_sending_that_is_given_up_is_ended_before_the_store_is_closed(
    bucket: S3, way: Way, tmp_path: Path, cut: bool
) -> None:
    """Bytes that no row names are spare: whole, or not there at all."""
    values = bucket.settings()
    reached = Settings(data_dir=tmp_path, **{name.lower(): value for name, value in values.items()})
    store = open_store(reached.model_copy(update={"s3_endpoint": f"http://127.0.0.1:{way.port}"}))
    unforeseen: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unforeseen.append(context))
    await store.start()
    writer, way.delay = store.writer(), 0.05
    await writer.write(os.urandom(2 * PART))
    commit = asyncio.create_task(store.commit(await writer.finish(), slot()))
    while way.sent < BATCH:  # noqa: ASYNC110, bytes that a thread counts
        await asyncio.sleep(0.01)
    way.cut_after = BATCH if cut else None
    commit.cancel()
    await asyncio.gather(commit, return_exceptions=True)
    await writer.discard()
    await store.close()
    del commit
    gc.collect()
    assert len(s3.objects(values)) == (0 if cut else 1)
    assert not list((tmp_path / "staging").iterdir()) and unforeseen == []
