"""The way in: may this file come, is it here already, take it. However it is brought, in a form or by itself."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import structlog

from media_gallery import media_types, metrics
from media_gallery.arriving import Arrivals, Entry
from media_gallery.db import Database, accounts, links
from media_gallery.errors import Conflict, QuotaExceeded, TooLarge, TooManyRequests, Unavailable, UnsupportedMedia
from media_gallery.files import Files, only_logged
from media_gallery.keeping import Keeper, Kept
from media_gallery.models import AccountId, NewLink, Quota
from media_gallery.offers import Offer, decide_type
from media_gallery.policy import Policy
from media_gallery.rates import Rates
from media_gallery.storage import BlobStore, Staged, Writer
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

    max_file_size: int
    rate_upload: str
    rate_slot: str
    uploads_at_once: int
    thumbnail_wait: float


@dataclass(slots=True)
class Received:
    """What has come of a file, as one value: kept, it is all that going on with the file would need. Sizes in bytes.

    Its digests and the first bytes, by which its type is told, are no part of it, for both follow from the bytes under
    the key. No digest of `hashlib` gives its state away: who goes on without the writer reads those bytes once more.
    """

    account: AccountId
    key: str
    """Under which the store has its bytes."""
    size: int = 0
    """How many have come."""
    whole: int = 0
    """How many there will be, as far as it is known, for a refusal to name."""


@dataclass(eq=False, kw_only=True)
class Uploads:
    """Slots and uploads of all accounts."""

    db: Database
    store: BlobStore
    thumbnailer: Thumbnailer
    files: Files
    rates: Rates
    arrivals: Arrivals
    policy: Policy
    clock: Callable[[], int]
    limits: Limits

    def __post_init__(self) -> None:
        self.keeper = Keeper(self.db, self.store, self.arrivals, self.policy, self.clock)

    async def admit(self, account: AccountId | str, size: int, whole: int = 0, *, again: bool = True) -> Quota:
        """Whether a file of so many bytes may come; the quota before it. Raises TooLarge, QuotaExceeded, TooManyFiles,
        NoSpace.

        `whole`: what a refusal names as its size, where `size` is only what it has at least. `again`: it may be the
        upload of a slot hit, which `used` is without then. `account` may be a bare JID, whose account comes to be with
        this file.
        """
        if size > self.limits.max_file_size:
            raise TooLarge(max_file_size=self.limits.max_file_size)
        now = self.clock() if again else 0
        quota = await self.db.read(lambda c: self.policy.check_room(c, account, size, whole, now))
        self.store.check_room()
        return quota

    async def slot(self, account: AccountId, offer: Offer) -> Kept | Quota:
        """A new link where the account already has these bytes; otherwise its quota.

        Raises what `begin` would raise for the same file.
        """
        await self._count_slot(account)
        size, digest, avatar = offer.size or 0, offer.digest, offer.context == "avatar"
        quota = await self.admit(account, size, again=False)
        if digest is None:
            return quota
        known = await self.db.read(lambda c: links.find_by_digest(c, account, digest, size, avatar))
        if known is None:
            return quota
        # Its bytes are not here to be looked at: a type that has to be looked at says nothing.
        said = media_types.parse(offer.media_type)[0] if offer.media_type and not avatar else None
        media_type = said if said and said != "text/plain" else known.media_type
        context = offer.believed_context or ("file" if known.context == "avatar" else known.context)
        told = replace(offer, metadata=offer.metadata or known.metadata, thumbnails=known.thumbnails)
        new, until = told.link(media_type, context), self.clock() + AWAITED
        kept = await self.keeper.link_again(account, new, known.blob, until)
        if kept is None:
            return quota
        metrics.slot_hits.inc()
        return kept

    async def permit(self, jid: str, size: int) -> None:
        """Whether a bare JID may upload `size` bytes now, which has an account or gets one with its first upload.

        Counts, and raises, as `slot` does.
        """
        account = await self.db.read(lambda c: accounts.find_account(c, jid))
        await self._count_slot(account.id if account else jid)
        await self.admit(jid, size, again=False)

    async def _count_slot(self, who: AccountId | str) -> None:
        await self.rates.hit("slot", self.limits.rate_slot, who)
        await self.rates.test("upload", self.limits.rate_upload, who)

    @asynccontextmanager
    async def begin(
        self, account: AccountId, least: int = 0, whole: int = 0, slot_id: str = ""
    ) -> AsyncIterator[Upload]:
        """An upload of at least `least` bytes and about `whole`. At the end of the `with` nothing is left of what was
        not finished, whatever ended it. `slot_id`: the slot that it is for, if that was given out before.

        Raises TooManyRequests, TooLarge, QuotaExceeded, TooManyFiles, NoSpace, Conflict.
        """
        await self.rates.hit("upload", self.limits.rate_upload, account)
        quota = await self.admit(account, least, whole)
        writer = self.store.writer()
        entered = self.arrivals.enter(account, self.limits.uploads_at_once, writer.key, slot_id)
        if entered is None:
            raise TooManyRequests("Too many uploads at once", retry_after=COME_AGAIN)
        entry, others = entered
        upload = Upload(self, Received(account, writer.key, whole=whole), entry, writer, quota.left - others)
        try:
            taken = await self.db.read(lambda c: links.is_taken(c, slot_id)) if slot_id else False
            if taken:
                raise Conflict
            yield upload
        finally:
            self.arrivals.leave(entry)
            if not upload.finished:
                await upload.discard()


class Upload:
    """One file on its way in, whatever brings it."""

    def __init__(self, uploads: Uploads, received: Received, entry: Entry, writer: Writer, left: int) -> None:
        self._uploads, self.received, self._entry, self._writer = uploads, received, entry, writer
        self._head, self.finished = b"", False
        self._free = self._until_next_look(left)

    async def announce(self, size: int) -> None:
        """The client says how many bytes there will be, before they come. Raises what `admit` does."""
        self.received.whole = size or self.received.whole
        await self._uploads.admit(self.received.account, size)

    async def write(self, chunk: bytes) -> None:
        """Take the next bytes. Raises TooLarge or QuotaExceeded as soon as there are too many, NoSpace.

        All that the account sends at once counts, or many uploads that never end could fill the disk.
        """
        await self._count(len(chunk))
        if len(self._head) < media_types.HEAD:
            self._head += chunk[: media_types.HEAD - len(self._head)]
        await self._writer.write(chunk)

    async def _count(self, added: int) -> None:
        """Count bytes as under way, at times together with those that other uploads of the account have brought."""
        arrivals, received = self._uploads.arrivals, self.received
        size = received.size + added
        if added <= self._free:
            self._free -= added
            arrivals.note(self._entry, size=added)
            received.size = size
            return
        quota = await self._uploads.admit(received.account, size, received.whole)
        left = arrivals.grow(self._entry, added, quota.left)
        if left < 0:
            raise QuotaExceeded(quota=quota.limit, used=quota.used, required=max(size, received.whole))
        received.size = size
        self._free = self._until_next_look(left)

    def _until_next_look(self, left: int) -> int:
        """Bytes that may come before the next look at what a file may have, and at what is left to the account: others
        use that up, too.
        """
        return max(0, min(left, max(STEP, left // 64), self._uploads.limits.max_file_size - self.received.size))

    async def finish(self, offer: Offer) -> Kept:
        """Check the file against the offer, and keep it. Raises BadRequest, UnsupportedMedia, QuotaExceeded."""
        staged = await self._writer.finish()
        metrics.received.inc(staged.size)
        offer.check(staged)
        media_type, context = decide_type(offer, self._head)
        if context == "avatar" and not offer.unchanged:
            kept = await self._keep_avatar(staged, offer)
        else:
            kept = await self._keep(staged, offer, offer.link(media_type, context))
        self.finished = True
        return kept

    async def _keep(self, staged: Staged, offer: Offer, new: NewLink) -> Kept:
        async with self._held_open(staged, new) as fd:
            kept = await self._uploads.keeper.keep(self._entry, staged, offer, new)
            link = kept.link
            if link.thumbnails and link.pictured and not link.blob.decodable:  # it may have failed under a wrong type
                with only_logged("thumbnail not made", link=link.id):
                    blob = await self._uploads.files.decode(link, self._uploads.limits.thumbnail_wait, fd)
                    kept = replace(kept, link=replace(link, blob=blob))
        return kept

    @asynccontextmanager
    async def _held_open(self, staged: Staged, new: NewLink) -> AsyncIterator[int | None]:
        """A descriptor for the decoder, where the store is far away and would have to bring the bytes back."""
        store = self._uploads.store
        if not (new.thumbnails and new.pictured) or store.files is not None:
            yield None
            return
        async with store.opened_staged(staged) as fd:
            yield fd

    async def _keep_avatar(self, staged: Staged, offer: Offer) -> Kept:
        avatar = await self._crop(staged)
        self._writer = self._uploads.store.writer()
        await self._writer.write(avatar.data)
        cropped = await self._writer.finish()
        kept = await self._uploads.keeper.keep(
            self._entry, cropped, offer, offer.link(avatar.media_type, "avatar"), avatar
        )
        if offer.thumbnails:
            with only_logged("thumbnails not kept", link=kept.link.id):  # made again when they are asked for
                await self._uploads.files.keep_thumbnails(kept.link.blob, avatar.thumbnails)
        return kept

    async def _crop(self, staged: Staged) -> Avatar:
        """The square that is kept of an avatar; the original bytes go. Raises UnsupportedMedia, Unavailable."""
        try:
            async with self._uploads.store.opened_staged(staged) as fd:
                avatar = await self._uploads.thumbnailer.avatar(fd, owner=self.received.account)
        except DecoderFailed as error:
            metrics.decodes.labels("avatar", "failed").inc()
            log.warning("avatar not decoded", reason=str(error))
            raise Unavailable("The image cannot be decoded right now") from error
        except Undecodable as error:
            metrics.decodes.labels("avatar", "failed").inc()
            log.info("avatar refused", reason=str(error))
            raise UnsupportedMedia from error
        finally:
            await self._uploads.store.discard(staged)
        metrics.decodes.labels("avatar", "made").inc()
        return avatar

    async def discard(self) -> None:
        """Leave nothing of it; `begin` sees to that."""
        await self._writer.discard()
