"""The uploads under way on this host: each process lists its own in a small file, which the others read.

So limits on what an account sends at once hold over all workers, and upkeep knows by name what a killed worker left.
A process locks its file for as long as it lives, and the system releases the lock however it ends. Nothing is synced:
`gc` removes what a power cut leaves.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import struct
import time
from collections import Counter
from collections.abc import Iterable, Iterator
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
"""Records that a file has room for from its start, so that a full disk cannot stop so many."""
STEP = 512 * 1024
"""Bytes of an upload that other processes may not know of yet: each change of the file costs a system call."""
SETTLED = 60.0
"""Seconds after which a transaction in doubt has surely ended."""


@dataclass(slots=True, eq=False)
class Entry:
    """An upload under way; or a link that is about to be made, which counts for no account (0). Sizes in bytes;
    `told`: what other processes know.
    """

    account: AccountId
    size: int = 0
    key: str = ""
    slot: str = ""
    number: int = 0
    told: int = 0
    in_doubt: bool = False
    left_at: float = 0.0

    def packed(self) -> bytes:
        return _RECORD.pack(self.account, self.size, self.key.encode(), self.slot.encode())

    @classmethod
    def unpacked(cls, record: tuple[int, int, bytes, bytes]) -> Entry:
        account, size, key, slot = record
        return cls(AccountId(account), size, key.rstrip(b"\0").decode(), slot.rstrip(b"\0").decode())


@dataclass(frozen=True, slots=True)
class _Other:
    """The file of another process, living or ended: when it was touched, in seconds since 1970, and its entries."""

    path: str
    living: bool
    touched: float
    entries: list[Entry]


@dataclass(frozen=True, slots=True)
class LeftBehind:
    """Entries that ended in doubt or were left by killed processes, and the files of those processes."""

    entries: list[Entry] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)


class Arrivals:
    """The uploads under way in this process, and those in other processes that share the directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._path = directory / secrets.token_hex(8)
        self._file = self._turns = -1
        self._entries: dict[int, Entry] = {}
        self._free: list[int] = []
        self._left: list[Entry] = []
        self._uploads, self._sizes = Counter[AccountId](), Counter[AccountId]()

    def close(self) -> None:
        """Close the file; it is removed, unless something in it is in doubt."""
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
        """Keep other processes from entering or growing: for some microseconds, in which nothing is awaited."""
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
        """Enter an upload under this key; return its entry, and the bytes that have come of the account's others. None
        if the account has `most` already. `slot`: the slot, if one was given out before. Raises Conflict if another
        upload has this slot, or ended in doubt there; NoSpace, Unavailable.
        """
        with self._turn():
            others = list(self._others())
            if slot and any(entry.slot == slot for entry in self._all(others)):
                raise Conflict("This file is being uploaded already")
            uploads, size = self._held(account, others)
            return None if uploads >= most else (self._enter(account, key, slot), size)

    def enter_link(self, slot: str) -> Entry:
        """Enter a link that is about to be made to known bytes. Raises NoSpace, Unavailable."""
        with self._turn():
            return self._enter(AccountId(0), "", slot)

    def _enter(self, account: AccountId, key: str, slot: str) -> Entry:
        entry = Entry(account, 0, key, slot, self._free[-1] if self._free else len(self._entries))
        self._tell(entry)
        del self._free[-1:]
        self._entries[entry.number] = entry
        self._uploads[account] += 1
        return entry

    def grow(self, entry: Entry, size: int, most: int) -> int:
        """Add `size` bytes that have come. Return how many further bytes the account may send, if it may have `most`
        under way in all; if the answer is below 0, these were too many and nothing was added. Raises NoSpace,
        Unavailable.
        """
        with self._turn():
            left = most - self.held(entry.account)[1] - size
            if left >= 0:
                self._add(entry, size)
                self._tell(entry)
            return left

    def _add(self, entry: Entry, size: int) -> None:
        entry.size += size
        self._sizes[entry.account] += size

    def note(self, entry: Entry, size: int) -> None:
        """Note bytes of an upload that have come; below 0, bytes are taken away. Raises NoSpace, Unavailable."""
        self._add(entry, size)
        if not 0 <= entry.size - entry.told < STEP:
            self._tell(entry)

    def name(self, entry: Entry, key: str, slot: str) -> None:
        """Note the key and the slot that an upload is about to take. Raises NoSpace, Unavailable."""
        if (entry.key, entry.slot) != (key, slot):
            entry.key, entry.slot = key, slot
            self._tell(entry)

    def _tell(self, entry: Entry) -> None:
        """Let other processes know of an entry as it is now. Raises NoSpace, Unavailable."""
        try:
            os.pwrite(self._file, entry.packed(), entry.number * _RECORD.size)
        except OSError as error:
            raise translate(error) from error
        entry.told = entry.size

    def leave(self, entry: Entry) -> None:
        """End an entry. If it is in doubt, its key and slot stay until upkeep has looked. May be called again."""
        if self._entries.get(entry.number) is not entry or entry.left_at:
            return
        for counter, count in ((self._uploads, 1), (self._sizes, entry.size)):
            counter[entry.account] -= count
            if not counter[entry.account]:
                del counter[entry.account]
        if entry.in_doubt:
            entry.account, entry.size, entry.left_at = AccountId(0), 0, time.monotonic()
            self._left.append(entry)
            self._tell(entry)
        else:
            self._forget(entry)

    def _forget(self, entry: Entry) -> None:
        del self._entries[entry.number]
        self._free.append(entry.number)
        os.pwrite(self._file, _EMPTY, entry.number * _RECORD.size)

    # --- Looking ---

    def held(self, account: AccountId) -> tuple[int, int]:
        """How many uploads of an account are under way on this host, and the bytes that have come of them."""
        return self._held(account, self._others())

    def _held(self, account: AccountId, others: Iterable[_Other]) -> tuple[int, int]:
        theirs = [entry for other in others if other.living for entry in other.entries if entry.account == account]
        return self._uploads[account] + len(theirs), self._sizes[account] + sum(entry.size for entry in theirs)

    def _all(self, others: Iterable[_Other]) -> Iterator[Entry]:
        """What is under way on this host, and what ended in doubt."""
        yield from self._entries.values()
        for other in others:
            yield from other.entries

    def living_keys(self) -> set[str]:
        """Keys of all uploads under way on this host."""
        return {entry.key for entry in self._all(other for other in self._others() if other.living)}

    def left_behind(self, at_once: bool) -> LeftBehind:
        """What ended in doubt here, and what killed processes left; what is younger than SETTLED only if `at_once`."""
        left = LeftBehind([entry for entry in self._left if at_once or entry.left_at + SETTLED <= time.monotonic()])
        for other in self._others():
            if not other.living and (at_once or other.touched + SETTLED <= time.time()):
                left.files.append(Path(other.path))
                left.entries.extend(other.entries)
        return left

    def settle(self, left: LeftBehind) -> None:
        """Forget what upkeep has dealt with."""
        for entry in left.entries:
            if entry in self._left:
                self._left.remove(entry)
                self._forget(entry)
        for path in left.files:
            path.unlink(missing_ok=True)

    def _others(self) -> Iterator[_Other]:
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
                living, found = _is_locked(file), os.fstat(file)
                data = os.read(file, found.st_size).rstrip(b"\0")  # unused records are at the end
                data += bytes(-len(data) % _RECORD.size)
                entries = [Entry.unpacked(one) for one in _RECORD.iter_unpack(data) if one != _NOTHING]
                yield _Other(path, living, found.st_mtime, entries)
            finally:
                os.close(file)


def _is_locked(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False
