"""The stored files: find, list, count and delete them; make thumbnails when they are needed."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from urllib.parse import unquote

import structlog

from media_gallery import metrics
from media_gallery.db import Connection, Database, filters, links, old_addresses, upkeep
from media_gallery.errors import BadRequest, GalleryError, NotFound
from media_gallery.models import (
    OWN_SLOT_ID,
    SLOT_ID,
    THUMBNAIL_SIZE,
    AccountId,
    Blob,
    Filter,
    Link,
    Page,
    Usage,
    Window,
)
from media_gallery.names import clean_name
from media_gallery.storage import BlobFile, BlobStore, Staged
from media_gallery.thumbnails import Busy, DecoderFailed, Thumbnailer, Undecodable

log = structlog.get_logger()
CHUNK = 500
"""Links removed in one transaction: between two, other transactions get their turn."""

NEAR = 2000
"""Links that a list may pass over in the event loop; a list that passes over more runs in a thread."""

TRIES, SPARED, REMEMBERED = 3, 3600 * 1_000_000, 10_000
"""After so many failures over a file, decoders are not given it again for so many microseconds; this is remembered of
so many files, in this process alone, since the cause may have been the machine.
"""


@contextmanager
def only_logged(what: str, **about: int) -> Iterator[None]:
    """Only log what fails after a commit: if it were refused, the client would try again and use quota twice.

    Upkeep, or a later request, does what is missing.
    """
    try:
        yield
    except GalleryError as error:
        log.warning(what, reason=str(error), **about)
    except Exception:
        log.exception(what, **about)


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data


@dataclass(frozen=True, slots=True)
class Content:
    """What to send: a link's file, or `thumbnail`; `placeholder` if the thumbnail could not be made. `data`: the bytes,
    unless the store has to be asked for them.
    """

    link: Link
    now: int
    thumbnail: str | None = None
    data: bytes | None = None
    placeholder: bool = False

    @property
    def left(self) -> int | None:
        """Whole seconds until it is gone; None: it stays."""
        return None if self.link.expires_at is None else (self.link.expires_at - self.now) // 1_000_000


class Files:
    """The stored files of all accounts."""

    def __init__(self, db: Database, store: BlobStore, thumbnailer: Thumbnailer, clock: Callable[[], int]) -> None:
        self.db, self.store, self.thumbnailer, self.clock = db, store, thumbnailer, clock
        self._making: dict[str, asyncio.Task[Blob]] = {}
        self._failures: dict[str, tuple[int, int]] = {}

    # --- Looking ---

    async def find(self, slot_id: str, name: str) -> Content:
        """What is at a public address. Raises NotFound."""
        now = self.clock()
        link = await self.db.read(lambda c: links.find_by_slot(c, slot_id, now)) if SLOT_ID.fullmatch(slot_id) else None
        if link is None:
            raise NotFound
        cleaned = name if OWN_SLOT_ID.fullmatch(slot_id) else clean_name(name)  # others do not clean names in slots
        for spelled in dict.fromkeys((name, unquote(name), cleaned)):  # COMPAT: iOS encodes names twice
            if spelled == link.name:
                return await self._content(link, None, now)
            if stored := link.thumbnail_files(link.blob).get(spelled):
                return await self._content(link, stored, now)
        raise NotFound

    async def _content(self, link: Link, thumbnail: str | None, now: int) -> Content:
        if thumbnail is None:
            return Content(link, now, data=link.blob.data)
        data = await self._thumbnail(link, thumbnail)
        return Content(link, now, thumbnail=thumbnail, data=data, placeholder=data is None)

    async def find_old(self, path: str) -> Content:
        """What is at this path of another service, whose files were taken over. Raises NotFound."""
        now = self.clock()
        for spelled in dict.fromkeys((path, unquote(path))):  # COMPAT: iOS encodes names twice
            found = await self.db.read(lambda c, at=spelled: old_addresses.find_by_old_address(c, at, now))  # type: ignore[misc]
            if found is not None:
                return await self._content(found[0], found[1], now)
        raise NotFound

    async def address(self, link: Link, disposition: str) -> tuple[str, float] | None:
        """Where a client may fetch a link's bytes by itself, and for how many seconds; None: the service sends them."""
        addresses = self.store.addresses
        return await addresses.address(link.blob.key, link.media_type, disposition) if addresses else None

    async def file(self, link: Link) -> BlobFile | None:
        """The file that other programs may send; None if the store has no files. Raises NotFound."""
        return await self.store.files.file(link.blob.key) if self.store.files else None

    def read(self, link: Link, start: int, end: int) -> AsyncIterator[bytes]:
        """A link's bytes from `start` to before `end`, in pieces. Raises NotFound or Unavailable before the first."""
        data = link.blob.data
        return self.store.read(link.blob.key, start, end) if data is None else _once(data[start:end])

    async def list(self, account: AccountId, wanted: Filter, window: Window) -> Page[Link]:
        """A page of the account's links, ordered by one of LINK_ORDERS."""

        async def near(c: Connection) -> Page[Link] | None:
            usage = await links.get_usage(c, account)
            if filters.passed_over(usage, wanted, window) > NEAR:
                return None
            return await links.list_links(c, account, wanted, window, usage)

        page = await self.db.read(near) if filters.counted(wanted) and window.end <= NEAR else None
        if page is None:
            page = await self.db.scan(lambda c: links.list_links(c, account, wanted, window))
        return page

    async def oldest(self, account: AccountId, percent: int, exclude_avatars: bool) -> Filter | None:
        """The oldest links that together first reach `percent` of what the account uses; None if there are none."""
        end = await self.db.scan(lambda c: links.find_oldest_end(c, account, percent, exclude_avatars))
        return Filter(oldest_to=end, with_avatars=not exclude_avatars) if end else None

    async def usage(self, account: AccountId, wanted: Filter) -> Usage:
        """Counts and bytes, by category, of the links that the filter matches."""
        if wanted == Filter():
            return await self.db.read(lambda c: links.get_usage(c, account))
        return await self.db.scan(lambda c: links.count_usage(c, account, wanted))

    # --- Thumbnails ---

    async def _thumbnail(self, link: Link, stored: str) -> bytes | None:
        """A thumbnail, made now if it is missing; None if it cannot be made."""
        data = await self.store.thumbnail(link.blob.key, stored)
        if data is None and link.blob.decodable is not False:
            blob = await self.decode(link)
            if blob.decodable and stored != f"{THUMBNAIL_SIZE}.webp":
                await self._make_again(link, stored)
            data = await self.store.thumbnail(link.blob.key, stored)
        return data

    async def _make_again(self, link: Link, stored: str) -> None:
        """Make an avatar's thumbnail that was lost in a crash after the upload."""
        size, _, ext = stored.partition(".")
        async with self._opened(link.blob) as fd:
            try:
                made = await self.thumbnailer.avatar_thumbnails(fd, [int(size)], ext, owner=link.account)
                await self.keep_thumbnails(link.blob, made)
            except (Undecodable, DecoderFailed) as error:
                log.warning("thumbnail failed", link=link.id, reason=str(error))

    async def decode(self, link: Link, wait: float | None = None, source: int | None = None) -> Blob:
        """Have an image or film decoded: this gives its width, its height and its thumbnail.

        Waits at most `wait` seconds, then the work goes on without the caller; returns the blob with what is known of
        it. A file is decoded once at a time, however many callers ask. `source`: a descriptor at the start of the
        bytes, if the caller has one; then the store is not asked for them.
        """
        key = link.blob.key
        if self._is_spared(key):
            return link.blob
        task = self._making.get(key)
        if task is None:
            task = self._making[key] = asyncio.create_task(
                self._decode(link, None if source is None else os.dup(source))
            )
            task.add_done_callback(lambda _: self._making.pop(key, None))
        done, _ = await asyncio.wait([task], timeout=wait)
        return task.result() if done else link.blob

    async def _decode(self, link: Link, source: int | None) -> Blob:
        blob = link.blob
        with only_logged("thumbnail not kept", link=link.id):
            decoded = await self._ask_decoder(link, source)
            if decoded is not None:
                width, height, decodable = decoded.width, decoded.height, bool(decoded.decodable)
                await self.db.write(lambda c: links.set_picture(c, blob, width, height, decodable))
                return decoded
        return blob

    async def _ask_decoder(self, link: Link, source: int | None) -> Blob | None:
        """The blob with what the decoder found; its thumbnail is kept. None if a later request should try again."""
        kind, blob = link.pictured, link.blob
        try:
            async with self._opened(blob, source) as fd:
                if kind is None:
                    return None
                picture = await self.thumbnailer.picture(fd, kind, owner=link.account)
        except (Busy, NotFound):  # or deleted meanwhile
            return None
        except (Undecodable, DecoderFailed) as error:
            metrics.decodes.labels(kind, "failed").inc()
            log.info("no thumbnail", link=link.id, reason=str(error))
            if isinstance(error, Undecodable):  # the decoder worked, so the file is the cause
                return replace(blob, decodable=False)
            self._note_failure(blob.key)
            return None
        metrics.decodes.labels(kind, "made").inc()
        await self.keep_thumbnails(blob, picture.thumbnails)
        return replace(blob, width=picture.width, height=picture.height, decodable=True)

    @asynccontextmanager
    async def _opened(self, blob: Blob, source: int | None = None) -> AsyncIterator[int]:
        """A descriptor of the bytes: `source`, or one that is opened now. It is closed at the end. Raises NotFound."""
        async with AsyncExitStack() as stack:
            if source is not None:
                stack.callback(os.close, source)
            elif blob.in_database:
                data = await self.db.read(lambda c: links.find_contents(c, blob.id))
                if data is None:
                    raise NotFound
                few = Staged(blob.key, blob.size, blob.sha256, blob.sha1, data)
                source = await stack.enter_async_context(self.store.opened_staged(few))
            else:
                source = await stack.enter_async_context(self.store.opened(blob.key))
            yield source

    def _note_failure(self, key: str) -> None:
        """Count that decoders crashed or hung over a file."""
        count, _ = self._failures.pop(key, (0, 0))
        self._failures[key] = count + 1, self.clock()
        if len(self._failures) > REMEMBERED:
            del self._failures[next(iter(self._failures))]

    def _is_spared(self, key: str) -> bool:
        count, last = self._failures.get(key, (0, 0))
        return count >= TRIES and self.clock() < last + SPARED

    async def keep_thumbnails(self, blob: Blob, thumbnails: Mapping[str, bytes]) -> None:
        """Keep thumbnails of a stored blob, unless it was deleted meanwhile. Raises NoSpace, Unavailable."""
        await self.store.put_thumbnails(blob.key, thumbnails)
        known = await self.db.read(lambda c: links.find_blob(c, blob.sha256))
        if known is None or known.key != blob.key:
            await self.store.delete([blob.key])

    async def finish_thumbnails(self) -> None:
        """Wait until nothing is being decoded."""
        await asyncio.gather(*self._making.values(), return_exceptions=True)

    # --- Deleting ---

    async def delete(self, account: AccountId, wanted: Filter) -> int:
        """Remove the links that a filter matches; how many. Links made meanwhile stay."""
        if wanted == Filter():
            raise BadRequest("Say which files to delete")
        return await self._delete_up_to(account, wanted, await self._last_id(account))

    async def delete_all(self, account: AccountId) -> int:
        """Remove every link of an account; how many."""
        return await self._delete_up_to(account, Filter(), await self._last_id(account))

    async def delete_oldest(self, account: AccountId, percent: int, exclude_avatars: bool) -> int:
        """Remove the links that `oldest` tells; how many."""
        last = await self._last_id(account)
        wanted = await self.oldest(account, percent, exclude_avatars)
        return await self._delete_up_to(account, wanted, last) if wanted else 0

    async def _last_id(self, account: AccountId) -> int:
        return await self.db.read(lambda c: links.last_id(c, account))

    async def _delete_up_to(self, account: AccountId, wanted: Filter, last: int) -> int:
        after = count = 0
        while ids := await self._ids_after(account, wanted, after, last):
            count, after = count + await self.delete_ids(account, ids), ids[-1]
        return count

    async def _ids_after(self, account: AccountId, wanted: Filter, after: int, last: int) -> Sequence[int]:
        return await self.db.scan(lambda c: links.select_ids(c, account, wanted, after, last))

    async def delete_expired(self, until: int) -> int:
        """Remove the links of all accounts that expire until then, in microseconds since 1970; how many."""
        count = 0
        while expired := await self.db.scan(lambda c: upkeep.list_expired(c, until)):
            for account, ids in expired.items():
                count += await self.delete_ids(account, ids)
        return count

    async def delete_ids(self, account: AccountId, ids: Sequence[int]) -> int:
        """Remove the account's links among `ids`, and the bytes that no other link needs; how many links."""
        count, reached = 0, True
        for start in range(0, len(ids), CHUNK):
            chunk = ids[start : start + CHUNK]
            removed = await self._delete_rows(account, chunk)
            # The links are gone now. If bytes of theirs are left, trash rows tell upkeep to remove them.
            reached = reached and await self._clear(removed)
            count += len(removed.slot_ids)
        metrics.removed.inc(count)
        return count

    async def _delete_rows(self, account: AccountId, ids: Sequence[int]) -> links.Removed:
        slots = self.store.tree is not None
        return await self.db.write(lambda c: links.delete_links(c, account, ids, self.clock(), slots), frees=True)

    async def _clear(self, removed: links.Removed) -> bool:
        """Take what was removed out of the store; whether the store could be reached."""
        with only_logged("bytes not removed", files=len(removed.slot_ids)):
            if self.store.tree and removed.slot_ids:
                await self.store.tree.unpublish(removed.slot_ids)
            if removed.keys:
                await self.store.delete(removed.keys)
            if removed.trash:
                await self.db.write(lambda c: upkeep.empty_trash(c, removed.trash), frees=True)
            return True
        return False
