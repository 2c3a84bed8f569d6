"""The parent side of thumbnails: decoder processes, which are kept running, their queue and their limits.

The parent loads neither libvips nor FFmpeg. A decoder that crashes, hangs or grows costs one job: it is killed, and the
next job gets a new one.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections import Counter, deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import KW_ONLY, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import structlog

from media_gallery import metrics
from media_gallery.confinement import PARTS

log = structlog.get_logger()
RECYCLE = 500
"""Jobs after which a decoder is replaced, so that memory which a library leaks does not add up."""
START = 60.0
"""Seconds a decoder may take to load its libraries."""
PATIENCE = 60.0
"""Seconds that a job waits for a decoder at most."""
HEADER, ANSWER = 16 * 1024, 256 * 1024 * 1024
"""Bytes of a decoder's answer, at most: of its first line, and of what follows."""
PROGRAM = Path(__file__).with_name("decoder") / "__main__.py"
_ENVIRONMENT = {
    "VIPS_CONCURRENCY": "1", "VIPS_BLOCK_UNTRUSTED": "1", "LC_ALL": "C.UTF-8",
    "MALLOC_ARENA_MAX": "1",  # so its threads use what others have freed
    "VIPS_DISC_THRESHOLD": "64g",  # larger images would go to files, which a decoder cannot write
}  # fmt: skip

_PIXEL = bytes.fromhex("47494638396101000100800000000000ffffff2c00000000010001000002024401003b")
"""A GIF of one pixel."""


class Undecodable(Exception):
    """The file is no image or film that can be decoded."""


class DecoderFailed(Exception):
    """Two decoders, one after the other, crashed or took too long over the file. The cause may be the machine."""


class Busy(DecoderFailed):
    """Nothing was tried: too many jobs wait, this one waited too long, no decoder could be started, or the service is
    stopping.
    """


@dataclass(frozen=True, slots=True)
class Picture:
    """An image or film: width and height in pixels, as it is shown, and its thumbnails: file name -> bytes."""

    width: int
    height: int
    thumbnails: dict[str, bytes]


@dataclass(frozen=True, slots=True)
class Avatar:
    """The square kept of an avatar, `width` pixels wide, and its thumbnails: file name -> bytes."""

    data: bytes
    media_type: str
    width: int
    thumbnails: dict[str, bytes]


class _Turns:
    """Lets a number of jobs run at once. Accounts that wait take turns; the jobs of each run in their order."""

    def __init__(self, places: int) -> None:
        self._free = places
        self._waiting: dict[int, deque[asyncio.Future[None]]] = {}

    @asynccontextmanager
    async def taken(self, owner: int) -> AsyncIterator[None]:
        """Wait for a place, and hold it. Raises Busy."""
        if self._free:
            self._free -= 1
        else:
            with metrics.decoders_waiting.track_inprogress():
                await self._wait(owner)
        try:
            with metrics.decoders_running.track_inprogress():
                yield
        finally:
            self._pass_on()

    async def _wait(self, owner: int) -> None:
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(owner, deque()).append(turn)
        try:
            async with asyncio.timeout(PATIENCE):
                await turn
        except BaseException as error:
            if not turn.cancelled():  # the turn came in the same moment
                self._pass_on()
            if isinstance(error, TimeoutError):
                raise Busy("the decoders are busy") from error
            raise

    def _pass_on(self) -> None:
        while self._waiting:
            owner, turns = next(iter(self._waiting.items()))
            del self._waiting[owner]
            turn = turns.popleft()
            if turns:
                self._waiting[owner] = turns  # behind all others
            if not turn.done():  # nobody waits for it any more
                turn.set_result(None)
                return
        self._free += 1


@dataclass(eq=False)
class Thumbnailer:
    """A pool of decoder processes. Times in seconds, `memory` in bytes.

    At most `queue` jobs wait or run, and at most `queue_each` of one account, which each job names as its `owner`.
    """

    processes: int
    _: KW_ONLY
    timeout: float
    cpu_seconds: int
    memory: int
    max_pixels: int
    queue: int = 512
    queue_each: int = 64

    def __post_init__(self) -> None:
        limits = {"cpu_seconds": self.cpu_seconds, "memory": self.memory, "max_pixels": self.max_pixels}
        self._limits, self._turns = json.dumps(limits), _Turns(self.processes)
        self._idle: list[_Decoder] = []
        self._jobs: set[asyncio.Task[Any]] = set()
        self._owned = Counter[int]()
        self._closing = False
        self.missing: tuple[str, ...] = ()
        """Parts of the confinement that the machine denied the last decoder that was started."""

    async def start(self) -> None:
        """Nothing yet: a decoder starts when a job needs it."""

    async def close(self) -> None:
        self._closing = True
        for job in self._jobs:
            job.cancel()
        await asyncio.gather(*self._jobs, return_exceptions=True)
        while self._idle:
            await self._idle.pop().end()

    async def picture(self, fd: int, kind: Literal["image", "video"], *, owner: int = 0) -> Picture:
        """Width, height and thumbnail of a file. Raises Undecodable, DecoderFailed, Busy."""
        answer, parts = await self._run(fd, {"job": "picture", "kind": kind}, owner)
        return Picture(answer["width"], answer["height"], parts)

    async def check(self) -> None:
        """Decode a picture of one pixel. Raises DecoderFailed, Busy."""
        fd = os.memfd_create("pixel")
        try:
            os.write(fd, _PIXEL)
            await self.picture(fd, "image")
        except Undecodable as error:
            raise DecoderFailed(str(error)) from error
        finally:
            os.close(fd)

    async def avatar(self, fd: int, *, owner: int = 0) -> Avatar:
        """The avatar made of an image. Raises Undecodable, DecoderFailed, Busy."""
        answer, parts = await self._run(fd, {"job": "avatar"}, owner)
        return Avatar(parts.pop(""), f"image/{answer['format']}", answer["width"], parts)

    async def avatar_thumbnails(self, fd: int, sizes: Sequence[int], ext: str, *, owner: int = 0) -> dict[str, bytes]:
        """Thumbnails of a stored avatar: file name -> bytes. Raises Undecodable, DecoderFailed, Busy."""
        return (await self._run(fd, {"job": "avatar_thumbnails", "sizes": list(sizes), "ext": ext}, owner))[1]

    async def _run(self, fd: int, job: dict[str, Any], owner: int) -> tuple[dict[str, Any], dict[str, bytes]]:
        """Run one job in its own task with its own descriptor, so that a cancelled caller does not break it."""
        if self._closing or len(self._jobs) >= self.queue or self._owned[owner] >= self.queue_each:
            raise Busy("too many images wait")
        copy = os.dup(fd)
        task = asyncio.create_task(self._attempt(copy, job, owner))
        self._jobs.add(task)
        self._owned[owner] += 1

        def ended(_: object) -> None:  # runs even if the task is cancelled before it begins
            os.close(copy)
            self._jobs.discard(task)
            self._owned[owner] -= 1
            if not self._owned[owner]:
                del self._owned[owner]

        task.add_done_callback(ended)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():
                raise Busy("the service is stopping") from None
            raise

    async def _attempt(self, fd: int, job: dict[str, Any], owner: int) -> tuple[dict[str, Any], dict[str, bytes]]:
        async with self._turns.taken(owner):
            try:
                answer, data = await self._ask(fd, job, self._idle.pop() if self._idle else await self._fresh())
            except Busy:
                raise
            except DecoderFailed as error:  # the system may have ended it, such as for lack of memory
                log.info("another decoder tries", reason=str(error))
                answer, data = await self._ask(fd, job, await self._fresh())
        if "error" in answer:
            raise Undecodable(answer["error"])
        parts, at = {}, 0
        for name, length in answer["parts"]:
            parts[name] = data[at : at + length]
            at += length
        return answer, parts

    async def _fresh(self) -> _Decoder:
        decoder = await _Decoder.start(self._limits)
        self.missing = decoder.missing
        return decoder

    async def _ask(self, fd: int, job: dict[str, Any], decoder: _Decoder) -> tuple[dict[str, Any], bytes]:
        try:
            async with asyncio.timeout(self.timeout):
                answer = await decoder.ask(fd, job)
        except BaseException as error:
            await decoder.kill()
            if isinstance(error, TimeoutError):
                raise DecoderFailed(f"took longer than {self.timeout:g} s") from error
            if isinstance(error, (OSError, EOFError, ValueError, LookupError)):
                raise DecoderFailed(f"the decoder ended with status {decoder.process.returncode}") from error
            raise
        if decoder.jobs >= RECYCLE:
            await decoder.end()
        else:
            self._idle.append(decoder)
        return answer


@cache
def _note_missing(parts: tuple[str, ...]) -> None:
    """Log once which parts of the confinement this machine lacks."""
    if parts:
        log.warning("decoders are not confined wholly: see docs/security.md", missing=sorted(parts))


class _Decoder:
    """One decoder process, and the socket to it."""

    def __init__(self, process: subprocess.Popen[bytes], connection: socket.socket) -> None:
        self.process, self.connection, self.jobs = process, connection, 0
        self._buffer = b""
        self.missing: tuple[str, ...] = ()

    @classmethod
    async def start(cls, limits: str) -> _Decoder:
        """Raises Busy."""
        spawning = asyncio.ensure_future(asyncio.to_thread(cls._spawn, limits))
        try:
            decoder = await asyncio.shield(spawning)
        except asyncio.CancelledError:
            with suppress(OSError):
                await (await spawning).kill()
            raise
        except OSError as error:
            log.error("no decoder could be started", reason=str(error))
            raise Busy("no decoder could be started") from error
        try:
            async with asyncio.timeout(START):
                enforced = json.loads(await decoder._line())
                decoder.missing = tuple(part for part in PARTS if part not in enforced)
                _note_missing(decoder.missing)
        except BaseException as error:
            await decoder.kill()
            if isinstance(error, Exception):
                log.error("no decoder could be started", status=decoder.process.returncode)
                raise Busy("no decoder could be started") from error
            raise
        return decoder

    @classmethod
    def _spawn(cls, limits: str) -> _Decoder:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with theirs:
            program = [sys.executable, "-I", str(PROGRAM), str(theirs.fileno()), limits]
            try:
                process = subprocess.Popen(  # noqa: S603, our own program
                    program, pass_fds=[theirs.fileno()], env=_ENVIRONMENT, cwd="/",
                    stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                )  # fmt: skip
            except BaseException:
                ours.close()
                raise
        return cls(process, ours)

    async def ask(self, fd: int, job: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        """Do one job. Raises OSError, EOFError or ValueError if the process does not answer as it should."""
        self.jobs += 1
        socket.send_fds(self.connection, [json.dumps(job).encode()], [fd])
        answer: dict[str, Any] = json.loads(await self._line())
        length = sum(length for _, length in answer.get("parts", []))
        if length > ANSWER:
            raise ValueError("too long an answer")
        data = bytearray(self._buffer)
        self._buffer = b""
        while len(data) < length:
            data += await self._receive()
        return answer, bytes(data)

    async def _line(self) -> bytes:
        while b"\n" not in self._buffer:
            if len(self._buffer) > HEADER:
                raise ValueError("too long a line")
            self._buffer += await self._receive()
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    async def _receive(self) -> bytes:
        data = await asyncio.get_running_loop().sock_recv(self.connection, 1 << 18)
        if not data:
            raise EOFError
        return data

    async def end(self) -> None:
        """Let the process end by itself, as it does when its socket is closed."""
        self.connection.close()
        try:
            await asyncio.to_thread(self.process.wait, 2)
        except subprocess.TimeoutExpired:
            await self.kill()

    async def kill(self) -> None:
        self.process.kill()
        self.connection.close()
        await asyncio.shield(asyncio.to_thread(self.process.wait))
