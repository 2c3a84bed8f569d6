"""Takes over the files of another service, with their owners, times and addresses. A file beside this one for each
service says what its files are; the other service's own are never changed.

What was taken over is known by its old address, in the same transaction as its link. So a run that was cut short goes
on where it stopped, and a later run brings only what has come since.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
import stat
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from media_gallery import media_types
from media_gallery.accounts import Accounts
from media_gallery.db import Database, old_addresses
from media_gallery.db import accounts as account_queries
from media_gallery.errors import BadRequest, Conflict, NotFound
from media_gallery.keeping import Origin
from media_gallery.models import METADATA_DEPTH, Account, AccountId, Context, Jid, Link, Quota, nested_deeper
from media_gallery.names import clean_name
from media_gallery.offers import Offer, decide_type
from media_gallery.storage import BlobStore, Staged
from media_gallery.uploads import Uploads

PIECE = 256 * 1024
TOGETHER = 4
"""Files taken over at once: fewer than an account may upload at once, so that its owner is not kept out meanwhile."""
MANY = 2**31
"""Uploads at once, of which no account has so many: taking over is not limited."""
STEP = 200
"""Files of the other service that are read at a time."""
SETTLED = 60.0
"""Seconds after its last change in which a file may still be arriving at the other service."""


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose account gets a file: its JID if that is known; the SHA-1 of the bare JID, in hex."""

    jid: Jid | None
    sha1: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OldFile:
    """A file of another service. Sizes in bytes, times in microseconds since 1970."""

    place: Path
    """Where its bytes are."""
    address: str
    """Its path below the address of the other service, percent-decoded."""
    owner: str | None
    """A bare JID, as the other service writes it; None if it does not say whose file this is."""
    owner_sha1: str | None = None
    """The SHA-1 of the owner's bare JID, in hex, if only that is known."""
    name: str
    created_at: int | None = None
    """None: when the file was last changed."""
    size: int | None = None
    md5: str | None = None
    """In hex, if the other service keeps it."""
    media_type: str | None = None
    context: Context | None = None
    thumbnails: bool = True
    thumbnail_addresses: Mapping[str, int | None] = field(default_factory=dict)
    """As `address`, with the sides of those of an avatar in pixels."""
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Report:
    """What became of the files of another service; bytes are of those that were taken."""

    taken: int = 0
    bytes: int = 0
    known: int = 0
    """Taken over by an earlier run."""
    deleted: int = 0
    """Taken over by an earlier run, and deleted here since."""
    never_came: int = 0
    """Announced to the other service, but never sent, or deleted there."""
    still_arriving: int = 0
    without_owner: int = 0
    damaged: int = 0
    """Of another size than the other service says, or another content than was taken over."""
    over_quota: dict[str, Quota] = field(default_factory=dict)
    """Accounts that have more than their quota now, by JID."""


@dataclass(kw_only=True)
class Importer:
    """Takes over files.

    `base`: the path of the other service's address, without a slash at its end. `ownerless`: whose the files without an
    owner become, None if they stay behind. `dry`: only count. `again`: also files that were taken over before and
    deleted here. `verify`: compare the digests of those that were taken over before. `tell` is told, with a sentence,
    what stays behind; `progress` how many files were looked at.
    """

    db: Database
    store: BlobStore
    accounts: Accounts
    uploads: Uploads
    base: str
    ownerless: Jid | None = None
    dry: bool = False
    again: bool = False
    verify: bool = False
    tell: Callable[[str], None]
    progress: Callable[[str, int], None]

    def __post_init__(self) -> None:
        self.report = Report()
        self._accounts, self._added = dict[Owner, AccountId](), dict[Owner, int]()

    async def run(self, batches: AsyncIterator[list[OldFile]]) -> Report:
        """Take over all of these files. Raises NoSpace, Unavailable; the next run goes on then."""
        async for batch in batches:
            for start in range(0, len(batch), TOGETHER):
                some = batch[start : start + TOGETHER]
                ended = await asyncio.gather(*map(self._look, some), return_exceptions=True)
                for error in ended:
                    if error is not None:
                        raise error
                self.progress("files", len(some))
        await self._find_over_quota()
        return self.report

    async def _look(self, old: OldFile) -> None:
        """Take over one file, or count why it is not."""
        report, path = self.report, f"{self.base}/{old.address}"
        known = await self.db.scan(lambda c: old_addresses.find_known(c, path, self.uploads.clock()))
        if known and known.link:
            await self._compare(old, known.link)
            return
        if known and not self.again:
            report.deleted += 1
            return
        try:
            found = await asyncio.to_thread(old.place.lstat)
        except FileNotFoundError:
            report.never_came += 1
            return
        owner = self._owner(old)
        if owner is None:
            report.without_owner += 1
            self.tell(f"{old.address}: nobody knows whose it is")
        elif not stat.S_ISREG(found.st_mode):
            self._tell_damaged(old, "is not a file")
        elif old.size not in (None, found.st_size):
            self._tell_damaged(old, f"has {found.st_size} bytes instead of {old.size}")
        elif old.md5 and await _digest(_pieces(old.place), "md5") != old.md5:
            self._tell_damaged(old, "has another content than the other service says")
        elif found.st_mtime > time.time() - SETTLED:
            report.still_arriving += 1
            self.tell(f"{old.address}: was changed a moment ago, so it may be arriving still: run this again")
        else:
            created_at = found.st_mtime_ns // 1000 if old.created_at is None else old.created_at
            thumbnails = {f"{self.base}/{address}": side for address, side in old.thumbnail_addresses.items()}
            await self._take(old, owner, Origin(path, created_at, thumbnails), found.st_size)

    def _owner(self, old: OldFile) -> Owner | None:
        jid = None
        if old.owner:
            with suppress(BadRequest):
                jid = Jid.parse(old.owner)
        elif old.owner_sha1:
            return Owner(None, old.owner_sha1)
        jid = jid or self.ownerless
        return Owner(jid, account_queries.digest_of(jid.bare)) if jid else None

    def _tell_damaged(self, old: OldFile, how: str) -> None:
        self.report.damaged += 1
        self.tell(f"{old.address}: {how}")

    # --- Taking over ---

    async def _take(self, old: OldFile, owner: Owner, origin: Origin, size: int) -> None:
        if self.dry:
            self._added[owner] = self._added.get(owner, 0) + size
        else:
            try:
                await self._keep(old, await self._account(owner), origin)
            except Conflict:  # another run has just taken it
                self.report.known += 1
                return
            except FileNotFoundError:  # the other service has just deleted it
                self.report.never_came += 1
                return
            except BadRequest:
                self._tell_damaged(old, "has changed while it was read")
                return
        self.report.taken += 1
        self.report.bytes += size

    async def _account(self, owner: Owner) -> AccountId:
        if owner not in self._accounts:
            accounts = self.accounts
            ensured = accounts.ensure(owner.jid) if owner.jid else accounts.ensure_unnamed(owner.sha1)
            self._accounts[owner] = (await ensured).id
        return self._accounts[owner]

    async def _keep(self, old: OldFile, account: AccountId, origin: Origin) -> None:
        key, arrivals = secrets.token_hex(16), self.uploads.arrivals
        entered = arrivals.enter(account, MANY, key)
        assert entered
        entry, _ = entered
        offer = Offer(
            clean_name(old.name),
            old.size,
            media_type=old.media_type,
            context=old.context,
            metadata={} if nested_deeper(old.metadata, METADATA_DEPTH) else old.metadata,
            thumbnails=old.thumbnails,
            unchanged=True,
        )
        try:
            async with self._staged(key, old.place) as staged:
                offer.check(staged)
                async with self.store.opened_staged(staged) as fd:
                    head = await asyncio.to_thread(os.pread, fd, media_types.HEAD, 0)
                await self.uploads.keep(entry, staged, offer, offer.link(*decide_type(offer, head)), origin)
        finally:
            arrivals.leave(entry)

    @asynccontextmanager
    async def _staged(self, key: str, place: Path) -> AsyncIterator[Staged]:
        """The bytes of a file, staged by a further name for it, or else copied; what was not committed is discarded."""
        if self.store.files and (adopted := await self.store.files.adopt(key, place)):
            try:
                yield adopted
            finally:
                await self.store.discard(adopted)
            return
        writer = self.store.writer(key)
        try:
            async for piece in _pieces(place):
                await writer.write(piece)
            yield await writer.finish()
        finally:
            await writer.discard()

    # --- What was taken over before ---

    async def _compare(self, old: OldFile, link: Link) -> None:
        """Count a file that was taken over before, and see whether it is still the same."""
        self.report.known += 1
        wanted = link.blob.sha256
        try:
            if (await asyncio.to_thread(old.place.lstat)).st_size != link.blob.size:
                self._tell_damaged(old, "has another size than when it was taken over")
            elif self.verify and await _digest(_pieces(old.place)) != wanted:
                self._tell_damaged(old, "has another content than when it was taken over")
        except FileNotFoundError:
            pass  # deleted there since
        try:
            if self.verify and await _digest(self.uploads.files.read(link, 0, link.blob.size)) != wanted:
                self._tell_damaged(old, "is stored here with another content")
        except NotFound:
            self._tell_damaged(old, "is not stored here any more")

    async def _find_over_quota(self) -> None:
        for owner in self._added if self.dry else self._accounts:
            found = await self.db.scan(lambda c, sha1=owner.sha1: account_queries.find_account_by_sha1(c, sha1))  # type: ignore[misc]
            name = owner.jid.bare if owner.jid else account_queries.unnamed(owner.sha1)
            account = found or Account(AccountId(0), name, None, 0, 0, 0)  # a dry run makes none
            quota = self.accounts.quota_of(account)
            quota = Quota(quota.limit, quota.used + self._added.get(owner, 0))
            if quota.left < 0:
                self.report.over_quota[account.jid] = quota


async def in_batches(files: Iterator[OldFile]) -> AsyncIterator[list[OldFile]]:
    """Files that are read from a disk, which takes a thread."""
    while batch := await asyncio.to_thread(lambda: list(islice(files, STEP))):
        yield batch


async def _pieces(place: Path) -> AsyncIterator[bytes]:
    with os.fdopen(os.open(place, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
        while piece := await asyncio.to_thread(file.read, PIECE):
            yield piece


async def _digest(pieces: AsyncIterator[bytes], algorithm: str = "sha256") -> str:
    digest = hashlib.new(algorithm, usedforsecurity=False)
    async for piece in pieces:
        await asyncio.to_thread(digest.update, piece)
    return digest.hexdigest()
