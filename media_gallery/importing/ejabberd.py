"""ejabberd's `mod_http_upload` (checked with 23.01). It keeps no index; a file's address tells all there is to know:

    DOCROOT/USER/RANDOM/NAME        the bytes, which are written in place; its address was BASE/USER/RANDOM/NAME

USER is the SHA-1 of the uploader's bare JID; or with `jid_in_url: node` the part before the `@`, in which `_` stands
for every character but letters, digits, `.`, `-` and `_` itself. With `thumbnail: true` thumbnails lie beside their
files.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

from media_gallery.importing import OldFile

ADDRESS = "/upload"
"""The path of the module's addresses, unless `put_url` or `get_url` gives it another."""
_SHA1 = re.compile(r"[0-9a-f]{40}")


class Owners:
    """Whose a directory of files is. `users`: bare JIDs of the host; `host`: its domain, if known."""

    def __init__(self, users: Iterable[str] = (), host: str | None = None) -> None:
        self._host, self._users = host, defaultdict[str, list[str]](list)
        for jid in users:
            self._users[hashlib.sha1(jid.encode(), usedforsecurity=False).hexdigest()].append(jid)
            self._users[_node(jid)].append(jid)

    def find(self, directory: str) -> str | None:
        """The bare JID; None if it is not known, or could be one of several, who must not see each other's files."""
        known = self._users.get(directory)
        if known:
            return known[0] if len(known) == 1 else None
        if self._users or self._host is None or "_" in directory or _SHA1.fullmatch(directory):
            return None
        return f"{directory}@{self._host}"


def _node(jid: str) -> str:
    """The name of a user's directory with `jid_in_url: node`."""
    return "".join(c if c.isalnum() or c in "_.-" else "_" for c in jid.partition("@")[0])


def files(docroot: Path, owners: Owners) -> Iterator[OldFile]:
    """All files. Raises OSError."""
    for user in _directories(docroot):
        for slot in _directories(user):
            for place in sorted(slot.iterdir()):
                address = f"{user.name}/{slot.name}/{place.name}"
                yield OldFile(
                    place=place,
                    address=address,
                    owner=owners.find(user.name),
                    owner_sha1=user.name if _SHA1.fullmatch(user.name) else None,
                    name=place.name,
                )


def _directories(place: Path) -> list[Path]:
    return sorted(entry for entry in place.iterdir() if entry.is_dir() and not entry.is_symlink())
