"""Where the bytes are kept: the contract of a store, and `make_store`, which makes the store of the settings.

Callers may rely on this: a key is new for every upload and never used again; after `commit` the bytes survive a power
cut under their key; to `delete` a missing key is no error. Nothing here knows accounts or quotas.
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
    """Bytes that have come whole under a key of their own, not yet durable. Size in bytes, digests in hex."""

    key: str
    size: int
    sha256: str
    sha1: str
    data: bytes | None = None
    """The bytes, if they are few and so have stayed in memory."""


@dataclass(frozen=True, slots=True)
class Slot:
    """A public directory: its id, the file's name in it, and thumbnails (name in the URL -> name in the store). The
    name is None if the store does not have the file.
    """

    id: str
    name: str | None
    media_type: str
    thumbnails: Mapping[str, str]

    @classmethod
    def of(cls, link: NewLink, blob: NewBlob) -> Slot:
        """The slot of a link to these bytes, neither of which need be made yet. It does not change when a decoder has
        measured them: what is not there leads nowhere, and the service answers.
        """
        name = None if blob.in_database else link.name
        return cls(link.slot_id, name, link.media_type, link.thumbnail_files())


@dataclass(frozen=True, slots=True)
class BlobFile:
    """A blob that is a file of this host: its path, and its place below the directory of the store."""

    path: str
    place: str


class Writer(Protocol):
    """One upload under way; it is hashed as it comes."""

    key: str

    async def write(self, chunk: bytes) -> None:
        """Take the next bytes; return when there is room for further ones. Raises NoSpace."""

    async def finish(self) -> Staged:
        """End the upload: all bytes have come. Raises NoSpace."""

    async def discard(self) -> None:
        """Remove what was written; may be called at any time, and after `finish`."""


class BlobStore(Protocol):
    """What every store does. What only some can do are interfaces of their own, None if a store does not have them."""

    @property
    def tree(self) -> LinkTree | None: ...

    @property
    def files(self) -> BlobFiles | None: ...

    @property
    def addresses(self) -> Addresses | None: ...

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    def writer(self, key: str = "") -> Writer:
        """A writer under a new key; or under a key that rows name already, for bytes that come from another store."""

    def check_room(self) -> None:
        """Raise NoSpace if no upload may begin, since deletions need the space that is left."""

    async def commit(self, staged: Staged) -> None:
        """Make staged bytes durable under their key. Raises NoSpace; then nothing of them is left."""

    async def discard(self, staged: Staged) -> None: ...

    def opened_staged(self, staged: Staged) -> AbstractAsyncContextManager[int]:
        """A file descriptor of the staged bytes, for reading and seeking."""

    def opened(self, key: str) -> AbstractAsyncContextManager[int]:
        """The same of committed bytes. Raises NotFound."""

    def read(self, key: str, start: int, end: int) -> AsyncIterator[bytes]:
        """The bytes from `start` to before `end`, in pieces. Raises NotFound or Unavailable before the first."""

    async def thumbnail(self, key: str, name: str) -> bytes | None:
        """A thumbnail's bytes, None if it has not been made."""

    async def put_thumbnails(self, key: str, thumbnails: Mapping[str, bytes]) -> None:
        """Keep thumbnails of a blob, each whole or not at all. Raises NoSpace."""

    async def delete(self, keys: list[str]) -> None:
        """Remove blobs, their thumbnails and unfinished uploads under these keys."""

    async def check(self) -> None:
        """Raise NoSpace or Unavailable if the store cannot take an upload now."""

    async def size(self, key: str) -> int | None:
        """How many bytes are kept under the key, None if there are none."""

    def keys(self, older_than: float) -> AsyncIterator[list[str]]:
        """All keys with bytes or thumbnails that were not touched for `older_than` seconds, in batches."""

    async def staged(self) -> tuple[int, int]:
        """How many unfinished uploads there are on the disk of this host, and their bytes."""

    async def sweep_staging(self, older_than: float, living: Container[str] = ()) -> tuple[int, int]:
        """Remove unfinished uploads that were not touched for so many seconds, except the `living` keys; how many, and
        their bytes.
        """


class LinkTree(Protocol):
    """For a store with a tree of links to its blobs, in which other web servers find them by public addresses."""

    async def publish(self, key: str, slot: Slot) -> None:
        """Let web servers find the blob and its thumbnails in the slot's directory; what was there before is replaced.
        No directory is made for nothing.
        """

    async def unpublish(self, slot_ids: list[str]) -> None:
        """Remove slots; a missing one is no error."""

    async def is_published(self, key: str, slot: Slot) -> bool:
        """Whether the slot has all the links that it should have, and no others."""

    def slots(self, older_than: float) -> AsyncIterator[list[str]]:
        """All published slot ids that were not touched for `older_than` seconds, in batches."""

    async def is_sound(self) -> bool:
        """Whether no link can be lost: false after the machine was started again, until the tree was looked over."""

    async def note_sound(self) -> None:
        """Note that the tree has been looked over."""


class BlobFiles(Protocol):
    """For a store whose blobs are files of this host: other programs can send them, and they can have further names."""

    async def file(self, key: str) -> BlobFile:
        """The file of a blob. Raises NotFound."""

    async def link_out(self, key: str, goal: Path) -> None:
        """Give a blob a further name; if the file system cannot do that, make a synced copy. Raises NotFound, and
        OSError if the goal cannot be written.
        """

    async def adopt(self, key: str, source: Path) -> Staged | None:
        """Stage a file of this host under a new key by a further name for it. None if it must be copied instead: if it
        is on another file system, belongs to another user, who could change it, or is not for web servers to read.
        """

    async def link_in(self, key: str, source: Path) -> None:
        """Link or copy a file into the store, durably, under a key that rows name."""


class Addresses(Protocol):
    """For a store that clients can fetch from by themselves."""

    async def address(self, key: str, media_type: str, disposition: str) -> tuple[str, float]:
        """Where clients can fetch it, with these headers, and for how many seconds. Raises Unavailable."""


def make_store(settings: Settings) -> BlobStore:
    """The store that the settings name."""
    if settings.storage_url:
        from media_gallery.storage.s3 import S3Store

        return S3Store(settings)
    from media_gallery.storage.local import LocalStore

    return LocalStore(settings.data_dir, settings.min_free_space)
