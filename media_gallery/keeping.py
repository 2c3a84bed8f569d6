"""How a file is kept: its bytes are durable and published first, then one transaction names them and charges the quota.
Few bytes are part of that transaction.

So a crash at any moment can leave spare bytes, which upkeep removes, but never a row without bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from media_gallery import metrics
from media_gallery.arriving import Arrivals, Entry
from media_gallery.db import Connection, Database, links, old_addresses
from media_gallery.errors import Conflict, GalleryError, InDoubt
from media_gallery.files import only_logged
from media_gallery.models import THUMBNAIL_SIZE, AccountId, Blob, Link, NewBlob, NewLink, Quota
from media_gallery.offers import Offer
from media_gallery.policy import Policy
from media_gallery.storage import BlobStore, Slot, Staged
from media_gallery.thumbnails import Avatar

B = TypeVar("B", bound=NewBlob)


@dataclass(frozen=True, slots=True)
class Kept:
    """A link that was made, with the account's quota after it."""

    link: Link
    quota: Quota


@dataclass(frozen=True, slots=True)
class Origin:
    """Where and since when another service had a file: its path, percent-decoded; microseconds since 1970."""

    path: str
    created_at: int
    thumbnails: Mapping[str, int | None] = field(default_factory=dict)
    """Paths of its thumbnails, with the sides of those of an avatar in pixels."""


class _BlobChanged(Exception):
    """Between look and transaction the known blob lost its last link, or another upload brought the same bytes."""


class Keeper:
    """Makes links to uploaded bytes, and to bytes that are stored already."""

    def __init__(
        self,
        db: Database,
        store: BlobStore,
        arrivals: Arrivals,
        policy: Policy,
        clock: Callable[[], int],
        small_file_size: int,
    ) -> None:
        self.db, self.store, self.arrivals, self.policy, self.clock = db, store, arrivals, policy, clock
        self.small_file_size = small_file_size

    async def keep(
        self,
        entry: Entry,
        staged: Staged,
        offer: Offer,
        new: NewLink,
        avatar: Avatar | None = None,
        origin: Origin | None = None,
    ) -> Kept:
        """Make the staged bytes of an upload a file. Known bytes are not stored again. If a slot hit awaits these
        bytes, its link is taken over, unless this upload has a slot of its own. `avatar`: what the decoder made of
        them. With an `origin`, the file keeps its time and its address, and the limits of its account do not count.

        Raises QuotaExceeded, TooManyFiles, NoSpace; Conflict if another upload has taken the same slot, or if another
        file has the address of the origin.
        """
        known, hit = await self._find(entry.account, staged, new)
        if (
            hit is not None
            and not offer.slot_id
            and origin is None
            and (taken := await self._take_over(hit, staged, offer, new)) is not None
        ):
            return taken
        self.arrivals.name(entry, staged.key, new.slot_id)
        own, committed, entry.in_doubt = self._blob(staged), False, True
        try:
            while True:
                blob = _measured(known or own, avatar)
                if not (blob.in_database or known or committed):
                    await self.store.commit(staged)
                    committed = True
                await self._publish(new, blob)
                self.arrivals.note(entry, -entry.size)  # the transaction counts them: they must not count twice
                try:
                    kept = await self._link(entry.account, new, blob, avatar, origin=origin)
                    break
                except _BlobChanged:
                    known, _ = await self._find(entry.account, staged, new)
        except GalleryError as refusal:
            if not isinstance(refusal, InDoubt):
                theirs = isinstance(refusal, Conflict) and origin is None  # that slot is the other upload's
                slots = [] if theirs else [new.slot_id]
                await self._take_back(entry, slots, [staged.key] if committed else [])
            raise
        if known is not None:
            with only_logged("spare bytes not removed", link=kept.link.id):
                await (self.store.delete([staged.key]) if committed else self.store.discard(staged))
                entry.in_doubt = False
        else:
            entry.in_doubt = False
        metrics.uploads.labels(kept.link.category, "known" if known else "new").inc()
        return kept

    def _blob(self, staged: Staged) -> NewBlob:
        """The blob that staged bytes become. If they are few, the transaction that names them brings them, too."""
        few = staged.data is not None and staged.size <= self.small_file_size > 0
        data = staged.data if few else None
        return NewBlob(staged.key, staged.size, staged.sha256, staged.sha1, in_database=few, data=data)

    async def _find(self, account: AccountId, staged: Staged, new: NewLink) -> tuple[Blob | None, Link | None]:
        """The known blob with these bytes, and the account's slot hit that awaits them; None for what there is not."""
        avatar, now = new.context == "avatar", self.clock()

        async def look(c: Connection) -> tuple[Blob | None, Link | None]:
            known = await links.find_blob(c, staged.sha256)
            hit = await links.find_awaited(c, account, known.sha256, new.name, avatar, now) if known else None
            return known, hit

        return await self.db.read(look)

    async def _take_over(self, hit: Link, staged: Staged, offer: Offer, new: NewLink) -> Kept | None:
        """Give the slot hit's link what the upload says, and discard the bytes. None if the link was deleted meanwhile.

        COMPAT: iOS uploads even after a slot hit.
        """
        told = replace(
            new,
            slot_id=hit.slot_id,
            media_type=new.media_type if offer.says_type else hit.media_type,
            context=hit.context if new.context == "file" and offer.context is None else new.context,
            metadata=new.metadata or hit.metadata,
        )

        async def transaction(c: Connection) -> Kept | None:
            link = await links.take_over(c, hit, told, self.clock())
            return Kept(link, await self.policy.get_quota(c, hit.account)) if link else None

        kept = await self.db.write(transaction)
        if kept is not None:
            with only_logged("spare bytes not removed", link=kept.link.id):
                await self.store.discard(staged)
            with only_logged("link not published", link=kept.link.id):
                await self._publish(kept.link, hit.blob, again=True)
            metrics.uploads.labels(kept.link.category, "known").inc()
        return kept

    async def link_again(self, account: AccountId, new: NewLink, known: Blob, awaited_until: int) -> Kept | None:
        """A link to known bytes, which awaits their upload until then; None if the bytes were deleted meanwhile.

        Raises QuotaExceeded, TooManyFiles, NoSpace.
        """
        entry = self.arrivals.enter_link(new.slot_id)
        try:
            entry.in_doubt = True
            await self._publish(new, known)
            kept = await self._link(account, new, known, awaited_until=awaited_until)
            entry.in_doubt = False
            return kept
        except _BlobChanged:
            await self._take_back(entry, [new.slot_id])
            return None
        except GalleryError as refusal:
            if not isinstance(refusal, InDoubt):
                await self._take_back(entry, [new.slot_id])
            raise
        finally:
            self.arrivals.leave(entry)

    async def _link(
        self,
        account: AccountId,
        new: NewLink,
        blob: NewBlob,
        avatar: Avatar | None = None,
        awaited_until: int | None = None,
        origin: Origin | None = None,
    ) -> Kept:
        """In one transaction: charge the quota, make the blob's row if it has none, make the link, keep its origin."""

        async def transaction(c: Connection) -> Kept:
            now = self.clock()
            quota = await self.policy.charge(c, account, blob.size, new.category, limited=origin is None)
            if isinstance(blob, Blob):
                found = await links.link_known_blob(c, blob)
            else:
                found = await links.insert_blob(c, blob, now)
            if found is None or found.key != blob.key:
                raise _BlobChanged
            known = _measured(found, avatar)
            if known != found:
                await links.set_picture(c, known, known.width, known.height, True)
            created_at = origin.created_at if origin else now
            link = await links.insert_link(c, account, new, known, created_at, awaited_until)
            if origin:
                await old_addresses.keep_address(c, origin.path, link.id)
                for path, side in origin.thumbnails.items() if link.pictured else ():
                    stored = f"{side}.{link.avatar_format}" if side else f"{THUMBNAIL_SIZE}.webp"
                    await old_addresses.keep_address(c, path, link.id, stored)
            return Kept(link, quota)

        return await self.db.write(transaction)

    async def _publish(self, link: NewLink, blob: NewBlob, again: bool = False) -> None:
        """Let other web servers find what the store has of a link; `again` if they might find something else there."""
        slot = Slot.of(link, blob)
        if self.store.tree and link.belongs_in_tree and (slot.name or slot.thumbnails or again):
            await self.store.tree.publish(blob.key, slot)

    async def _take_back(self, entry: Entry, slots: list[str], keys: Sequence[str] = ()) -> None:
        """Remove all traces of a link that surely was not made; upkeep removes what cannot be removed now."""
        with only_logged("spare bytes not removed"):
            if self.store.tree:
                await self.store.tree.unpublish(slots)
            if keys:
                await self.store.delete(list(keys))
            entry.in_doubt = False


def _measured(blob: B, avatar: Avatar | None) -> B:
    """The blob with the avatar's width and height, if there is an avatar and the blob has none yet."""
    if avatar is None or blob.width is not None:
        return blob
    return replace(blob, width=avatar.width, height=avatar.width, decodable=True)
