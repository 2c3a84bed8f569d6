"""What is on its way in on this host: each process keeps a small file of it, which the others read.

So limits on what an account sends at once hold over all workers, and what a killed one has left is known by name.
A process locks its file for as long as it lives, and the system lets go of the lock however it ends. Nothing is synced:
what a power cut leaves is for `gc`.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import struct
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from media_gallery.errors import Conflict
from media_gallery.models import AccountId
from media_gallery.storage.staging import translate

_RECORD = struct.Struct("<qq32s64s")
"""Account, bytes received, key, slot."""
_EMPTY = bytes(_RECORD.size)
_NOTHING = _RECORD.unpack(_EMPTY)
_AT_FIRST = 64
"""Records for which a file has room from its start, full disk or not."""
SETTLED = 60.0
"""Seconds after which a transaction has ended whose end nobody has heard."""


@dataclass(slots=True, eq=False)
class Entry:
    """An upload under way, or a link about to be made, which counts for no account (0). Size in bytes."""

    account: AccountId
    size: int = 0
    key: str = ""
    slot: str = ""
    number: int = 0
    in_doubt: bool = False
    left_at: float = 0.0

    def packed(self) -> bytes:
        return _RECORD.pack(self.account, self.size, self.key.encode(), self.slot.encode())

    @classmethod
    def unpacked(cls, record: tuple[int, int, bytes, bytes]) -> Entry:
        account, size, key, slot = record
        return cls(AccountId(account), size, key.rstrip(b"\0").decode(), slot.rstrip(b"\0").decode())


@dataclass(frozen=True, slots=True)
class LeftBehind:
    """What nobody is at any more, whether rows name its keys and slots or not."""

    entries: list[Entry] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)


class Arrivals:
    """The uploads under way in this process, and a view of those in others that share the directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._path = directory / secrets.token_hex(8)
        self._file = self._turns = -1
        self._entries: dict[int, Entry] = {}
        self._free: list[int] = []
        self._left: list[Entry] = []
        self._uploads, self._sizes = Counter[AccountId](), Counter[AccountId]()

    def close(self) -> None:
        """Let go of the file, which stays where something in it is in doubt."""
        if self._file >= 0:
            if not self._entries:
                self._path.unlink(missing_ok=True)
            os.close(self._file)
            os.close(self._turns)
            self._file = self._turns = -1

    def _open(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            os.posix_fallocate(file, 0, _AT_FIRST * _RECORD.size)
            self._turns = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY)
        except BaseException:
            os.close(file)
            self._path.unlink(missing_ok=True)
            raise
        self._file = file

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Nobody else enters or grows meanwhile: for some microseconds, in which nothing is awaited."""
        try:
            if self._file < 0:
                self._open()
            fcntl.flock(self._turns, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.flock(self._turns, fcntl.LOCK_UN)
        except OSError as error:
            raise translate(error) from error

    def enter(self, account: AccountId, most: int, key: str, slot: str = "") -> tuple[Entry, int] | None:
        """One more upload, under this key, and the bytes that have come of the others; None where the account has
        `most` already. `slot`: the one that it is for, if that was given out before. Raises Conflict where another is
        at the slot, or was and is in doubt; NoSpace, Unavailable.
        """
        with self._turn():
            uploads, size = self.held(account)
            if slot and self._is_at(slot):
                raise Conflict("This file is being uploaded already")
            return None if uploads >= most else (self._enter(account, key, slot), size)

    def enter_link(self, slot: str) -> Entry:
        """A link about to be made to bytes that are known. Raises NoSpace, Unavailable."""
        with self._turn():
            return self._enter(AccountId(0), "", slot)

    def _enter(self, account: AccountId, key: str, slot: str) -> Entry:
        entry = Entry(account, 0, key, slot, self._free[-1] if self._free else len(self._entries))
        self._write(entry)
        del self._free[-1:]
        self._entries[entry.number] = entry
        self._uploads[account] += 1
        return entry

    def grow(self, entry: Entry, size: int, most: int) -> int:
        """So many bytes more have come of it. How many more the account may send at once, where it may have `most`
        under way; below 0 these were too many, and nothing has changed. Raises NoSpace, Unavailable.
        """
        with self._turn():
            left = most - self.held(entry.account)[1] - size
            if left >= 0:
                self._add(entry, size)
            return left

    def _add(self, entry: Entry, size: int) -> None:
        entry.size += size
        self._sizes[entry.account] += size
        self._write(entry)

    def note(self, entry: Entry, *, key: str = "", slot: str = "", size: int = 0) -> None:
        """Let others know more of it: its key, its slot, bytes that have come or (below 0) count no more."""
        entry.key, entry.slot = key or entry.key, slot or entry.slot
        try:
            self._add(entry, size)
        except OSError as error:
            raise translate(error) from error

    def _write(self, entry: Entry) -> None:
        os.pwrite(self._file, entry.packed(), entry.number * _RECORD.size)

    def leave(self, entry: Entry) -> None:
        """It has ended. In doubt, its key and slot stay until upkeep has looked. May be called again."""
        if self._entries.get(entry.number) is not entry or entry.left_at:
            return
        for counter, count in ((self._uploads, 1), (self._sizes, entry.size)):
            counter[entry.account] -= count
            if not counter[entry.account]:
                del counter[entry.account]
        if entry.in_doubt:
            entry.account, entry.size, entry.left_at = AccountId(0), 0, time.monotonic()
            self._left.append(entry)
            self._write(entry)
        else:
            self._forget(entry)

    def _forget(self, entry: Entry) -> None:
        del self._entries[entry.number]
        self._free.append(entry.number)
        os.pwrite(self._file, _EMPTY, entry.number * _RECORD.size)

    # --- Looking ---

    def held(self, account: AccountId) -> tuple[int, int]:
        """Uploads of an account under way on this host, and the bytes that have come of them."""
        theirs = [entry for _, _, entries in self._others(living=True) for entry in entries if entry.account == account]
        return self._uploads[account] + len(theirs), self._sizes[account] + sum(entry.size for entry in theirs)

    def _is_at(self, slot: str) -> bool:
        """Whether anybody on this host is at a slot, or has left it in doubt."""
        theirs = (entry for living in (True, False) for _, _, entries in self._others(living) for entry in entries)
        return any(entry.slot == slot for entry in (*self._entries.values(), *theirs))

    def living_keys(self) -> set[str]:
        """Keys that somebody on this host is at."""
        theirs = {entry.key for _, _, entries in self._others(living=True) for entry in entries}
        return theirs | {entry.key for entry in self._entries.values()}

    def left_behind(self, at_once: bool) -> LeftBehind:
        """What ended in doubt here, and all of processes that were killed; only `at_once`, that of just now, too."""
        left = LeftBehind([entry for entry in self._left if at_once or entry.left_at + SETTLED <= time.monotonic()])
        for path, touched, entries in self._others(living=False):
            if at_once or touched + SETTLED <= time.time():
                left.files.append(Path(path))
                left.entries.extend(entries)
        return left

    def settle(self, left: LeftBehind) -> None:
        """All of it has been looked after."""
        for entry in left.entries:
            if entry in self._left:
                self._left.remove(entry)
                self._forget(entry)
        for path in left.files:
            path.unlink(missing_ok=True)

    def _others(self, living: bool) -> Iterator[tuple[str, float, list[Entry]]]:
        """What each other process is at that lives, or was at that has ended: its file, when it was touched, what."""
        try:
            paths = [entry.path for entry in os.scandir(self.directory) if entry.name != self._path.name]
        except FileNotFoundError:
            return
        for path in paths:
            try:
                file = os.open(path, os.O_RDONLY)
            except FileNotFoundError:
                continue
            try:
                if _is_locked(file) == living:
                    found = os.fstat(file)
                    data = os.read(file, found.st_size).rstrip(b"\0")  # the records that are used most stand first
                    data += bytes(-len(data) % _RECORD.size)
                    entries = [Entry.unpacked(one) for one in _RECORD.iter_unpack(data) if one != _NOTHING]
                    yield path, found.st_mtime, entries
            finally:
                os.close(file)


def _is_locked(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False
