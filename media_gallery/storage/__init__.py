"""Where the bytes are kept: the contract of a store, and `open_store` that gives the one of the settings.

What callers may trust: a key is new for every upload and never used again; after `commit` the bytes survive a power cut
under their key; `delete` of a key that is not there is no error; nothing here knows accounts or quotas.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Container, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

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


class Writer(Protocol):
    """One upload on its way in, hashed as it passes."""

    key: str
    size: int

    async def write(self, chunk: bytes) -> None:
        """Take the next bytes; returns when there is room for more. Raises NoSpace."""

    async def finish(self) -> Staged:
        """No more bytes come. Raises NoSpace."""

    async def discard(self) -> None:
        """Remove what was written; may be called at any time, and after `finish`."""


class BlobStore(Protocol):
    tree: ClassVar[bool]
    """Whether links are published in a tree that other web servers read."""

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    def writer(self) -> Writer: ...

    def check_room(self) -> None:
        """Raise NoSpace where no upload may begin, since deletions need what is left."""

    async def commit(self, staged: Staged, slot: Slot) -> None:
        """Make staged bytes durable under their key, and publish them. Raises NoSpace; then nothing is left."""

    async def discard(self, staged: Staged) -> None: ...

    async def publish(self, key: str, slot: Slot) -> None:
        """Let a web server find the blob in the slot's directory, where the store keeps such a tree."""

    async def unpublish(self, slot_ids: list[str]) -> None: ...

    async def open_staged(self, staged: Staged) -> int:
        """A file descriptor of the staged bytes, open for reading and seeking; the caller closes it."""

    async def open(self, key: str) -> int:
        """The same of committed bytes. Raises NotFound."""

    def read(self, key: str, start: int, end: int) -> AsyncIterator[bytes]:
        """The bytes from `start` to before `end`, in pieces. Raises NotFound or Unavailable before the first."""

    def path(self, key: str) -> Path | None:
        """The file of a blob, where the store has files."""

    async def address(self, key: str, media_type: str, disposition: str) -> tuple[str, float] | None:
        """Where a client may fetch the bytes by itself, under these headers, and for how many seconds.

        None where they are to come through the service.
        """

    async def thumbnail(self, key: str, name: str) -> bytes | None:
        """A thumbnail's bytes, None where it has not been made."""

    async def put_thumbnails(self, key: str, thumbnails: Mapping[str, bytes]) -> None:
        """Keep thumbnails of a blob, each whole or not at all. Raises NoSpace."""

    async def adopt(self, key: str, file: Path) -> None:
        """Take in the bytes of a file under a key that restored rows name, durably."""

    async def delete(self, keys: list[str]) -> None:
        """Remove blobs with their thumbnails, and what is unfinished under their keys."""

    async def check(self) -> None:
        """Raise NoSpace or Unavailable where the store cannot take an upload now."""

    async def size(self, key: str) -> int | None:
        """Bytes kept under the key, None where there are none."""

    def keys(self, older_than: float) -> AsyncIterator[list[str]]:
        """All keys with bytes or thumbnails, in batches; only those untouched for `older_than` seconds."""

    def slots(self, older_than: float) -> AsyncIterator[list[str]]:
        """All published slot ids, in batches; only those untouched for `older_than` seconds."""

    async def is_sound(self) -> bool:
        """Whether the tree of links is surely as it was published: not so after the machine has started anew."""

    async def note_sound(self) -> None:
        """It has been looked over."""

    async def published(self, slot_id: str) -> dict[str, str]:
        """File name -> what it leads to, for comparing with `publication`."""

    def publication(self, key: str, slot: Slot) -> dict[str, str]:
        """What `published` answers of a slot in order."""

    async def sweep_staging(self, older_than: float, living: Container[str] = ()) -> tuple[int, int]:
        """Remove unfinished uploads untouched for so many seconds, but for the keys of living ones; how many, and their
        bytes.
        """


def open_store(settings: Settings) -> BlobStore:
    """The store that the settings name."""
    if settings.storage_url:
        from media_gallery.storage.s3 import S3Store

        return S3Store(settings)
    from media_gallery.storage.local import LocalStore

    return LocalStore(settings.data_dir, settings.min_free_space)
