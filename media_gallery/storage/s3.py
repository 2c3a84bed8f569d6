"""A bucket of an S3 store.

    PREFIX/blobs/KEY                  the bytes
    PREFIX/thumbs/KEY/256.webp        their thumbnails

An upload is staged in the data directory of its host, and sent when it is whole: so known bytes are never sent, a
client that goes away leaves nothing in the bucket, and an avatar's original never gets there. The file is sent part by
part. What the store has acknowledged is durable. There is no tree of links.
"""

from __future__ import annotations

import asyncio
import errno
import time
from collections.abc import AsyncIterator, Awaitable, Container, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store as Bucket

from media_gallery import metrics
from media_gallery.errors import NoSpace, NotFound, Unavailable
from media_gallery.settings import Settings
from media_gallery.storage import Staged, Writer
from media_gallery.storage.staging import AWAY, LISTED, NO_BUCKET, PIECE, Staging

if TYPE_CHECKING:
    from media_gallery.storage.keys import Keys

T = TypeVar("T")
PART = 5 * 1024 * 1024
"""Bytes of each part of a larger file: the fewest that S3 takes, since the parts being sent are in memory."""
PARTS = 2
MOST_PARTS = 9000  # S3 takes 10,000
SMALL = 64 * 1024
"""Bytes of a body that is sent in nearly no time."""
SLOWEST = 128 * 1024
"""Bytes a second at which a part must be sent. Its progress is not known, so its size limits its time."""
SENDING = 3000.0
"""Seconds that a whole file may take: less than the age at which gc removes a file that is sent in part."""
_NO_BUCKET = "<Code>NoSuchBucket<"
_FULL = ("QuotaExceeded", "InsufficientStorage", "NoSpace", "status: 507")


def translate(error: Exception) -> Exception:
    """The refusal that stands for what the store reports."""
    if _NO_BUCKET in str(error):
        return Unavailable(NO_BUCKET)
    if isinstance(error, FileNotFoundError):
        return NotFound()
    if any(word in str(error) for word in _FULL) or getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
        return NoSpace()
    return Unavailable(AWAY)


async def _asked(work: Awaitable[T]) -> T:
    try:
        return await work
    except (BaseError, OSError) as error:
        raise translate(error) from error


class S3Store:
    """A `BlobStore` in a bucket, with staging in a local directory, and with `Addresses` if the settings want them."""

    tree = files = None

    def __init__(self, settings: Settings) -> None:
        place = urlsplit(settings.storage_url)
        self._prefix = place.path.strip("/")
        self._settings, self._name = settings, place.netloc
        self._endpoint = settings.s3_endpoint or f"https://s3.{settings.s3_region}.amazonaws.com"
        self._staging = Staging(settings.data_dir / "staging", settings.min_free_space)
        self._sending: set[asyncio.Task[None]] = set()
        self._signing: Keys | None = None

    @cached_property
    def _keys(self) -> Keys:
        from media_gallery.storage.keys import Keys

        return Keys(self._settings, self._endpoint)

    @property
    def addresses(self) -> S3Store | None:
        return self if self._signing else None

    async def start(self) -> None:
        self._signing = self._keys if self._settings.s3_delivery == "redirect" else None
        self._bucket, self._senders = self._connect(0), {PART: self._connect(PART)}
        await self._staging.start()

    def _connect(self, body: int) -> Bucket:
        """The bucket, for requests that carry up to so many bytes: the time limit for an answer begins with the first
        byte that is sent, so it grows with them.
        """
        settings = self._settings
        patience = timedelta(seconds=settings.s3_timeout + body / SLOWEST)
        return Bucket(
            self._name,
            prefix=self._prefix or None,
            credential_provider=self._given_keys if settings.s3_access_key_id else self._keys.fresh,
            region=settings.s3_region,
            endpoint=self._endpoint,
            client_options={
                "allow_http": True,
                "connect_timeout": timedelta(seconds=5),
                "read_timeout": patience,
                "timeout": timedelta(days=1),  # for a whole download; `read_timeout` ends one that hangs
            },
            retry_config={"max_retries": 3, "retry_timeout": patience},
        )

    def _given_keys(self) -> Any:
        """The keys of the settings, which need no botocore."""
        settings = self._settings
        secret = settings.s3_secret_access_key.get_secret_value()
        return {
            "access_key_id": settings.s3_access_key_id,
            "secret_access_key": secret,
            "token": None,
            "expires_at": None,
        }

    async def close(self) -> None:
        await asyncio.gather(*self._sending, return_exceptions=True)
        await self._staging.close()

    # --- The way in ---

    def writer(self, key: str = "") -> Writer:
        return self._staging.writer(key)

    def check_room(self) -> None:
        self._staging.check_room()

    async def commit(self, staged: Staged) -> None:
        self.check_room()
        # If the client goes away, sending goes on to its end, so that no parts stay in the bucket; `close` waits for
        # it. No row names the file then, and gc removes it.
        sending = asyncio.create_task(self._send(staged))
        self._sending.add(sending)
        sending.add_done_callback(self._sent)
        with metrics.store_write.time():
            await asyncio.shield(sending)

    def _sent(self, sending: asyncio.Task[None]) -> None:
        self._sending.discard(sending)
        if not sending.cancelled():
            sending.exception()  # read, so that asyncio does not complain if nobody waits

    async def _send(self, staged: Staged) -> None:
        source = staged.data if staged.data is not None else self._staging.path(staged.key)
        try:
            async with asyncio.timeout(SENDING):
                await self._put(_blob(staged.key), source, staged.size)
        except BaseException as error:
            with suppress(BaseError, OSError):
                await obstore.delete_async(self._bucket, _blob(staged.key))
            if isinstance(error, TimeoutError):
                raise Unavailable(AWAY) from error
            raise
        await self._staging.discard(staged)

    async def _put(self, path: str, source: bytes | Path, size: int) -> None:
        part = PART
        while size > part * MOST_PARTS:
            part *= 2
        bucket = self._bucket if size <= SMALL else self._sender(part)
        await _asked(
            obstore.put_async(bucket, path, source, use_multipart=size > part, chunk_size=part, max_concurrency=PARTS)
        )

    def _sender(self, part: int) -> Bucket:
        if part not in self._senders:
            self._senders[part] = self._connect(part)
        return self._senders[part]

    async def discard(self, staged: Staged) -> None:
        await self._staging.discard(staged)

    # --- The way out ---

    def opened_staged(self, staged: Staged) -> AbstractAsyncContextManager[int]:
        return self._staging.opened_staged(staged)

    @asynccontextmanager
    async def opened(self, key: str) -> AsyncIterator[int]:
        size = await self.size(key)
        if size is None:
            raise NotFound
        writer = self._staging.writer()
        async with AsyncExitStack() as stack:
            try:
                async for piece in self.read(key, 0, size):
                    await writer.write(piece)
                fd = await stack.enter_async_context(self._staging.opened_staged(await writer.finish()))
            finally:
                await writer.discard()  # an open file can be read after that
            yield fd

    async def read(self, key: str, start: int, end: int) -> AsyncIterator[bytes]:
        if start == end:
            return
        try:
            with metrics.store_read.time():
                answer = await obstore.get_async(self._bucket, _blob(key), options={"range": (start, end)})
            async for piece in answer.stream(PIECE):
                yield bytes(piece)
        except (BaseError, OSError) as error:
            raise translate(error) from error

    async def address(self, key: str, media_type: str, disposition: str) -> tuple[str, float]:
        assert self._signing
        return await self._signing.address("/".join((self._name, self._place(_blob(key)))), media_type, disposition)

    def _place(self, path: str) -> str:
        """The path in the whole bucket, with the prefix."""
        return f"{self._prefix}/{path}" if self._prefix else path

    async def thumbnail(self, key: str, name: str) -> bytes | None:
        try:
            answer = await _asked(obstore.get_async(self._bucket, f"thumbs/{key}/{name}"))
            return bytes(await _asked(answer.bytes_async()))
        except NotFound:
            return None

    async def put_thumbnails(self, key: str, thumbnails: Mapping[str, bytes]) -> None:
        await asyncio.gather(*(self._put(f"thumbs/{key}/{name}", data, len(data)) for name, data in thumbnails.items()))

    # --- Upkeep ---

    async def delete(self, keys: list[str]) -> None:
        with metrics.store_delete.time():
            await self._delete(keys)

    async def _delete(self, keys: list[str]) -> None:
        paths = [_blob(key) for key in keys]
        for found in await asyncio.gather(*(self._thumbnails(key) for key in keys)):
            paths += found
        await _asked(obstore.delete_async(self._bucket, paths))
        await self._staging.remove(keys)

    async def _thumbnails(self, key: str) -> list[str]:
        return [meta["path"] for meta in await _asked(obstore.list(self._bucket, f"thumbs/{key}/").collect_async())]

    async def check(self) -> None:
        await self._staging.check()
        await self._find_bucket()

    async def _find_bucket(self) -> None:
        """Raise Unavailable if there is no bucket. Only a `GET` tells that: to a `HEAD`, it looks like a missing
        object.
        """
        with suppress(NotFound):
            await _asked(obstore.get_async(self._bucket, "blobs/probe"))

    async def size(self, key: str) -> int | None:
        try:
            with metrics.store_look.time():
                return int((await _asked(obstore.head_async(self._bucket, _blob(key))))["size"])
        except NotFound:
            await self._find_bucket()
            return None

    async def keys(self, older_than: float) -> AsyncIterator[list[str]]:
        before = datetime.fromtimestamp(time.time() - older_than, UTC)
        for folder in ("blobs", "thumbs"):
            listing = obstore.list(self._bucket, f"{folder}/", chunk_size=LISTED)
            while (batch := await _asked(_next(listing))) is not None:
                old = [meta["path"].split("/")[1] for meta in batch if meta["last_modified"] <= before]
                if old:
                    yield list(dict.fromkeys(old))

    async def staged(self) -> tuple[int, int]:
        return await self._staging.held()

    async def sweep_staging(self, older_than: float, living: Container[str] = ()) -> tuple[int, int]:
        count, size = await self._staging.sweep(older_than, living)
        place = self._place("blobs/")
        # The thread also loads botocore, if nothing has loaded it before.
        ended = await self._staging.run(lambda: self._keys.abort_unfinished(self._name, place, older_than))
        return count + ended, size


def _blob(key: str) -> str:
    return f"blobs/{key}"


async def _next(listing: Any) -> Any:
    return await anext(listing, None)
