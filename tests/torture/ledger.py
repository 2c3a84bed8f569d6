"""A record, outside of the service, of what it acknowledged to an account, and the check that it is still true."""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import httpx
from PIL import Image

from media_gallery.http.media import PLACEHOLDER
from tests.service import Service, User
from tests.waiting import wait_until

ALL = "file,voice,avatar"
_CATEGORIES = {"image": "images", "video": "videos", "voice": "voices", "file": "files", "avatar": "avatars"}


@dataclass(frozen=True)
class Entry:
    """A file that was acknowledged. Thumbnails: URL and sides in pixels."""

    id: int
    url: str
    size: int
    sha256: str
    avatar: bool
    statistics: str
    thumbnails: tuple[tuple[str, int, int], ...]

    @classmethod
    def of(cls, item: dict[str, Any]) -> Entry:
        pictures = [item["thumbnail"], *item.get("thumbnails", [])] if item["thumbnail"] else []
        kind = item["context"] if item["context"] != "file" else item["media_type"].partition("/")[0]
        return cls(
            item["id"], item["file"], item["size"], item["hashes"]["sha-256"], item["is_avatar"],
            _CATEGORIES.get(kind, "files"), tuple((p["url"], p["width"], p["height"]) for p in pictures),
        )  # fmt: skip


@dataclass(frozen=True)
class Arriving:
    """An upload or a slot without an answer; the digest of its bytes, unless they are cropped."""

    sha256: str | None


@dataclass(frozen=True)
class Leaving:
    """A deletion without an answer: it happened completely or not at all."""

    ids: frozenset[int]


@dataclass(frozen=True)
class Ending:
    """The deletion of an account without an answer."""


def patiently(ask: Callable[[], httpx.Response]) -> httpx.Response:
    """Ask until the answer is not 503, since a killed database may be away for a while.

    Connections from before the kill may break, and are then replaced.
    """

    def answered() -> httpx.Response | None:
        with suppress(httpx.TransportError):
            answer = ask()
            return answer if answer.status_code != 503 else None
        return None

    answer: httpx.Response = wait_until(answered, lambda: "no answer but 503", pause=0.1)
    return answer


class Ledger:
    """An account with one client, so at most one of its requests is open when the service is killed."""

    def __init__(self, service: Service, jid: str) -> None:
        self.service, self.jid = service, jid
        self.files: dict[int, Entry] = {}
        self.gone: list[str] = []
        self.ending: list[str] = []
        """Addresses of an account whose deletion was not answered: they go with the next upkeep."""
        self.open: Arriving | Leaving | Ending | None = None
        self.user: User | None = None
        self.acknowledged = Counter[str]()

    def sign_in(self) -> None:
        """Get a token for the account, which is made again if it was deleted."""
        if self.user is None:
            self.user = self.service.user(jid=self.jid)

    # --- What was answered ---

    def kept(self, item: dict[str, Any], what: str) -> None:
        entry = Entry.of(item)
        assert entry.id not in self.files, f"id {entry.id} was given out twice"
        self.files[entry.id], self.open = entry, None
        self.acknowledged[what] += 1

    def removed(self, ids: frozenset[int], what: str) -> None:
        self.gone += [self.files.pop(id_).url for id_ in ids]
        self.open = None
        self.acknowledged[what] += 1

    def ended(self) -> None:
        self.removed(frozenset(self.files), "account deletions")
        self.user = None

    # --- What is there ---

    def check(self, restarted: bool) -> int:
        """Compare what was acknowledged with what the service has; return how many files and thumbnails were read."""
        if restarted:
            for url in self.ending:
                self.service.wait_until(lambda url=url: self._status(url) == 404)  # type: ignore[misc]
            self.ending = []
        read = 0
        if self.user and self._settle(self.user):
            self._check_counts(self.user)
            read = sum(self._check_bytes(entry) for entry in self.files.values())
        for url in self.gone:
            assert (status := self._status(url)) == 404, f"{url} was deleted, and is answered with {status}"
        self.gone = self.gone[-20:]
        return read

    def _status(self, url: str) -> int:
        return patiently(lambda: self.service.http.get(url)).status_code

    def _settle(self, user: User) -> bool:
        """Find out how the open request ended; return whether the account still exists. Nothing else may change."""
        answer = patiently(lambda: user.get("files/", contexts=ALL, obj_per_page=500))
        open_, self.open = self.open, None
        if answer.status_code == 401 and isinstance(open_, Ending):
            self.ending, self.files, self.user = [entry.url for entry in self.files.values()], {}, None
            return False
        assert answer.status_code == 200, (self.jid, open_, answer.text)
        items = {item["id"]: item for item in answer.json()["items"]}
        new, missing = items.keys() - self.files.keys(), self.files.keys() - items.keys()
        if new and isinstance(open_, Arriving):
            [id_] = new
            assert open_.sha256 in (None, items[id_]["hashes"]["sha-256"])
            self.files[id_] = Entry.of(items[id_])
        elif missing and isinstance(open_, Leaving):
            assert missing == open_.ids, f"{self.jid}: a deletion of {sorted(open_.ids)} took {sorted(missing)}"
            self.gone += [self.files.pop(id_).url for id_ in missing]
        else:
            assert not new and not missing, f"{self.jid}: lost {sorted(missing)}, not deleted {sorted(new)} ({open_})"
        return True

    def _check_counts(self, user: User) -> None:
        used, entries = patiently(lambda: user.get("account/quota/")).json()["used"], self.files.values()
        statistics = patiently(lambda: user.get("files/stats/")).json()
        assert used == statistics["total"]["used"] == sum(entry.size for entry in entries), (self.jid, used)
        assert statistics["total"]["count"] == len(entries)
        for kind in _CATEGORIES.values():
            sizes = [entry.size for entry in entries if entry.statistics == kind]
            assert statistics[kind] == {"count": len(sizes), "used": sum(sizes)}, (self.jid, kind)

    def _check_bytes(self, entry: Entry) -> int:
        answer = patiently(lambda: self.service.http.get(entry.url))
        assert answer.status_code == 200, f"{self.jid}: the bytes of {entry.id} are lost: {answer.text}"
        assert hashlib.sha256(answer.content).hexdigest() == entry.sha256, f"{self.jid}: {entry.id} was changed"
        for url, width, height in entry.thumbnails:
            _check_picture(patiently(lambda url=url: self.service.http.get(url)), url, width, height)  # type: ignore[misc]
        return 1 + len(entry.thumbnails)


def _check_picture(answer: httpx.Response, url: str, width: int, height: int) -> None:
    assert answer.status_code == 200, f"{url}: {answer.status_code} {answer.text[:200]}"
    assert answer.content != PLACEHOLDER, f"{url} could not be made again"
    image = Image.open(io.BytesIO(answer.content))
    image.load()
    assert (Image.MIME[image.format or ""], image.size) == (answer.headers["Content-Type"], (width, height)), url
