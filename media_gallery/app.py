"""Makes all parts from the settings and connects them: nothing else does."""

from __future__ import annotations

import asyncio
import fcntl
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypedDict, Unpack

from starlette.applications import Starlette

from media_gallery.accounts import Accounts
from media_gallery.arriving import Arrivals
from media_gallery.courier import Courier, CourierClient, LogCourier
from media_gallery.db import Database, accounts, make_database
from media_gallery.errors import GalleryError, Unavailable
from media_gallery.files import Files
from media_gallery.http import application
from media_gallery.http.request import Services
from media_gallery.maintenance import Maintenance
from media_gallery.policy import Allowance, Policy
from media_gallery.rates import Rates, make_rates
from media_gallery.settings import Settings
from media_gallery.slot_tokens import SlotTokens
from media_gallery.slots import Slots
from media_gallery.storage import BlobStore, make_store
from media_gallery.thumbnails import DecoderFailed, Thumbnailer
from media_gallery.uploads import Limits, Uploads
from media_gallery.watching import Watch
from media_gallery.xmpp import Room
from media_gallery.xmpp.query import Services as XmppServices

COURIER_SOCKET = "MEDIA_GALLERY_COURIER"
"""Environment variable by which `serve` tells its workers where their courier listens."""


def microseconds() -> int:
    return time.time_ns() // 1000


@contextmanager
def hold(data_dir: Path, alone: bool) -> Iterator[None]:
    """Mark the data directory as in use, by a service, or by a command that needs it `alone`. Raises Unavailable."""
    data_dir.mkdir(parents=True, exist_ok=True)
    with (data_dir / "lock").open("w") as file:
        try:
            fcntl.flock(file, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Unavailable(
                "The service is running: stop it first"
                if alone
                else "Another command has the data directory to itself: wait for its end"
            ) from None
        yield


@dataclass(slots=True)
class Gallery:
    """All parts of the service except its web side; the command line uses them, too."""

    settings: Settings
    db: Database
    store: BlobStore
    thumbnailer: Thumbnailer
    courier: Courier
    rates: Rates
    clock: Callable[[], int]
    files: Files
    accounts: Accounts
    arrivals: Arrivals
    uploads: Uploads
    slots: Slots
    maintenance: Maintenance

    async def check(self) -> None:
        """Raise Unavailable or NoSpace if an upload could not be taken now."""
        await self._check_database()
        await self.store.check()
        await self.rates.check()

    async def _check_database(self) -> None:
        await self.db.write(accounts.list_closed)  # changes nothing, but fails if nothing can be written

    async def health(self) -> dict[str, str | None]:
        """What is wrong with each part; None if it works."""
        checks = {
            "database": self._check_database,
            "storage": self.store.check,
            "rates": self.rates.check,
            "xmpp": self.courier.check,
            "decoders": self.thumbnailer.check,
        }
        found: dict[str, str | None] = {}
        for part, check in checks.items():
            try:
                await check()
                found[part] = None
            except (GalleryError, DecoderFailed) as error:
                found[part] = str(error) or type(error).__name__
        return found


class Parts(TypedDict, total=False):
    """The parts that a caller may replace by its own."""

    clock: Callable[[], int]
    db: Database
    store: BlobStore
    courier: Courier
    thumbnailer: Thumbnailer


def assemble(settings: Settings, **replaced: Unpack[Parts]) -> Gallery:
    """Make all parts, not yet started, except those in `replaced`. Raises TypeError for an unknown name."""
    if unknown := replaced.keys() - Parts.__annotations__.keys():
        raise TypeError(f"no parts of the service: {', '.join(sorted(unknown))}")
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    clock = replaced.get("clock") or microseconds
    db = replaced.get("db") or make_database(settings)
    store = replaced.get("store") or make_store(settings)
    courier = replaced.get("courier") or make_courier(settings)
    thumbnailer = replaced.get("thumbnailer") or make_thumbnailer(settings)
    rates = make_rates(settings)
    limits = Limits(
        settings.max_file_size,
        settings.rate_upload,
        settings.rate_slot,
        settings.uploads_at_once,
        settings.thumbnail_wait,
        settings.small_file_size,
    )
    policy = Policy(Allowance(settings.default_quota, settings.files_per_account))
    files = Files(db, store, thumbnailer, clock)
    signing = Accounts(db=db, files=files, courier=courier, rates=rates, policy=policy, clock=clock, settings=settings)
    arrivals = Arrivals(settings.data_dir / "arriving")
    uploads = Uploads(
        db=db,
        store=store,
        thumbnailer=thumbnailer,
        files=files,
        rates=rates,
        arrivals=arrivals,
        policy=policy,
        clock=clock,
        limits=limits,
    )
    tokens = SlotTokens(db, clock, settings.slot_secret.get_secret_value())
    slots = Slots(signing, uploads, tokens, settings.public_url, clock)
    maintenance = Maintenance(
        db=db,
        store=store,
        files=files,
        accounts=signing,
        rates=rates,
        arrivals=arrivals,
        clock=clock,
        grace=settings.gc_grace,
    )
    return Gallery(
        settings, db, store, thumbnailer, courier, rates, clock, files, signing, arrivals, uploads, slots,
        maintenance,
    )  # fmt: skip


def make_thumbnailer(settings: Settings) -> Thumbnailer:
    """The decoders, with the limits of the settings."""
    return Thumbnailer(
        settings.decoder_count,
        timeout=settings.decoder_timeout,
        cpu_seconds=int(settings.decoder_timeout) + 1,
        memory=settings.decoder_memory,
        max_pixels=settings.max_pixels,
    )


def make_courier(settings: Settings) -> Courier:
    """The way to the host's courier. Only development mode, which means no XMPP_JID, writes codes into the log. If XMPP
    is configured, but `serve` has started no courier, no code can be sent.
    """
    if not settings.xmpp_jid:
        return LogCourier()
    socket = os.environ.get(COURIER_SOCKET)
    return CourierClient(Path(socket) if socket else None, settings.xmpp_jid)


class Part(Protocol):
    """A part that holds connections or processes."""

    async def start(self) -> None: ...

    async def close(self) -> None: ...


@asynccontextmanager
async def started(*parts: Part) -> AsyncIterator[None]:
    """Start parts one after the other; at the end, stop those that were started, the last one first."""
    async with AsyncExitStack() as stack:
        for part in parts:
            await part.start()
            stack.push_async_callback(part.close)
        yield


@asynccontextmanager
async def running(gallery: Gallery) -> AsyncIterator[Gallery]:
    """Start the parts that hold connections, and stop them at the end."""
    async with AsyncExitStack() as stack:
        stack.callback(gallery.arrivals.close)
        stack.push_async_callback(gallery.rates.close)  # open since it was assembled
        await stack.enter_async_context(started(gallery.db, gallery.store, gallery.thumbnailer, gallery.courier))
        stack.push_async_callback(gallery.files.finish_thumbnails)
        yield gallery


def build(settings: Settings, **replaced: Unpack[Parts]) -> Starlette:
    """The ASGI application; its lifespan starts and stops the parts."""
    gallery = assemble(settings, **replaced)
    services = Services(
        settings,
        gallery.accounts,
        gallery.files,
        gallery.uploads,
        gallery.slots,
        gallery.check,
        gallery.health,
    )

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with running(gallery):
            watch = Watch(gallery.db, gallery.store, settings.data_dir, settings.default_quota)
            tasks = [asyncio.create_task(work) for work in (gallery.maintenance.keep_tidy(), watch.keep_fresh())]
            try:
                yield
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    app = application(services, lifespan)
    app.state.gallery = gallery
    return app


@asynccontextmanager
async def answering(settings: Settings) -> AsyncIterator[Room]:
    """The room that answers over XMPP. It decodes nothing; it asks the store only whether there is room."""
    gallery = assemble(settings)
    hosts = tuple(settings.slot_hosts) if settings.slots else ()
    services = XmppServices(settings, gallery.slots, gallery.clock, slot_hosts=hosts)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(gallery.rates.close)
        await stack.enter_async_context(started(gallery.db, gallery.store))
        yield Room(services)
