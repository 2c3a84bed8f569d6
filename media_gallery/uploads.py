"""The way in: may this file come, is it here already, take it, keep it."""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import structlog

from media_gallery import media_types, metrics
from media_gallery.db import Connection, Database, links
from media_gallery.db.links import NewLink
from media_gallery.errors import (
    BadRequest,
    GalleryError,
    InDoubt,
    QuotaExceeded,
    TooLarge,
    TooManyRequests,
    Unavailable,
    UnsupportedMedia,
)
from media_gallery.files import Files, only_logged
from media_gallery.models import (
    AccountId,
    Blob,
    Context,
    Digest,
    Link,
    category_of,
)
from media_gallery.rates import Rates
from media_gallery.storage import BlobStore, Slot, Staged
from media_gallery.thumbnails import Avatar, DecoderFailed, Thumbnailer, Undecodable

log = structlog.get_logger()
COME_AGAIN = 5
"""Seconds after which a client may try again that has too many uploads under way."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes in bytes, times in seconds; rates as in the settings."""

    default_quota: int
    max_file_size: int
    rate_upload: str
    rate_slot: str
    uploads_at_once: int
    thumbnail_wait: float


@dataclass(slots=True)
class Arriving:
    """What of one account is on its way in, in this process. Sizes in bytes."""

    quota: int = 0
    used: int = 0
    size: int = 0
    uploads: int = 0


@dataclass(frozen=True, slots=True)
class Offer:
    """What a client says about a file. `part_type` is what the transport said, believed after `media_type`."""

    name: str = "_"
    size: int | None = None
    digest: Digest | None = None
    media_type: str | None = None
    part_type: str | None = None
    context: Context | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    thumbnails: bool = True


@dataclass(frozen=True, slots=True)
class Kept:
    """A link that was made, with the account's quota and used after it, in bytes."""

    link: Link
    quota: int
    used: int


class _BlobChanged(Exception):
    """Between the look and the transaction the known blob lost its last link, or the unknown one became known."""


class Uploads:
    """Slots and uploads of all accounts."""

    def __init__(
        self,
        db: Database,
        store: BlobStore,
        thumbnailer: Thumbnailer,
        files: Files,
        rates: Rates,
        clock: Callable[[], int],
        limits: Limits,
    ) -> None:
        self.db, self.store, self.thumbnailer, self.files, self.rates = db, store, thumbnailer, files, rates
        self.clock, self.limits = clock, limits
        self.arriving: dict[AccountId, Arriving] = {}

    async def admit(self, account: AccountId, size: int, whole: int = 0) -> tuple[int, int]:
        """Whether a file of so many bytes may come; quota and used. Raises TooLarge, QuotaExceeded, NoSpace.

        `whole`: what a refusal names as its size, where `size` is only what it has at least.
        """
        if size > self.limits.max_file_size:
            raise TooLarge(max_file_size=self.limits.max_file_size)
        quota, used = await self.files.quota(account)
        if used + size > quota:
            raise QuotaExceeded(quota=quota, used=used, required=max(size, whole))
        self.store.check_room()
        return quota, used

    async def slot(self, account: AccountId, offer: Offer) -> Kept | tuple[int, int]:
        """A new link where the account already has these bytes; otherwise its quota and used.

        Raises what `begin` would raise for the same file.
        """
        await self.rates.hit("slot", self.limits.rate_slot, account)
        await self.rates.test("upload", self.limits.rate_upload, account)
        size, digest, avatar = offer.size or 0, offer.digest, offer.context == "avatar"
        quota, used = await self.admit(account, size)
        if digest is None:
            return quota, used
        known = await self.db.read(lambda c: links.find_by_digest(c, account, digest, size, avatar))
        if known is None:
            return quota, used
        # Its bytes are not here to be looked at: a type that has to be looked at says nothing.
        said = media_types.parse(offer.media_type)[0] if offer.media_type and not avatar else None
        media_type = said if said and said != "text/plain" else known.media_type
        context = _context(offer) or ("file" if known.context == "avatar" else known.context)
        new = NewLink(new_slot_id(), offer.name, media_type, context, offer.metadata, known.thumbnails)
        try:
            await self.store.publish(known.blob.key, _slot(_link_to(known.blob, account, new)))
            kept = await self._link(account, new, known.blob, None)
        except _BlobChanged:
            await self.store.unpublish([new.slot_id])
            return quota, used
        except GalleryError as refusal:
            await self._take_back(refusal, new.slot_id, [])
            raise
        metrics.slot_hits.inc()
        return kept

    async def begin(self, account: AccountId, declared: int, whole: int = 0) -> Upload:
        """Start an upload of at least `declared` and about `whole` bytes. Raises TooManyRequests, TooLarge,
        QuotaExceeded.
        """
        await self.rates.hit("upload", self.limits.rate_upload, account)
        quota, used = await self.admit(account, declared, whole)
        arriving = self.arriving.setdefault(account, Arriving())
        if arriving.uploads >= self.limits.uploads_at_once:
            raise TooManyRequests("Too many uploads at once", retry_after=COME_AGAIN)
        arriving.quota, arriving.used = quota, used
        return Upload(self, account, arriving)

    async def _link(self, account: AccountId, new: NewLink, blob: Blob, seen: Avatar | None) -> Kept:
        """The transaction that makes a link, charging the quota; `blob.id` 0 where the bytes were just committed."""

        async def transaction(c: Connection) -> Kept:
            now = self.clock()
            category = category_of(new.media_type, new.context)
            quota, used = await links.charge(c, account, blob.size, category, self.limits.default_quota)
            found = await links.link_known_blob(c, blob) if blob.id else await links.insert_blob(c, blob, now)
            if found is None or found.key != blob.key:
                raise _BlobChanged
            known = _as_seen(found, seen)
            if known != found:
                await links.set_picture(c, known, known.width, known.height, True)
            return Kept(await links.insert_link(c, account, new, known, now), quota, used)

        return await self.db.write(transaction)

    async def keep(self, upload: Upload, staged: Staged, new: NewLink, seen: Avatar | None) -> Kept:
        """Make staged bytes a file: durable and published first, then named by a row. Known bytes are not stored again.

        So a crash at any moment leaves too much at worst, which `gc` removes, and never too little.
        """
        own, committed = Blob(0, staged.key, staged.size, staged.sha256, staged.sha1), False
        try:
            while True:
                known = await self.db.read(lambda c: links.find_blob(c, staged.sha256))
                blob = _as_seen(known or own, seen)
                slot = _slot(_link_to(blob, upload.account, new))
                if known is not None or committed:
                    await self.store.publish(blob.key, slot)
                else:
                    await self.store.commit(staged, slot)
                    committed = True
                upload.count_no_more()  # the transaction counts these bytes: nobody shall see them twice
                try:
                    kept = await self._link(upload.account, new, blob, seen)
                    break
                except _BlobChanged:
                    continue
        except GalleryError as refusal:
            await self._take_back(refusal, new.slot_id, [staged.key] if committed else [])
            raise
        upload.arriving.used = kept.used
        if known is not None:
            with only_logged("spare bytes not removed", link=kept.link.id):
                await (self.store.delete([staged.key]) if committed else self.store.discard(staged))
        metrics.uploads.labels(kept.link.category, "known" if known else "new").inc()
        return kept

    async def _take_back(self, refusal: GalleryError, slot_id: str, keys: list[str]) -> None:
        """Leave nothing of a link that was refused. In doubt the row may be there: upkeep sees."""
        if not isinstance(refusal, InDoubt):
            with only_logged("spare bytes not removed"):
                await self.store.unpublish([slot_id])
                if keys:
                    await self.store.delete(keys)


class Upload:
    """One file on its way in. Ends with `finish` or `discard`."""

    def __init__(self, uploads: Uploads, account: AccountId, arriving: Arriving) -> None:
        self._uploads, self.account, self.arriving, self._counted = uploads, account, arriving, 0
        self._writer = uploads.store.writer()
        self._head = b""
        self._open = True
        self.whole = 0
        """Size of the file as far as it is known before its end, for a refusal to name."""
        arriving.uploads += 1

    async def write(self, chunk: bytes) -> None:
        """Take the next bytes. Raises TooLarge or QuotaExceeded as soon as there are too many, NoSpace.

        All that the account sends at once counts, or many uploads that never end could fill the disk.
        """
        size, arriving = self._writer.size + len(chunk), self.arriving
        if size > self._uploads.limits.max_file_size:
            raise TooLarge(max_file_size=self._uploads.limits.max_file_size)
        if arriving.used + arriving.size + len(chunk) > arriving.quota:
            raise QuotaExceeded(quota=arriving.quota, used=arriving.used, required=max(size, self.whole))
        arriving.size += len(chunk)
        self._counted += len(chunk)
        if len(self._head) < media_types.HEAD:
            self._head += chunk[: media_types.HEAD - len(self._head)]
        await self._writer.write(chunk)

    async def finish(self, offer: Offer) -> Kept:
        """Check the file against the offer, and keep it. Raises BadRequest, UnsupportedMedia, QuotaExceeded."""
        kept = await self._finish(offer)
        self._end()
        return kept

    async def _finish(self, offer: Offer) -> Kept:
        staged = await self._writer.finish()
        metrics.received.inc(staged.size)
        _check(staged, offer)
        media_type, context = decide_type(offer, self._head)
        if context == "avatar":
            return await self._finish_avatar(staged, offer)
        new = NewLink(new_slot_id(), offer.name, media_type, context, offer.metadata, offer.thumbnails)
        async with self._held_open(staged, new) as fd:
            kept = await self._uploads.keep(self, staged, new, None)
            link = kept.link
            if link.thumbnails and link.pictured and not link.blob.decodable:  # it may have failed under a wrong type
                with only_logged("thumbnail not made", link=link.id):
                    blob = await self._uploads.files.see(link, self._uploads.limits.thumbnail_wait, fd)
                    kept = replace(kept, link=replace(link, blob=blob))
        return kept

    @asynccontextmanager
    async def _held_open(self, staged: Staged, new: NewLink) -> AsyncIterator[int | None]:
        """A descriptor for the decoder, where the store is far away and would have to bring the bytes back."""
        store, pictured = self._uploads.store, new.media_type.startswith(("image/", "video/"))
        if not (new.thumbnails and pictured) or store.path(staged.key) is not None:
            yield None
            return
        fd = await store.open_staged(staged)
        try:
            yield fd
        finally:
            os.close(fd)

    async def _finish_avatar(self, staged: Staged, offer: Offer) -> Kept:
        avatar = await self._crop(staged)
        self._writer = self._uploads.store.writer()
        await self._writer.write(avatar.data)
        cropped = await self._writer.finish()
        new = NewLink(new_slot_id(), offer.name, avatar.media_type, "avatar", offer.metadata, offer.thumbnails)
        kept = await self._uploads.keep(self, cropped, new, avatar)
        if offer.thumbnails:
            with only_logged("thumbnails not kept", link=kept.link.id):  # made again when they are asked for
                await self._uploads.files.keep_thumbnails(kept.link.blob, avatar.thumbnails)
        return kept

    async def _crop(self, staged: Staged) -> Avatar:
        """The square that is kept of an avatar; the original bytes go. Raises UnsupportedMedia, Unavailable."""
        fd = await self._uploads.store.open_staged(staged)
        try:
            avatar = await self._uploads.thumbnailer.avatar(fd, owner=self.account)
        except DecoderFailed as error:
            metrics.decodes.labels("avatar", "failed").inc()
            log.warning("avatar not decoded", reason=str(error))
            raise Unavailable("The image cannot be decoded right now") from error
        except Undecodable as error:
            metrics.decodes.labels("avatar", "failed").inc()
            log.info("avatar refused", reason=str(error))
            raise UnsupportedMedia from error
        finally:
            os.close(fd)
            await self._uploads.store.discard(staged)
        metrics.decodes.labels("avatar", "made").inc()
        return avatar

    async def discard(self) -> None:
        """Leave nothing of an upload that failed. After a `finish` that returned there is nothing to leave."""
        self._end()
        await self._writer.discard()

    def count_no_more(self) -> None:
        """What has come of this upload is counted elsewhere from now on, or goes."""
        self.arriving.size -= self._counted
        self._counted = 0

    def _end(self) -> None:
        self.count_no_more()
        if self._open:
            self._open = False
            self.arriving.uploads -= 1
            if not self.arriving.uploads:
                del self._uploads.arriving[self.account]


def new_slot_id() -> str:
    return secrets.token_hex(16)


def _slot(link: Link) -> Slot:
    return Slot(link.slot_id, link.name, link.media_type, link.thumbnail_files())


def _link_to(blob: Blob, account: AccountId, new: NewLink) -> Link:
    """The link about to be made, for what it will publish."""
    return Link(0, account, new.slot_id, new.name, new.media_type, new.context, {}, new.thumbnails, 0, blob)


def _as_seen(blob: Blob, seen: Avatar | None) -> Blob:
    """The blob with its measures, where it is an avatar that came as a plain file before, or never."""
    if seen is None or blob.width is not None:
        return blob
    return replace(blob, width=seen.width, height=seen.width, decodable=True)


def _check(staged: Staged, offer: Offer) -> None:
    """Whether the bytes are those that were announced (contract, status 400)."""
    if offer.size is not None and offer.size != staged.size:
        raise BadRequest("The size does not match", fields={"size": f"{staged.size} bytes were received"})
    digest = offer.digest
    if digest and {"sha-1": staged.sha1, "sha-256": staged.sha256}.get(digest.algorithm, digest.value) != digest.value:
        raise BadRequest("The digest does not match", fields={"hash": f"the {digest.algorithm} is another one"})


def decide_type(offer: Offer, head: bytes) -> tuple[str, Context]:
    """The one media type and context of a link: what was said of it, else what content and name say."""
    media_type = media_types.decide((offer.media_type, offer.part_type), offer.name, head)
    # COMPAT: iOS marks its voice messages by their loudness alone
    recorded = offer.context != "avatar" and media_type.startswith("audio/") and "meters" in offer.metadata
    return media_type, "voice" if recorded else _context(offer) or "file"


def _context(offer: Offer) -> Context | None:
    """What was said of it: a `+voice` of either type makes a voice message of anything but an avatar."""
    voice = any(media_types.parse(said)[1] for said in (offer.media_type, offer.part_type) if said)
    return "voice" if voice and offer.context != "avatar" else offer.context
