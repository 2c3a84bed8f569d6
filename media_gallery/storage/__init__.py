"""Where the bytes are kept: the contract of a store, and `make_store` that gives the one of the settings.

What callers may trust: a key is new for every upload and never used again; after `commit` the bytes survive a power cut
under their key; `delete` of a key that is not there is no error; nothing here knows accounts or quotas.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Container, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from media_gallery.models import NewBlob, NewLink
from media_gallery.settings import Settings


@dataclass(frozen=True, slots=True)
class Staged:
    """Bytes received whole under a key of their own, not yet durable. Size in bytes, digests in hex."""

    key: str
    size: int
    sha256: str
    sha1: str
    data: bytes | None = None
    """The bytes, where they are few enough to have stayed in memory."""


@dataclass(frozen=True, slots=True)
class Slot:
    """A public directory: its id, the file's name in it, and thumbnails (name in the URL -> name in the store)."""

    id: str
    name: str
    media_type: str
    thumbnails: Mapping[str, str]

    @classmethod
    def of(cls, link: NewLink, blob: NewBlob) -> Slot:
        """That of a link to these bytes, made or about to be made."""
        return cls(link.slot_id, link.name, link.media_type, link.thumbnail_files(blob))


@dataclass(frozen=True, slots=True)
class BlobFile:
    """A blob that is a file of this host: its path, and its place below the directory of the store."""

    path: str
    place: str


class Writer(Protocol):
    """One upload on its way in, hashed as it passes."""

    key: str

    async def write(self, chunk: bytes) -> None:
        """Take the next bytes; returns when there is room for more. Raises NoSpace."""

    async def finish(self) -> Staged:
        """No more bytes come. Raises NoSpace."""

    async def discard(self) -> None:
        """Remove what was written; may be called at any time, and after `finish`."""


class BlobStore(Protocol):
    """What every store does. What only some can do are interfaces of their own, None where a store has not got them."""

    @property
    def tree(self) -> LinkTree | None: ...

    @property
    def files(self) -> BlobFiles | None: ...

    @property
    def addresses(self) -> Addresses | None: ...

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    def writer(self, key: str = "") -> Writer:
        """For bytes under a new key, or under one that rows name already, where they come from another store."""

    def check_room(self) -> None:
        """Raise NoSpace where no upload may begin, since deletions need what is left."""

    async def commit(self, staged: Staged) -> None:
        """Make staged bytes durable under their key. Raises NoSpace; then nothing is left."""

    async def discard(self, staged: Staged) -> None: ...

    def opened_staged(self, staged: Staged) -> AbstractAsyncContextManager[int]:
        """A file descriptor of the staged bytes, for reading and seeking."""

    def opened(self, key: str) -> AbstractAsyncContextManager[int]:
        """The same of committed bytes. Raises NotFound."""

    def read(self, key: str, start: int, end: int) -> AsyncIterator[bytes]:
        """The bytes from `start` to before `end`, in pieces. Raises NotFound or Unavailable before the first."""

    async def thumbnail(self, key: str, name: str) -> bytes | None:
        """A thumbnail's bytes, None where it has not been made."""

    async def put_thumbnails(self, key: str, thumbnails: Mapping[str, bytes]) -> None:
        """Keep thumbnails of a blob, each whole or not at all. Raises NoSpace."""

    async def delete(self, keys: list[str]) -> None:
        """Remove blobs with their thumbnails, and what is unfinished under their keys."""

    async def check(self) -> None:
        """Raise NoSpace or Unavailable where the store cannot take an upload now."""

    async def size(self, key: str) -> int | None:
        """Bytes kept under the key, None where there are none."""

    def keys(self, older_than: float) -> AsyncIterator[list[str]]:
        """All keys with bytes or thumbnails, in batches; only those untouched for `older_than` seconds."""

    async def sweep_staging(self, older_than: float, living: Container[str] = ()) -> tuple[int, int]:
        """Remove unfinished uploads untouched for so many seconds, but for the keys of living ones; how many, and their
        bytes.
        """


class LinkTree(Protocol):
    """Of a store that shows its blobs in a tree of links, where other web servers find them by public addresses."""

    async def publish(self, key: str, slot: Slot) -> None:
        """Let a web server find the blob in the slot's directory, in place of what was there."""

    async def unpublish(self, slot_ids: list[str]) -> None:
        """Remove slots; one that is not there is no error."""

    async def is_published(self, key: str, slot: Slot) -> bool:
        """Whether the slot is there and leads to all that it should, and to nothing else."""

    def slots(self, older_than: float) -> AsyncIterator[list[str]]:
        """All published slot ids, in batches; only those untouched for `older_than` seconds."""

    async def is_sound(self) -> bool:
        """Whether all is surely as it was published: not so after the machine has started anew."""

    async def note_sound(self) -> None:
        """It has been looked over."""


class BlobFiles(Protocol):
    """Of a store whose blobs are files of this host: other programs can send them, and they may have further names."""

    async def file(self, key: str) -> BlobFile:
        """Raises NotFound."""

    async def link_out(self, key: str, goal: Path) -> None:
        """Give a blob a further name, or where the file system cannot, a copy, synced. Raises NotFound, and OSError for
        what goes wrong at the goal.
        """

    async def link_in(self, key: str, source: Path) -> None:
        """Take in a file in the same way, durably, under a key that rows name."""


class Addresses(Protocol):
    """Of a store that clients can fetch from by themselves."""

    async def address(self, key: str, media_type: str, disposition: str) -> tuple[str, float]:
        """Where, under these headers, and for how many seconds. Raises Unavailable."""


def make_store(settings: Settings) -> BlobStore:
    """The store that the settings name."""
    if settings.storage_url:
        from media_gallery.storage.s3 import S3Store

        return S3Store(settings)
    from media_gallery.storage.local import LocalStore

    return LocalStore(settings.data_dir, settings.min_free_space)
