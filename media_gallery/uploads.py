"""The way in: may this file come, is it here already, take it, keep it."""

from __future__ import annotations

import os
import secrets
from asyncio import CancelledError
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import puremagic
import structlog

from media_gallery import metrics
from media_gallery.db import Connection, Database, links
from media_gallery.db.links import NewLink
from media_gallery.errors import BadRequest, QuotaExceeded, TooLarge, Unavailable, UnsupportedMedia
from media_gallery.files import Files
from media_gallery.models import (
    GENERIC_TYPE,
    AccountId,
    Blob,
    Context,
    Digest,
    Link,
    category_of,
    named_type,
    parse_media_type,
)
from media_gallery.rates import Rates
from media_gallery.storage import BlobStore, Slot, Staged
from media_gallery.thumbnails import Avatar, Busy, DecoderFailed, Thumbnailer, Undecodable

log = structlog.get_logger()
HEAD = 4096
"""First bytes of an upload, kept to tell its type by."""
SURE = 0.3
"""Least confidence of puremagic that is believed: three bytes that are always the same."""
PICTURE_WAIT = 2.0
"""Seconds an upload waits for its thumbnail before it is answered; the thumbnail's URL waits for the rest."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes in bytes; rates as in the settings."""

    default_quota: int
    max_file_size: int
    rate_upload: str
    rate_slot: str


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


class _BlobVanished(Exception):
    """The known blob lost its last link between the look and the transaction."""


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

    async def admit(self, account: AccountId, size: int) -> tuple[int, int]:
        """Whether a file of so many bytes may come; quota and used. Raises TooLarge, QuotaExceeded."""
        if size > self.limits.max_file_size:
            raise TooLarge(max_file_size=self.limits.max_file_size)
        quota, used = await self.files.quota(account)
        if used + size > quota:
            raise QuotaExceeded(quota=quota, used=used, required=size)
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
        media_type, context = known.media_type, known.context
        if offer.media_type and not avatar:
            media_type, context = decide_type(offer, b"")
        if context == "avatar" and not avatar:
            context = "file"
        new = NewLink(new_slot_id(), offer.name, media_type, offer.context or context, offer.metadata, known.thumbnails)
        try:
            kept = await self._link(account, new, known.blob)
        except _BlobVanished:
            return quota, used
        await self.store.publish(kept.link.blob.key, _slot(kept.link))
        metrics.slot_hits.inc()
        return kept

    async def begin(self, account: AccountId, declared: int) -> Upload:
        """Start an upload of at least `declared` bytes. Raises TooManyRequests, TooLarge, QuotaExceeded."""
        await self.rates.hit("upload", self.limits.rate_upload, account)
        quota, used = await self.admit(account, declared)
        return Upload(self, account, quota, used)

    async def _link(self, account: AccountId, new: NewLink, blob: Blob) -> Kept:
        """The transaction that makes a link, charging the quota; `blob.id` 0 where the bytes were just committed."""

        async def transaction(c: Connection) -> Kept:
            now = self.clock()
            category = category_of(new.media_type, new.context)
            quota, used = await links.charge(c, account, blob.size, category, self.limits.default_quota)
            known = await links.link_known_blob(c, blob) if blob.id else await links.insert_blob(c, blob, now)
            if known is None:
                raise _BlobVanished
            return Kept(await links.insert_link(c, account, new, known, now), quota, used)

        return await self.db.write(transaction)

    async def keep(self, account: AccountId, staged: Staged, new: NewLink, seen: Avatar | None) -> Kept:
        """Make staged bytes a file: durable first, then named by a row. Known bytes are not stored again."""
        while True:
            known = await self.db.read(lambda c: links.find_blob(c, staged.sha256))
            try:
                if known is not None:
                    kept = await self._link(account, new, known)
                    await self.store.discard(staged)
                    await self.store.publish(kept.link.blob.key, _slot(kept.link))
                else:
                    kept = await self._commit(account, staged, new, seen)
            except _BlobVanished:
                continue
            metrics.uploads.labels(kept.link.category, "known" if known else "new").inc()
            return kept

    async def _commit(self, account: AccountId, staged: Staged, new: NewLink, seen: Avatar | None) -> Kept:
        blob = Blob(0, staged.key, staged.size, staged.sha256, staged.sha1)
        if seen is not None:
            blob = replace(blob, width=seen.width, height=seen.width, decodable=True)
        expected = Link(0, account, new.slot_id, new.name, new.media_type, new.context, {}, new.thumbnails, 0, blob)
        await self.store.commit(staged, _slot(expected))
        try:
            kept = await self._link(account, new, blob)
        except (Unavailable, CancelledError):
            raise  # the row may be there all the same: gc tells, and removes bytes that have none
        except BaseException:
            await self.store.unpublish([new.slot_id])
            await self.store.delete([staged.key])
            raise
        if kept.link.blob.key != staged.key:  # somebody else's upload of the same bytes was first
            await self.store.publish(kept.link.blob.key, _slot(kept.link))
            await self.store.delete([staged.key])
        return kept


class Upload:
    """One file on its way in. Ends with `finish` or `discard`."""

    def __init__(self, uploads: Uploads, account: AccountId, quota: int, used: int) -> None:
        self._uploads, self.account, self.quota, self.used = uploads, account, quota, used
        self._writer = uploads.store.writer()
        self._head = b""

    async def write(self, chunk: bytes) -> None:
        """Take the next bytes. Raises TooLarge or QuotaExceeded as soon as there are too many, NoSpace."""
        size = self._writer.size + len(chunk)
        if size > self._uploads.limits.max_file_size:
            raise TooLarge(max_file_size=self._uploads.limits.max_file_size)
        if self.used + size > self.quota:
            raise QuotaExceeded(quota=self.quota, used=self.used, required=size)
        if len(self._head) < HEAD:
            self._head += chunk[: HEAD - len(self._head)]
        await self._writer.write(chunk)

    async def finish(self, offer: Offer) -> Kept:
        """Check the file against the offer, and keep it. Raises BadRequest, UnsupportedMedia, QuotaExceeded."""
        staged = await self._writer.finish()
        metrics.received.inc(staged.size)
        _check(staged, offer)
        media_type, context = decide_type(offer, self._head)
        if context == "avatar":
            return await self._finish_avatar(staged, offer)
        new = NewLink(new_slot_id(), offer.name, media_type, context, offer.metadata, offer.thumbnails)
        kept = await self._uploads.keep(self.account, staged, new, None)
        link = kept.link
        if link.thumbnails and link.pictured and not link.blob.decodable:  # it may have failed under a wrong type
            blob = await self._uploads.files.see(link, PICTURE_WAIT)
            kept = replace(kept, link=replace(link, blob=blob))
        return kept

    async def _finish_avatar(self, staged: Staged, offer: Offer) -> Kept:
        avatar = await self._crop(staged)
        self._writer = self._uploads.store.writer()
        await self._writer.write(avatar.data)
        cropped = await self._writer.finish()
        new = NewLink(new_slot_id(), offer.name, avatar.media_type, "avatar", offer.metadata, offer.thumbnails)
        kept = await self._uploads.keep(self.account, cropped, new, avatar)
        link = kept.link
        if link.blob.decodable is None or link.blob.width is None:  # the same bytes came as a plain file before
            blob = replace(link.blob, width=avatar.width, height=avatar.width, decodable=True)
            await self._uploads.db.write(lambda c: links.set_picture(c, blob, blob.width, blob.height, True))
            kept = replace(kept, link=replace(link, blob=blob))
            await self._uploads.store.publish(blob.key, _slot(kept.link))
        if offer.thumbnails:
            await self._uploads.store.put_thumbnails(kept.link.blob.key, avatar.thumbnails)
        return kept

    async def _crop(self, staged: Staged) -> Avatar:
        """The square that is kept of an avatar; the original bytes go. Raises UnsupportedMedia."""
        fd = await self._uploads.store.open_staged(staged)
        try:
            avatar = await self._uploads.thumbnailer.avatar(fd)
        except Busy as error:
            raise Unavailable("The image decoders are busy") from error
        except (Undecodable, DecoderFailed) as error:
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
        await self._writer.discard()


def new_slot_id() -> str:
    return secrets.token_hex(16)


def _slot(link: Link) -> Slot:
    return Slot(link.slot_id, link.name, link.thumbnail_files())


def _check(staged: Staged, offer: Offer) -> None:
    """Whether the bytes are those that were announced (contract, status 400)."""
    if offer.size is not None and offer.size != staged.size:
        raise BadRequest("The size does not match", fields={"size": f"{staged.size} bytes were received"})
    digest = offer.digest
    if digest and {"sha-1": staged.sha1, "sha-256": staged.sha256}.get(digest.algorithm, digest.value) != digest.value:
        raise BadRequest("The digest does not match", fields={"hash": f"the {digest.algorithm} is another one"})


def decide_type(offer: Offer, head: bytes) -> tuple[str, Context]:
    """The one media type and context of a link: what was said of it, else what content and name say."""
    for said in (offer.media_type, offer.part_type):
        parsed = parse_media_type(said) if said else None
        if parsed and (parsed[0] != GENERIC_TYPE or said is offer.media_type):
            return parsed[0], offer.context or ("voice" if parsed[1] else "file")
    return _shown_type(offer.name, head) or GENERIC_TYPE, offer.context or "file"


def _shown_type(name: str, head: bytes) -> str | None:
    """The media type that content and name show together.

    The name decides among the types of one kind (`image/…`, `video/…`), where first bytes tell little: HEIC begins like
    a film, a DOCX like any ZIP. Where the content is of another kind than the name, the content decides.
    """
    named, shown = named_type(name), _sniff(head)
    kinds = {kind.partition("/")[0] for kind in shown}
    if named and (not shown or kinds == {"application"} or named.partition("/")[0] in kinds):
        return named
    return shown[0] if shown else None


def _sniff(head: bytes) -> list[str]:
    """The media types that the first bytes allow, the likeliest first."""
    try:
        matches = [match for match in puremagic.magic_string(head) if match.mime_type and match.confidence >= SURE]
    except (puremagic.PureError, ValueError):
        return []
    matches.sort(key=lambda match: (-match.confidence, not match.mime_type.startswith("image/")))
    parsed = (parse_media_type(match.mime_type) for match in matches)
    return [media_type for media_type, _ in filter(None, parsed)]
