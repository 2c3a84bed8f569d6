"""A tree of links beside a directory of blobs; any web server can serve it.

    links/ab/SLOT_ID/NAME             symbolic links to the bytes and their thumbnails; ab are the slot's first digits.
                                      A link whose name tells a wrong media type is left out

Nothing here is synced: the tree can be made again from the database and the bytes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from zlib import crc32

from media_gallery.media_types import named_type
from media_gallery.models import OWN_SLOT_ID
from media_gallery.storage import Slot
from media_gallery.storage.staging import Staging, remove_folder

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
"""Differs after each start of the machine (proc_sys_kernel(5)): what was not synced may be lost then."""


class DirectoryTree:
    """The `LinkTree` of a directory. The threads of `Staging` work on it."""

    def __init__(self, root: Path, staging: Staging) -> None:
        self._links, self._boot, self._staging, self._run = root / "links", root / "boot", staging, staging.run
        self._noted = False

    def _place(self, slot_id: str) -> Path:
        """In the directory of the first two digits, as web servers expect it; slots of others may have no digits."""
        ab = slot_id[:2] if OWN_SLOT_ID.fullmatch(slot_id) else f"{crc32(slot_id.encode()) % 256:02x}"
        return self._links / ab / slot_id

    async def publish(self, key: str, slot: Slot) -> None:
        goals = _goals(key, slot)
        if not goals:
            await self.unpublish([slot.id])
            return

        await self._run(lambda: _make(self._place(slot.id), goals))

    async def unpublish(self, slot_ids: list[str]) -> None:
        def job() -> None:
            for slot_id in slot_ids:
                remove_folder(self._place(slot_id))

        await self._run(job)

    async def is_published(self, key: str, slot: Slot) -> bool:
        def job() -> bool:
            found: dict[str, str] = {}
            with suppress(FileNotFoundError):  # there is none, or it is being removed
                found = {entry.name: str(entry.readlink()) for entry in self._place(slot.id).iterdir()}
            return found == _goals(key, slot)

        return await self._run(job)

    def slots(self, older_than: float) -> AsyncIterator[list[str]]:
        return self._staging.listed(self._links, older_than)

    async def is_sound(self) -> bool:
        def job() -> bool:
            try:
                return self._boot.read_bytes() == BOOT_ID.read_bytes()
            except FileNotFoundError:
                return False

        return self._noted or await self._run(job)  # a power cut would have ended this process

    async def note_sound(self) -> None:
        def job() -> None:
            with suppress(FileNotFoundError):  # a confinement may hide it; then each process looks the tree over once
                self._boot.write_bytes(BOOT_ID.read_bytes())

        await self._run(job)
        self._noted = True


def _make(place: Path, goals: dict[str, str]) -> None:
    """Make a slot's directory anew, until it was not removed or made by somebody else meanwhile."""
    while True:
        try:
            place.mkdir()
        except FileExistsError:
            remove_folder(place)
            continue
        with suppress(FileExistsError, FileNotFoundError):
            for name, goal in goals.items():
                (place / name).symlink_to(goal)
            return


def _goals(key: str, slot: Slot) -> dict[str, str]:
    """Each name in a slot's directory -> the target of its link."""
    up = f"../../../{{}}/{key[:2]}/{key}"
    goals = {name: f"{up.format('thumbs')}/{stored}" for name, stored in slot.thumbnails.items()}
    if slot.name is not None and named_type(slot.name) == slot.media_type:
        goals[slot.name] = up.format("blobs")
    return goals
