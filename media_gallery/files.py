"""What is stored: look at it, list it, count it, delete it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import structlog

from media_gallery import metrics
from media_gallery.db import Database, links
from media_gallery.errors import BadRequest, GalleryError, NotFound
from media_gallery.models import THUMBNAIL_SIZE, AccountId, Blob, Filter, Link, Page, Usage
from media_gallery.storage import BlobStore
from media_gallery.thumbnails import Busy, DecoderFailed, Thumbnailer, Undecodable

log = structlog.get_logger()
CHUNK = 500
"""Links removed in one transaction, so that a large deletion lets others in between."""

NEAR = 2000
"""Links that a list may pass over in the event loop; deeper pages go elsewhere."""


@dataclass(frozen=True, slots=True)
class Content:
    """Bytes to send: those of a link's file, or `thumbnail`; `placeholder` where a thumbnail could not be made."""

    link: Link
    path: Path | None = None
    thumbnail: str | None = None
    data: bytes | None = None
    placeholder: bool = False


class Files:
    """The stored files of all accounts."""

    def __init__(
        self, db: Database, store: BlobStore, thumbnailer: Thumbnailer, clock: Callable[[], int], default_quota: int
    ) -> None:
        self.db, self.store, self.thumbnailer, self.clock = db, store, thumbnailer, clock
        self.default_quota = default_quota
        self._making: dict[str, asyncio.Task[Blob]] = {}

    # --- Looking ---

    async def open(self, slot_id: str, name: str) -> Content:
        """What a public address leads to. Raises NotFound."""
        link = await self.db.read(lambda c: links.find_by_slot(c, slot_id)) if slot_id.isalnum() else None
        if link is None:
            raise NotFound
        if name == link.name:
            return Content(link, path=self.store.path(link.blob.key))
        stored = link.thumbnail_files().get(name)
        if stored is None:
            raise NotFound
        data = await self._thumbnail(link, stored)
        return Content(link, thumbnail=stored, data=data, placeholder=data is None)

    async def list(
        self, account: AccountId, wanted: Filter, order: str, descending: bool, number: int, size: int
    ) -> Page[Link]:
        """A page of the account's links; `order` is one of `links.ORDERS`."""
        quick = links.counted(wanted) is not None and number * size <= NEAR
        run = self.db.read if quick else self.db.scan
        return await run(lambda c: links.list_links(c, account, wanted, order, descending, number, size))

    async def list_oldest(
        self, account: AccountId, percent: int, exclude_avatars: bool, number: int, size: int
    ) -> Page[Link]:
        """The oldest links that together first reach `percent` of what the account uses."""
        return await self.db.scan(lambda c: links.list_oldest(c, account, percent, exclude_avatars, number, size))

    async def usage(self, account: AccountId, wanted: Filter) -> Usage:
        """Counts and bytes by category of what the filter lets through."""
        if wanted == Filter():
            return await self.db.read(lambda c: links.get_usage(c, account))
        return await self.db.scan(lambda c: links.count_usage(c, account, wanted))

    async def quota(self, account: AccountId) -> tuple[int, int]:
        """Quota and used, in bytes."""
        return await self.db.read(lambda c: links.get_quota(c, account, self.default_quota))

    # --- Thumbnails ---

    async def _thumbnail(self, link: Link, stored: str) -> bytes | None:
        """A thumbnail, made now where it is not there; None where it cannot be made."""
        data = await self.store.thumbnail(link.blob.key, stored)
        if data is None and link.blob.decodable is not False:
            blob = await self.see(link)
            if blob.decodable and stored != f"{THUMBNAIL_SIZE}.webp":
                await self._make_again(link, stored)
            data = await self.store.thumbnail(link.blob.key, stored)
        return data

    async def _make_again(self, link: Link, stored: str) -> None:
        """An avatar's thumbnail that got lost between its upload and a crash."""
        size, _, ext = stored.partition(".")
        fd = await self.store.open(link.blob.key)
        try:
            made = await self.thumbnailer.more(fd, [int(size)], ext)
            await self.store.put_thumbnails(link.blob.key, made)
        except (Undecodable, DecoderFailed) as error:
            log.warning("thumbnail failed", link=link.id, reason=str(error))
        finally:
            os.close(fd)

    async def see(self, link: Link, wait: float | None = None) -> Blob:
        """Have an image or film decoded: its measures and its thumbnail. At most `wait` seconds; the work goes on.

        Returns the blob with what is known of it then. However many ask, one file is decoded once at a time.
        """
        key = link.blob.key
        task = self._making.get(key)
        if task is None:
            task = self._making[key] = asyncio.create_task(self._see(link))
            task.add_done_callback(lambda _: self._making.pop(key, None))
        done, _ = await asyncio.wait([task], timeout=wait)
        return task.result() if done else link.blob

    async def _see(self, link: Link) -> Blob:
        kind = link.pictured
        if kind is None:
            return link.blob
        blob = link.blob
        try:
            fd = await self.store.open(blob.key)
        except NotFound:
            return blob  # deleted meanwhile
        try:
            picture = await self.thumbnailer.picture(fd, kind)
            await self.store.put_thumbnails(blob.key, picture.thumbnails)
            seen = replace(blob, width=picture.width, height=picture.height, decodable=True)
        except Busy:
            return blob  # a later request tries again
        except (Undecodable, DecoderFailed) as error:
            metrics.decodes.labels(kind, "failed").inc()
            log.info("no thumbnail", link=link.id, reason=str(error))
            seen = replace(blob, decodable=False)
        except GalleryError as error:
            log.warning("thumbnail not kept", link=link.id, reason=str(error))
            return blob
        else:
            metrics.decodes.labels(kind, "made").inc()
        finally:
            os.close(fd)
        if seen != blob:
            await self.db.write(lambda c: links.set_picture(c, blob, seen.width, seen.height, bool(seen.decodable)))
        return seen

    async def finish_thumbnails(self) -> None:
        """Wait for the decoding under way."""
        await asyncio.gather(*self._making.values(), return_exceptions=True)

    # --- Deleting ---

    async def delete(self, account: AccountId, wanted: Filter) -> int:
        """Remove the links that a filter lets through; how many. Those uploaded meanwhile stay."""
        if wanted == Filter():
            raise BadRequest("Say which files to delete")
        return await self.delete_ids(account, await self.db.scan(lambda c: links.select_ids(c, account, wanted)))

    async def delete_oldest(self, account: AccountId, percent: int, exclude_avatars: bool) -> int:
        """Remove what `list_oldest` lists."""
        ids = await self.db.scan(lambda c: links.select_oldest_ids(c, account, percent, exclude_avatars))
        return await self.delete_ids(account, ids)

    async def delete_ids(self, account: AccountId, ids: Sequence[int]) -> int:
        """Remove the account's links among `ids`, the bytes that nothing else links with them."""
        count = 0
        for start in range(0, len(ids), CHUNK):
            chunk = ids[start : start + CHUNK]
            count += await self._delete_chunk(account, chunk)
        metrics.removed.inc(count)
        return count

    async def _delete_chunk(self, account: AccountId, ids: Sequence[int]) -> int:
        removed = await self.db.write(lambda c: links.delete_links(c, account, ids, self.clock()))
        # From here on the links are gone. What a crash leaves of the bytes, the trash rows tell to be swept.
        if removed.slot_ids:
            await self.store.unpublish(removed.slot_ids)
        if removed.keys:
            await self.store.delete(removed.keys)
        return len(removed.slot_ids)
