"""How files come in, by any transport: whether one may come, whether its bytes are known, and the upload itself."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import structlog

from media_gallery import media_types, metrics
from media_gallery.arriving import Arrivals, Entry
from media_gallery.db import Connection, Database, accounts, links
from media_gallery.errors import Conflict, QuotaExceeded, TooLarge, TooManyRequests, Unavailable, UnsupportedMedia
from media_gallery.files import Files, only_logged
from media_gallery.keeping import Keeper, Kept, Origin
from media_gallery.models import Account, AccountId, NewLink, Quota
from media_gallery.offers import Offer, decide_type
from media_gallery.policy import Policy
from media_gallery.rates import Rates
from media_gallery.storage import BlobStore, Staged, Writer
from media_gallery.thumbnails import Avatar, DecoderFailed, Thumbnailer, Undecodable

log = structlog.get_logger()
STEP = 512 * 1024
"""Bytes of an upload between two looks at the account's other uploads, if the quota is nearly used up."""
AWAITED = 600 * 1_000_000
"""Microseconds after a slot hit in which an upload of the same bytes takes over its link (contract)."""
COME_AGAIN = 5
"""Seconds after which a client with too many uploads under way may try again."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes in bytes, times in seconds; rates as in the settings."""

    max_file_size: int
    rate_upload: str
    rate_slot: str
    uploads_at_once: int
    thumbnail_wait: float
    small_file_size: int


@dataclass(slots=True)
class Received:
    """What has come of a file, as one value: if it were stored, an upload could be resumed. Sizes in bytes.

    It does not hold digests or the first bytes, which tell the type: both follow from the bytes under the key. The
    state of a `hashlib` digest cannot be stored, so to resume without the writer those bytes must be read again.
    """

    account: AccountId
    key: str
    """The key under which the store has the bytes."""
    size: int = 0
    """How many have come."""
    whole: int = 0
    """How many there will be, as far as is known; a refusal names it."""


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
        self.keeper = Keeper(self.db, self.store, self.arrivals, self.policy, self.clock, self.limits.small_file_size)

    async def admit(
        self, account: Account | AccountId | str, size: int, whole: int = 0, *, again: bool = True, slot_id: str = ""
    ) -> Quota:
        """The quota before one more file of so many bytes. Raises TooLarge, QuotaExceeded, TooManyFiles, NoSpace;
        Conflict if the slot, if one was given out before, has its file.

        `whole`: the size that a refusal names, if `size` is only the least that the file may have. `again`: the file
        may be the upload of a slot hit, and then `used` is without it. `account` may be a bare JID, whose account is
        made with this file; if it is one that was just read, it is read again only if it has no room.
        """
        if size > self.limits.max_file_size:
            raise TooLarge(max_file_size=self.limits.max_file_size)
        now = self.clock() if again else 0
        who = account.id if isinstance(account, Account) else account
        room = self.policy.room(account, size) if isinstance(account, Account) else None

        async def look(c: Connection) -> Quota:
            if slot_id and await links.is_taken(c, slot_id):
                raise Conflict
            return room or await self.policy.check_room(c, who, size, whole, now)

        quota = await self.db.read(look) if slot_id or room is None else room
        self.store.check_room()
        return quota

    async def slot(self, account: Account, offer: Offer) -> Kept | Quota:
        """A new link if the account already has these bytes, else its quota.

        Raises what `begin` would raise for the same file.
        """
        await self._count_slot(account.id)
        size, digest, avatar = offer.size or 0, offer.digest, offer.context == "avatar"
        quota = await self.admit(account, size, again=False)
        if digest is None:
            return quota
        known = await self.db.read(lambda c: links.find_by_digest(c, account.id, digest, size, avatar))
        if known is None:
            return quota
        # There are no bytes to check the type with, so a type that needs a check is ignored.
        said = media_types.parse(offer.media_type)[0] if offer.media_type and not avatar else None
        media_type = said if said and said != "text/plain" else known.media_type
        context = offer.believed_context or ("file" if known.context == "avatar" else known.context)
        told = replace(offer, metadata=offer.metadata or known.metadata, thumbnails=known.thumbnails)
        new, until = told.link(media_type, context), self.clock() + AWAITED
        kept = await self.keeper.link_again(account.id, new, known.blob, until)
        if kept is None:
            return quota
        metrics.slot_hits.inc()
        return kept

    async def permit(self, jid: str, size: int) -> None:
        """Raise if a bare JID may not upload `size` bytes now. It need not have an account yet.

        Counts and raises as `slot` does.
        """
        account = await self.db.read(lambda c: accounts.find_account(c, jid))
        await self._count_slot(account.id if account else jid)
        await self.admit(jid, size, again=False)

    async def _count_slot(self, who: AccountId | str) -> None:
        await self.rates.hit("slot", self.limits.rate_slot, who)
        await self.rates.test("upload", self.limits.rate_upload, who)

    @asynccontextmanager
    async def begin(
        self, account: Account | AccountId, least: int = 0, whole: int = 0, slot_id: str = ""
    ) -> AsyncIterator[Upload]:
        """An upload of at least `least` bytes and about `whole`. If it is not finished at the end of the `with`, it is
        discarded. `slot_id`: the slot, if one was given out before.

        Raises TooManyRequests, TooLarge, QuotaExceeded, TooManyFiles, NoSpace, Conflict.
        """
        who = account.id if isinstance(account, Account) else account
        await self.rates.hit("upload", self.limits.rate_upload, who)
        writer = self.store.writer()
        entered = self.arrivals.enter(who, self.limits.uploads_at_once, writer.key, slot_id)
        if entered is None:
            raise TooManyRequests("Too many uploads at once", retry_after=COME_AGAIN)
        entry, others = entered
        try:  # from now on nobody else on this host takes the slot: what the database says of it holds
            quota = await self.admit(account, least, whole, slot_id=slot_id)
            upload = Upload(self, Received(who, writer.key, whole=whole), entry, writer, quota.left - others)
            try:
                yield upload
            finally:
                if not upload.finished:
                    await upload.discard()
        finally:
            self.arrivals.leave(entry)

    async def keep(
        self, entry: Entry, staged: Staged, offer: Offer, new: NewLink, origin: Origin | None = None
    ) -> Kept:
        """Keep bytes as they came, and have their thumbnail made. Raises what `Keeper.keep` raises."""
        async with self._held_open(staged, new) as fd:
            kept = await self.keeper.keep(entry, staged, offer, new, origin=origin)
            link = kept.link
            if link.thumbnails and link.pictured and not link.blob.decodable:  # the type may have been wrong before
                with only_logged("thumbnail not made", link=link.id):
                    blob = await self.files.decode(link, self.limits.thumbnail_wait, fd)
                    kept = replace(kept, link=replace(link, blob=blob))
        return kept

    @asynccontextmanager
    async def _held_open(self, staged: Staged, new: NewLink) -> AsyncIterator[int | None]:
        """A descriptor for the decoder, unless the bytes become a file: else it would have to fetch them back."""
        is_file = self.store.files is not None and staged.data is None
        if not (new.thumbnails and new.pictured) or is_file:
            yield None
            return
        async with self.store.opened_staged(staged) as fd:
            yield fd


class Upload:
    """One file that is being uploaded, by any transport."""

    def __init__(self, uploads: Uploads, received: Received, entry: Entry, writer: Writer, left: int) -> None:
        self._uploads, self.received, self._entry, self._writer = uploads, received, entry, writer
        self._head, self.finished = b"", False
        self._free = self._until_next_look(left)

    async def announce(self, size: int) -> None:
        """Note how many bytes the client will send, before they come. Raises what `admit` raises."""
        self.received.whole = size or self.received.whole
        await self._uploads.admit(self.received.account, size)

    async def write(self, chunk: bytes) -> None:
        """Take the next bytes. Raises TooLarge or QuotaExceeded as soon as there are too many, NoSpace.

        All uploads of the account count together: else many that never end could fill the disk.
        """
        await self._count(len(chunk))
        if len(self._head) < media_types.HEAD:
            self._head += chunk[: media_types.HEAD - len(self._head)]
        await self._writer.write(chunk)

    async def _count(self, added: int) -> None:
        """Count bytes that have come; sometimes look at the account's other uploads, too."""
        arrivals, received = self._uploads.arrivals, self.received
        size = received.size + added
        if added <= self._free:
            self._free -= added
            arrivals.note(self._entry, added)
            received.size = size
            return
        quota = await self._uploads.admit(received.account, size, received.whole)
        left = arrivals.grow(self._entry, added, quota.left)
        if left < 0:
            raise QuotaExceeded(quota=quota.limit, used=quota.used, required=max(size, received.whole))
        received.size = size
        self._free = self._until_next_look(left)

    def _until_next_look(self, left: int) -> int:
        """Bytes that may come before the next look at the limits and at what is left of the quota, which other uploads
        use, too.
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
            kept = await self._uploads.keep(self._entry, staged, offer, offer.link(media_type, context))
        self.finished = True
        return kept

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
        """The avatar made of the image, whose own bytes are discarded. Raises UnsupportedMedia, Unavailable."""
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
        """Remove what was written; `begin` calls this if the upload was not finished."""
        await self._writer.discard()
