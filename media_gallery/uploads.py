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
from media_gallery.arriving import Arrivals, Entry
from media_gallery.db import Connection, Database, accounts, links
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
from media_gallery.storage import BlobStore, Slot, Staged, Writer
from media_gallery.thumbnails import Avatar, DecoderFailed, Thumbnailer, Undecodable

log = structlog.get_logger()
STEP = 512 * 1024
"""Bytes of an upload between two looks at what else of its account is on its way, where its quota is nearly reached."""
AWAITED = 600 * 1_000_000
"""Microseconds after a slot hit within which an upload of the same takes the hit's link over (contract)."""
COME_AGAIN = 5
"""Seconds after which a client may try again that has too many uploads under way."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes in bytes, times in seconds; rates as in the settings."""

    default_quota: int
    files_per_account: int
    max_file_size: int
    rate_upload: str
    rate_slot: str
    uploads_at_once: int
    thumbnail_wait: float


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
        arrivals: Arrivals,
        clock: Callable[[], int],
        limits: Limits,
    ) -> None:
        self.db, self.store, self.thumbnailer, self.files, self.rates = db, store, thumbnailer, files, rates
        self.arrivals, self.clock, self.limits = arrivals, clock, limits

    async def admit(self, account: AccountId, size: int, whole: int = 0, *, again: bool = True) -> tuple[int, int]:
        """Whether a file of so many bytes may come; quota and used. Raises TooLarge, QuotaExceeded, TooManyFiles,
        NoSpace.

        `whole`: what a refusal names as its size, where `size` is only what it has at least. `again`: it may be the
        upload of a slot hit, which `used` is without then.
        """
        limits, now = self.limits, self.clock() if again else 0
        if size > limits.max_file_size:
            raise TooLarge(max_file_size=limits.max_file_size)
        quota, used = await self.db.read(
            lambda c: accounts.check_room(c, account, size, limits.default_quota, limits.files_per_account, whole, now)
        )
        self.store.check_room()
        return quota, used

    async def slot(self, account: AccountId, offer: Offer) -> Kept | tuple[int, int]:
        """A new link where the account already has these bytes; otherwise its quota and used.

        Raises what `begin` would raise for the same file.
        """
        await self.rates.hit("slot", self.limits.rate_slot, account)
        await self.rates.test("upload", self.limits.rate_upload, account)
        size, digest, avatar = offer.size or 0, offer.digest, offer.context == "avatar"
        quota, used = await self.admit(account, size, again=False)
        if digest is None:
            return quota, used
        known = await self.db.read(lambda c: links.find_by_digest(c, account, digest, size, avatar))
        if known is None:
            return quota, used
        # Its bytes are not here to be looked at: a type that has to be looked at says nothing.
        said = media_types.parse(offer.media_type)[0] if offer.media_type and not avatar else None
        media_type = said if said and said != "text/plain" else known.media_type
        context = _context(offer) or ("file" if known.context == "avatar" else known.context)
        new = NewLink(
            new_slot_id(), offer.name, media_type, context, offer.metadata or known.metadata, known.thumbnails,
            self.clock() + AWAITED,
        )  # fmt: skip
        entry = self.arrivals.enter_link(new.slot_id)
        try:
            kept = await self._link_again(entry, account, new, known.blob)
        finally:
            self.arrivals.leave(entry)
        if kept is None:
            return quota, used
        metrics.slot_hits.inc()
        return kept

    async def _link_again(self, entry: Entry, account: AccountId, new: NewLink, known: Blob) -> Kept | None:
        """A link to bytes that are here; None where they have gone meanwhile."""
        entry.in_doubt = True
        try:
            await self.store.publish(known.key, _slot(_link_to(known, account, new)))
            kept = await self._link(account, new, known, None)
        except _BlobChanged:
            await self._take_back(entry, [])
            return None
        except GalleryError as refusal:
            if not isinstance(refusal, InDoubt):
                await self._take_back(entry, [])
            raise
        entry.in_doubt = False
        return kept

    async def begin(self, account: AccountId, declared: int, whole: int = 0) -> Upload:
        """Start an upload of at least `declared` and about `whole` bytes. Raises TooManyRequests, TooLarge,
        QuotaExceeded, TooManyFiles.
        """
        await self.rates.hit("upload", self.limits.rate_upload, account)
        quota, used = await self.admit(account, declared, whole)
        writer = self.store.writer()
        entered = self.arrivals.enter(account, self.limits.uploads_at_once, writer.key)
        if entered is None:
            raise TooManyRequests("Too many uploads at once", retry_after=COME_AGAIN)
        entry, others = entered
        return Upload(self, account, entry, writer, quota - used - others)

    async def _link(self, account: AccountId, new: NewLink, blob: Blob, seen: Avatar | None) -> Kept:
        """The transaction that makes a link, charging the quota; `blob.id` 0 where the bytes were just committed."""

        async def transaction(c: Connection) -> Kept:
            now = self.clock()
            category = category_of(new.media_type, new.context)
            limits = self.limits
            quota, used = await accounts.charge(
                c, account, blob.size, category, limits.default_quota, limits.files_per_account
            )
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

        So a crash at any moment leaves too much at worst, which upkeep removes, and never too little.
        """
        own, committed, entry = Blob(0, staged.key, staged.size, staged.sha256, staged.sha1), False, upload.entry
        self.arrivals.note(entry, key=staged.key, slot=new.slot_id)
        entry.in_doubt = True
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
                self.arrivals.note(entry, size=-entry.size)  # the transaction counts them: nobody shall see them twice
                try:
                    kept = await self._link(upload.account, new, blob, seen)
                    break
                except _BlobChanged:
                    continue
        except GalleryError as refusal:
            if not isinstance(refusal, InDoubt):
                await self._take_back(entry, [staged.key] if committed else [])
            raise
        if known is not None:
            with only_logged("spare bytes not removed", link=kept.link.id):
                await (self.store.delete([staged.key]) if committed else self.store.discard(staged))
                entry.in_doubt = False
        else:
            entry.in_doubt = False
        metrics.uploads.labels(kept.link.category, "known" if known else "new").inc()
        return kept

    async def take_over(self, account: AccountId, staged: Staged, new: NewLink, offer: Offer) -> Kept | None:
        """The link of a slot hit that awaits these bytes, with what the upload says of them; they go. Else None.

        COMPAT: iOS uploads whatever the slot has answered.
        """
        now, avatar = self.clock(), new.context == "avatar"
        hit = await self.db.read(lambda c: links.find_awaited(c, account, staged.sha256, new.name, avatar, now))
        if hit is None:
            return None
        told = replace(
            new,
            slot_id=hit.slot_id,
            media_type=new.media_type if says_type(offer) else hit.media_type,
            context=hit.context if new.context == "file" and offer.context is None else new.context,
            metadata=new.metadata or hit.metadata,
        )

        async def transaction(c: Connection) -> Kept | None:
            link = await links.take_over(c, hit, told, now)
            return Kept(link, *await accounts.get_quota(c, account, self.limits.default_quota)) if link else None

        kept = await self.db.write(transaction)
        if kept is not None:
            with only_logged("spare bytes not removed", link=kept.link.id):
                await self.store.discard(staged)
            with only_logged("link not published", link=kept.link.id):
                await self.store.publish(hit.blob.key, _slot(kept.link))
            metrics.uploads.labels(kept.link.category, "known").inc()
        return kept

    async def _take_back(self, entry: Entry, keys: list[str]) -> None:
        """Leave nothing of a link that surely was not made; what cannot be removed now is for upkeep."""
        with only_logged("spare bytes not removed"):
            await self.store.unpublish([entry.slot])
            if keys:
                await self.store.delete(keys)
            entry.in_doubt = False


class Upload:
    """One file on its way in. Ends with `finish` or `discard`."""

    def __init__(self, uploads: Uploads, account: AccountId, entry: Entry, writer: Writer, left: int) -> None:
        self._uploads, self.account, self.entry, self._writer = uploads, account, entry, writer
        self._free = _until_next_look(left)
        self._head = b""
        self.whole = 0
        """Size of the file as far as it is known before its end, for a refusal to name."""

    async def write(self, chunk: bytes) -> None:
        """Take the next bytes. Raises TooLarge or QuotaExceeded as soon as there are too many, NoSpace.

        All that the account sends at once counts, or many uploads that never end could fill the disk.
        """
        size = self._writer.size + len(chunk)
        if size > self._uploads.limits.max_file_size:
            raise TooLarge(max_file_size=self._uploads.limits.max_file_size)
        await self._count(len(chunk), size)
        if len(self._head) < media_types.HEAD:
            self._head += chunk[: media_types.HEAD - len(self._head)]
        await self._writer.write(chunk)

    async def _count(self, more: int, size: int) -> None:
        """Count bytes as under way, at times together with those that other uploads of the account have brought."""
        arrivals = self._uploads.arrivals
        if more <= self._free:
            self._free -= more
            arrivals.note(self.entry, size=more)
            return
        quota, used = await self._uploads.admit(self.account, size, self.whole)
        left = arrivals.grow(self.entry, more, quota - used)
        if left < 0:
            raise QuotaExceeded(quota=quota, used=used, required=max(size, self.whole))
        self._free = _until_next_look(left)

    async def finish(self, offer: Offer) -> Kept:
        """Check the file against the offer, and keep it. Raises BadRequest, UnsupportedMedia, QuotaExceeded."""
        kept = await self._finish(offer)
        self._uploads.arrivals.leave(self.entry)
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
            kept = await self._kept(staged, new, offer)
            link = kept.link
            if link.thumbnails and link.pictured and not link.blob.decodable:  # it may have failed under a wrong type
                with only_logged("thumbnail not made", link=link.id):
                    blob = await self._uploads.files.see(link, self._uploads.limits.thumbnail_wait, fd)
                    kept = replace(kept, link=replace(link, blob=blob))
        return kept

    async def _kept(self, staged: Staged, new: NewLink, offer: Offer, seen: Avatar | None = None) -> Kept:
        taken = await self._uploads.take_over(self.account, staged, new, offer)
        return taken or await self._uploads.keep(self, staged, new, seen)

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
        kept = await self._kept(cropped, new, offer, avatar)
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
        self._uploads.arrivals.leave(self.entry)
        await self._writer.discard()


def _until_next_look(left: int) -> int:
    """Bytes that an upload may bring before it looks again at what is left to its account, which others use up, too."""
    return max(0, min(left, max(STEP, left // 64)))


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


def says_type(offer: Offer) -> bool:
    """Whether anything was said of its media type."""
    return any(media_types.parse(said)[0] for said in (offer.media_type, offer.part_type) if said)


def _context(offer: Offer) -> Context | None:
    """What was said of it: a `+voice` of either type makes a voice message of anything but an avatar."""
    voice = any(media_types.parse(said)[1] for said in (offer.media_type, offer.part_type) if said)
    return "voice" if voice and offer.context != "avatar" else offer.context
