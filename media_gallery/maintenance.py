"""Upkeep: removes what has expired and what nothing needs, and checks whether rows and bytes agree."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import structlog

from media_gallery import metrics
from media_gallery.accounts import Accounts
from media_gallery.arriving import Arrivals
from media_gallery.db import Connection, Database, upkeep
from media_gallery.db import accounts as account_queries
from media_gallery.db.links import find_by_slot
from media_gallery.errors import GalleryError, Unavailable
from media_gallery.files import Files
from media_gallery.models import Link
from media_gallery.rates import Rates
from media_gallery.storage import BlobStore, LinkTree, Slot

log = structlog.get_logger()
T = TypeVar("T")
PERIOD = 60.0
"""Seconds between two rounds of `tidy` in a running service."""
SOON = 10.0
"""The same while accounts are closed: the next look shows whether somebody is still emptying them."""
LEAST_GRACE = 3600.0
"""Seconds between the last byte of an upload and its row, at most, even if disk, bucket and database are slow."""
TOGETHER = 32
FIRST = 100
"""A store that has none of so many oldest files seems to be the wrong one; so does one that has so many files without a
row, or more, if they are more than the files with one.
"""
Progress = Callable[[str, int], None]
"""Called with what is being looked at, and how many of it were looked at since the last call."""
Counts = Callable[[Connection, int], Awaitable[list[upkeep.Counted]]]
Recount = Callable[[Connection, int], Awaitable[None]]


@dataclass(slots=True)
class Swept:
    """What a sweep removed."""

    expired: int = 0
    links: int = 0
    trashed: int = 0
    accounts: int = 0
    staged: int = 0
    staged_bytes: int = 0
    orphans: int = 0
    slots: int = 0


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that fsck found wrong."""

    kind: str
    what: str
    repaired: bool = False


def _ignore(finding: Finding) -> None:
    pass


@dataclass(slots=True)
class Report:
    """What fsck found. `spare` counts bytes and slots that nothing names: they are no fault, and gc removes them."""

    blobs: int = 0
    links: int = 0
    spare: int = 0
    wrong: int = 0
    repaired: int = 0
    tell: Callable[[Finding], None] = field(default=_ignore, repr=False)

    def found(self, kind: str, what: str, repaired: bool = False) -> None:
        """Count a finding and pass it on; it is not kept, since there may be very many."""
        self.wrong, self.repaired = self.wrong + 1, self.repaired + repaired
        self.tell(Finding(kind, what, repaired))


def _quiet(what: str, count: int) -> None:
    pass


@dataclass(eq=False, kw_only=True)
class Maintenance:
    """gc and fsck over one database and one store; both may run beside the service, gc with LEAST_GRACE or more."""

    db: Database
    store: BlobStore
    files: Files
    accounts: Accounts
    rates: Rates
    arrivals: Arrivals
    clock: Callable[[], int]
    grace: float

    async def keep_tidy(self) -> None:
        """Tidy for as long as the service runs."""
        while True:
            try:
                await self.rates.sweep()  # each host does this for itself
                await self.tidy()
                await self._sweep_staging(max(self.grace, LEAST_GRACE))
                metrics.upkeep_done.set(time.time())
            except GalleryError as error:
                log.warning("upkeep failed", reason=str(error))
            except Exception:
                log.exception("upkeep failed")
            await asyncio.sleep(SOON if self.accounts.closed_before else PERIOD)

    async def tidy(self) -> bool:
        """Remove what has expired, unless another process is doing this; whether it was our turn."""
        await self.db.keep_reserve()
        async with self.db.turn() as ours:
            if ours:
                await self._sweep(at_once=False)
                await self._settle(at_once=False)
                await self._mend_tree()
            return ours

    async def _mend_tree(self) -> None:
        """Publish what a power cut may have taken out of the tree."""
        tree = self.store.tree
        if tree and not await tree.is_sound():
            report = Report()
            await self._check_links(report, repair=True, progress=_quiet)
            await tree.note_sound()
            log.info("the tree of links was looked over", links=report.links, published_anew=report.repaired)

    async def _sweep(self, at_once: bool) -> Swept:
        """Expired codes, tokens and links, bytes in the trash, accounts whose deletion was cut short."""
        swept = Swept()
        swept.expired = await self.db.write(
            lambda c: account_queries.delete_expired(c, self.clock()), long=True, frees=True
        )
        # Those of the next round, too: they must be gone at their time, and may be gone before it.
        swept.links = await self.files.delete_expired(self.clock() + int(PERIOD * 1_000_000))
        swept.accounts = await self.accounts.finish_all_closing(at_once)
        while keys := await self.db.scan(upkeep.list_trash):
            await self._empty(keys)
            swept.trashed += len(keys)
        return swept

    async def _sweep_staging(self, grace: float) -> tuple[int, int]:
        return await self.store.sweep_staging(grace, self.arrivals.living_keys())

    async def _settle(self, at_once: bool) -> None:
        """Remove what uploads left that were killed or ended in doubt, unless rows name it."""
        left = self.arrivals.left_behind(at_once)
        keys = [entry.key for entry in left.entries if entry.key]
        slots = [entry.slot for entry in left.entries if entry.slot]
        if keys and (spare := set(keys) - await self._needed(keys)):
            await self.store.delete(list(spare))
        if slots and (unknown := set(slots) - await self._known(slots)):
            await self._unpublish(list(unknown))
        self.arrivals.settle(left)

    async def _empty(self, keys: list[str]) -> None:
        # Keys of blobs and of slots. Bytes go before their rows: a row that is left over is harmless, bytes are not.
        await self._unpublish(keys)
        await self.store.delete(keys)
        await self.db.write(lambda c: upkeep.empty_trash(c, keys), frees=True)

    async def _unpublish(self, slot_ids: list[str]) -> None:
        if self.store.tree:
            await self.store.tree.unpublish(slot_ids)

    async def gc(self, grace: float | None = None, progress: Progress = _quiet, all_lost: bool = False) -> Swept:
        """Remove all that no link needs: what `tidy` removes, unfinished uploads, bytes and slots without a row.
        Publish links that are not published.

        Nothing is removed that was touched within `grace` seconds, since an upload is on disk before it is in the
        database; less than LEAST_GRACE is allowed only while no service runs. Raises Unavailable if database and store
        seem to belong to two galleries, unless `all_lost` says that they belong together.
        """
        grace = self.grace if grace is None else grace
        if not all_lost:
            await self._check_store()
            await self._check_spare(grace, progress)
        await self.rates.sweep()
        swept = await self._sweep(at_once=True)
        await self._settle(at_once=grace < LEAST_GRACE)
        swept.staged, swept.staged_bytes = await self._sweep_staging(grace)
        async for keys in self._orphan_keys(grace, progress):
            await self.store.delete(keys)
            swept.orphans += len(keys)
        async for slots in self._orphan_slots(grace, progress):
            await self._unpublish(slots)
            swept.slots += len(slots)
        if self.store.tree:
            await self._check_links(Report(), repair=True, progress=progress)
        return swept

    async def _orphan_keys(self, grace: float, progress: Progress) -> AsyncIterator[list[str]]:
        async for keys in self.store.keys(grace):
            needed = await self._needed(keys)
            progress("blobs on disk", len(keys))
            if orphans := [key for key in keys if key not in needed]:
                yield orphans

    async def _needed(self, keys: list[str]) -> set[str]:
        return await self.db.scan(lambda c: upkeep.needed_keys(c, keys))

    async def _orphan_slots(self, grace: float, progress: Progress) -> AsyncIterator[list[str]]:
        if self.store.tree is None:
            return
        async for slots in self.store.tree.slots(grace):
            known = await self._known(slots)
            progress("links on disk", len(slots))
            if orphans := [slot for slot in slots if slot not in known]:
                yield orphans

    async def _known(self, slots: list[str]) -> set[str]:
        return await self.db.scan(lambda c: upkeep.known_slots(c, slots))

    # --- fsck ---

    async def fsck(
        self,
        repair: bool = False,
        progress: Progress = _quiet,
        tell: Callable[[Finding], None] = _ignore,
        all_lost: bool = False,
    ) -> Report:
        """Compare rows with bytes, both ways, and counts with what they count.

        `repair` publishes links anew, counts anew, and removes links whose bytes are lost; damaged bytes are only
        reported. `tell` gets each finding at once. Raises Unavailable if the store to be repaired seems to be the wrong
        one, unless `all_lost` says that it is the right one.
        """
        report = Report(tell=tell)
        if repair and not all_lost:
            await self._check_store()
        await self._check_blobs(report, repair, progress)
        await self._check_links(report, repair, progress)
        await self._check_counts(report, repair, progress)
        async for keys in self._orphan_keys(self.grace, progress):
            report.spare += len(keys)
        async for slots in self._orphan_slots(self.grace, progress):
            report.spare += len(slots)
        return report

    async def _check_store(self) -> None:
        """Raise Unavailable if the store has none of the oldest files. A deletion removes rows before bytes, so rows
        that are still there after their bytes were missing are not being deleted.
        """
        without: set[str] = set()
        while first := (await self.db.scan(lambda c: upkeep.blobs_after(c, 0, stored=True)))[:FIRST]:
            if any(size is not None for size in await self._sizes(first)):
                return
            keys = {blob.key for blob in first}
            if keys & without:
                raise Unavailable(
                    f"The storage has none of the {len(first)} oldest files: is it another one, or a directory that is"
                    " not mounted? Nothing was changed. If they are lost indeed, add --all-lost"
                )
            without = keys

    async def _check_spare(self, grace: float, progress: Progress) -> None:
        def looked_at(_: str, count: int) -> None:
            progress("blobs looked at first", count)

        needed, spare = await self.db.scan(upkeep.count_stored_blobs), 0
        async for keys in self._orphan_keys(grace, looked_at):
            spare += len(keys)
            if spare >= FIRST and spare > needed:
                raise Unavailable(
                    f"The storage has more files that the database does not name than the {needed} that it does: is it"
                    " another one? Nothing was changed. If nobody needs them indeed, add --all-lost"
                )

    async def _check_blobs(self, report: Report, repair: bool, progress: Progress) -> None:
        after = 0
        while blobs := await self._after(upkeep.blobs_after, after):
            after = blobs[-1].id
            for blob, size in zip(blobs, await self._sizes(blobs), strict=True):
                if size is None:
                    links = await self._links_of(blob.id)
                    if links:
                        report.found("lost", f"the bytes of {_names(links)}", repair)
                        if repair:
                            await self._forget(links)
                elif size != blob.size:
                    links = await self._links_of(blob.id)
                    what = f"{_names(links)} should have {blob.size} bytes and has {size}"
                    report.found("damaged", what)
            report.blobs += len(blobs)
            progress("blobs", len(blobs))

    async def _sizes(self, blobs: Sequence[upkeep.KeptBlob]) -> list[int | None]:
        """How many bytes there are of each. The store is asked for several at once, since it may be far away."""

        async def size(blob: upkeep.KeptBlob) -> int | None:
            return blob.held if blob.in_database else await self.store.size(blob.key)

        found: list[int | None] = []
        for start in range(0, len(blobs), TOGETHER):
            found += await asyncio.gather(*map(size, blobs[start : start + TOGETHER]))
        return found

    async def _after(self, query: Callable[[Connection, int], Awaitable[T]], after: int) -> T:
        return await self.db.scan(lambda c: query(c, after))

    async def _links_of(self, blob_id: int) -> list[Link]:
        return await self.db.scan(lambda c: upkeep.links_of_blob(c, blob_id))

    async def _forget(self, links: list[Link]) -> None:
        for link in links:
            await self.files.delete_ids(link.account, [link.id])

    async def _check_links(self, report: Report, repair: bool, progress: Progress) -> None:
        after, tree = 0, self.store.tree
        while links := await self._after(upkeep.links_after, after):
            after = links[-1].id
            for link in links:
                if tree and link.belongs_in_tree:
                    await self._check_link(tree, link, report, repair)
            report.links += len(links)
            progress("links", len(links))

    async def _check_link(self, tree: LinkTree, link: Link, report: Report, repair: bool) -> None:
        key, slot = link.blob.key, Slot.of(link, link.blob)
        if await tree.is_published(key, slot) or not await self._is_there(link):
            return
        report.found("unpublished", f"link {link.id}", repair)
        if repair:
            await tree.publish(key, slot)
            if not await self._is_there(link):  # it was deleted at the same time
                await tree.unpublish([link.slot_id])

    async def _is_there(self, link: Link) -> bool:
        """Whether the link still exists."""
        return await self.db.read(lambda c: find_by_slot(c, link.slot_id, self.clock())) is not None

    async def _check_counts(self, report: Report, repair: bool, progress: Progress) -> None:
        async def recount_blob(c: Connection, blob: int) -> None:
            await upkeep.recount_blob(c, blob, self.clock())

        await self._compare(upkeep.blob_counts, recount_blob if repair else None, report, progress)
        await self._compare(upkeep.account_counts, upkeep.recount_account if repair else None, report, progress)

    async def _compare(self, counts: Counts, recount: Recount | None, report: Report, progress: Progress) -> None:
        """Compare counts; each wrong one is counted anew in its own transaction, so that others do not wait long."""
        after = 0
        while counted := await self._after(counts, after):
            after = counted[-1].id
            for one in counted:
                for what in one.wrong:
                    report.found("miscounted", what, recount is not None)
                if one.wrong and recount:
                    await self.db.write(lambda c, one=one: recount(c, one.id), long=True)  # type: ignore[misc]
            progress("counts", len(counted))


def _names(links: list[Link]) -> str:
    return ", ".join(f"link {link.id}" for link in links[:5]) + (" and others" if len(links) > 5 else "")
