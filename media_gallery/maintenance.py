"""Upkeep: what time has ended, what nothing needs any more, and whether rows and bytes agree."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

import structlog

from media_gallery.accounts import Accounts
from media_gallery.db import Connection, Database, upkeep
from media_gallery.db import accounts as account_queries
from media_gallery.errors import GalleryError
from media_gallery.files import Files
from media_gallery.models import Link
from media_gallery.rates import Rates
from media_gallery.storage import BlobStore, Slot

log = structlog.get_logger()
T = TypeVar("T")
PERIOD = 60.0
"""Seconds between two rounds of `tidy` in a running service."""
Progress = Callable[[str, int], None]
"""Told what is being passed over, and how many more of it have been."""


@dataclass(slots=True)
class Swept:
    """What a sweep removed."""

    expired: int = 0
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


@dataclass(slots=True)
class Report:
    """What fsck saw. `spare` counts bytes and slots that nothing names: gc removes them, they are no fault."""

    blobs: int = 0
    links: int = 0
    spare: int = 0
    findings: list[Finding] = field(default_factory=list)


def _quiet(what: str, more: int) -> None:
    pass


class Maintenance:
    """gc and fsck over one database and one store; both may run beside the service."""

    def __init__(
        self,
        db: Database,
        store: BlobStore,
        files: Files,
        accounts: Accounts,
        rates: Rates,
        clock: Callable[[], int],
        grace: float,
    ) -> None:
        self.db, self.store, self.files, self.accounts, self.rates = db, store, files, accounts, rates
        self.clock, self.grace = clock, grace

    async def keep_tidy(self) -> None:
        """Tidy for as long as the service runs."""
        while True:
            try:
                await self.tidy()
                await self.store.sweep_staging(self.grace)
            except GalleryError as error:
                log.warning("upkeep failed", reason=str(error))
            except Exception:
                log.exception("upkeep failed")
            await asyncio.sleep(PERIOD)

    async def tidy(self) -> Swept:
        """Expired codes and tokens, bytes in the trash, accounts whose deletion was cut short."""
        swept = Swept()
        swept.expired = await self.db.write(lambda c: account_queries.delete_expired(c, self.clock()))
        await self.rates.sweep()
        swept.accounts = await self.accounts.finish_all_closing()
        while keys := await self.db.read(upkeep.list_trash):
            await self._empty(keys)
            swept.trashed += len(keys)
        return swept

    async def _empty(self, keys: list[str]) -> None:
        await self.store.delete(keys)  # the bytes first: a row that stays is harmless, bytes that stay are lost space
        await self.db.write(lambda c: upkeep.empty_trash(c, keys))

    async def gc(self, grace: float | None = None, progress: Progress = _quiet) -> Swept:
        """Remove all that no link needs: what `tidy` removes, unfinished uploads, bytes and slots without a row.

        Nothing touched within `grace` seconds goes, since an upload under way is on disk before it is in the database.
        """
        grace = self.grace if grace is None else grace
        swept = await self.tidy()
        swept.staged, swept.staged_bytes = await self.store.sweep_staging(grace)
        async for keys in self._orphan_keys(grace, progress):
            await self.store.delete(keys)
            swept.orphans += len(keys)
        async for slots in self._orphan_slots(grace, progress):
            await self.store.unpublish(slots)
            swept.slots += len(slots)
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
        async for slots in self.store.slots(grace):
            known = await self._known(slots)
            progress("links on disk", len(slots))
            if orphans := [slot for slot in slots if slot not in known]:
                yield orphans

    async def _known(self, slots: list[str]) -> set[str]:
        return await self.db.scan(lambda c: upkeep.known_slots(c, slots))

    # --- fsck ---

    async def fsck(self, repair: bool = False, progress: Progress = _quiet) -> Report:
        """Compare rows with bytes, both ways, and counts with what they count.

        `repair` publishes links anew, counts anew, and removes links whose bytes are lost; damaged bytes are only told.
        """
        report = Report()
        await self._check_blobs(report, repair, progress)
        await self._check_links(report, repair, progress)
        await self._check_counts(report, repair)
        async for keys in self._orphan_keys(self.grace, progress):
            report.spare += len(keys)
        async for slots in self._orphan_slots(self.grace, progress):
            report.spare += len(slots)
        return report

    async def _check_blobs(self, report: Report, repair: bool, progress: Progress) -> None:
        after = 0
        while blobs := await self._after(upkeep.blobs_after, after):
            after = blobs[-1].id
            for blob in blobs:
                size = await self.store.size(blob.key)
                if size is None:
                    links = await self._links_of(blob.id)
                    if links:
                        report.findings.append(Finding("lost", f"the bytes of {_names(links)}", repair))
                        if repair:
                            await self._forget(links)
                elif size != blob.size:
                    links = await self._links_of(blob.id)
                    what = f"{_names(links)} should have {blob.size} bytes and has {size}"
                    report.findings.append(Finding("damaged", what))
            report.blobs += len(blobs)
            progress("blobs", len(blobs))

    async def _after(self, query: Callable[[Connection, int], Awaitable[T]], after: int) -> T:
        return await self.db.scan(lambda c: query(c, after))

    async def _links_of(self, blob_id: int) -> list[Link]:
        return await self.db.read(lambda c: upkeep.links_of_blob(c, blob_id))

    async def _forget(self, links: list[Link]) -> None:
        for link in links:
            await self.files.delete_ids(link.account, [link.id])

    async def _check_links(self, report: Report, repair: bool, progress: Progress) -> None:
        after = 0
        while links := await self._after(upkeep.links_after, after):
            after = links[-1].id
            for link in links:
                slot = Slot(link.slot_id, link.name, link.thumbnail_files())
                expected = self.store.publication(link.blob.key, slot)
                if await self.store.published(link.slot_id) != expected:
                    report.findings.append(Finding("unpublished", f"link {link.id}", repair))
                    if repair:
                        await self.store.publish(link.blob.key, slot)
            report.links += len(links)
            progress("links", len(links))

    async def _check_counts(self, report: Report, repair: bool) -> None:
        wrong = await self.db.scan(upkeep.wrong_counts)
        report.findings += [Finding("miscounted", what, repair) for what in wrong]
        if wrong and repair:

            async def recount(c: Connection) -> None:
                await upkeep.recount(c)
                await upkeep.trash_unlinked(c, self.clock())

            await self.db.write(recount)


def _names(links: list[Link]) -> str:
    return ", ".join(f"link {link.id}" for link in links[:5]) + (" and others" if len(links) > 5 else "")
