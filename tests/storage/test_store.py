"""What every store promises (`media_gallery/storage/__init__.py`), shown on each there is."""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from media_gallery.errors import NotFound
from media_gallery.storage import BlobStore, Slot, Staged
from media_gallery.storage.local import BATCH, LocalStore


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[BlobStore]:
    store = LocalStore(tmp_path)
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
    return Slot(f"{number:032x}", "name.txt", thumbnails)


async def everything(store: BlobStore) -> list[str]:
    return [key async for keys in store.keys(-1) for key in keys]


@pytest.mark.parametrize("size", [0, 1, BATCH - 1, BATCH, BATCH + 1, 3 * BATCH + 7])
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
    assert await read(await store.open(file.key)) == data


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
    assert [found async for slots in store.slots(-1) for found in slots] == [place.id]
    await store.publish(file.key, slot(8))
    await store.unpublish([place.id, "f" * 32])
    assert await store.published(place.id) == {}
    assert await store.published(slot(8).id) == store.publication(file.key, slot(8))


async def test_listings_leave_out_what_is_young(store: BlobStore) -> None:
    await store.commit(await staged(store, b"data"), slot())
    await staged(store, os.urandom(3 * BATCH))
    assert [keys async for keys in store.keys(60)] == []
    assert [slots async for slots in store.slots(60)] == []
    assert await store.sweep_staging(60) == (0, 0)
    assert await store.sweep_staging(-1) == (1, 3 * BATCH)


async def test_it_says_when_it_can_take_nothing(store: BlobStore) -> None:
    await store.check()
