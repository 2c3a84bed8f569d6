"""The clients of the torture tests: each uses one account, and all of them share some bytes."""

from __future__ import annotations

import hashlib
import random
import threading
from collections.abc import Callable
from typing import Any

import httpx
from PIL import Image

from tests import samples
from tests.torture.ledger import Arriving, Ending, Leaving, Ledger

LARGE = 700_000
"""A size that passes through staging; smaller files stay in memory."""
MANY = 25
"""If an account has more files, deletions become more likely, so that reading all files stays quick."""


class Unanswered(Exception):
    """The service or the database was killed, so it is unknown how the request ended."""


def picture(dice: random.Random) -> bytes:
    """A small image, different from all others."""
    width, height = dice.randint(40, 120), dice.randint(40, 120)
    pixels = dice.randbytes(width * height * 3)
    return samples.encoded(Image.frombytes("RGB", (width, height), pixels), dice.choice(["png", "jpeg", "webp"]))


def fresh(dice: random.Random) -> bytes:
    if dice.random() < 0.15:
        return picture(dice)
    return dice.randbytes(LARGE if dice.random() < 0.08 else dice.randint(1, 20_000))


class Client:
    """Random requests of one account. `shared` are bytes that others upload and delete, too."""

    def __init__(self, ledger: Ledger, dice: random.Random, shared: list[bytes]) -> None:
        self.ledger, self.dice, self.shared = ledger, dice, shared
        self.steps: dict[Callable[[], None], int] = {
            self.upload_fresh: 20, self.upload_shared: 30, self.slot: 12, self.avatar: 5, self.delete_one: 22,
            self.delete_some: 5, self.delete_small: 2, self.delete_percent: 4, self.end: 1,
        }  # fmt: skip

    def live(self, stop: threading.Event) -> None:
        """Make requests until `stop` is set, one is not answered, or the account is deleted."""
        try:
            while not stop.is_set() and self.ledger.user:
                if len(self.ledger.files) > MANY:
                    self.delete_percent()
                [step] = self.dice.choices(list(self.steps), list(self.steps.values()))
                step()
        except (Unanswered, httpx.TransportError):
            return

    def _answered(self, answer: httpx.Response, status: int) -> Any:
        if answer.status_code == 503:
            raise Unanswered
        assert answer.status_code == status, (self.ledger.jid, self.ledger.open, answer.status_code, answer.text)
        return answer.json() if answer.content else None

    def _send(self, data: bytes, what: str, path: str = "files/upload/", **fields: Any) -> None:
        ledger, avatar = self.ledger, path.startswith("avatar")
        assert ledger.user
        sha256 = hashlib.sha256(data).hexdigest()
        ledger.open = Arriving(None if avatar else sha256)
        item = self._answered(ledger.user.send(data, f"{self.dice.randrange(1000)}.bin", path=path, **fields), 201)
        assert avatar or item["hashes"]["sha-256"] == sha256
        ledger.kept(item, what)

    def _delete(self, ids: frozenset[int], what: str, path: str = "files/", **selector: Any) -> None:
        assert self.ledger.user
        self.ledger.open = Leaving(ids)
        self._answered(self.ledger.user.delete(path, **selector), 204)
        self.ledger.removed(ids, what)

    # --- The requests ---

    def upload_fresh(self) -> None:
        self.upload(fresh(self.dice))

    def upload(self, data: bytes) -> None:
        self._send(data, "uploads of fresh bytes")

    def upload_shared(self) -> None:
        self._send(
            self.dice.choice(self.shared), "uploads of shared bytes", context=self.dice.choice(["file", "voice"])
        )

    def avatar(self) -> None:
        data = self.dice.choice([data for data in self.shared if samples.is_image(data)] + [picture(self.dice)])
        self._send(data, "avatars", path="avatar/upload/")

    def slot(self) -> None:
        if self.ledger.files and self.ledger.user:
            entry = self.dice.choice(list(self.ledger.files.values()))
            self.ledger.open = Arriving(entry.sha256)
            asked = {"name": "again.bin", "size": entry.size, "hash": entry.sha256}
            item = self._answered(self.ledger.user.get("files/slot/", **asked), 200)
            assert "id" in item, f"{self.ledger.jid} has {entry.id} and was given no link to it"
            self.ledger.kept(item, "slot hits")

    def delete_one(self) -> None:
        plain = [id_ for id_, entry in self.ledger.files.items() if not entry.avatar]
        if plain:
            id_ = self.dice.choice(plain)
            self._delete(frozenset([id_]), "deletions of one", id=id_)

    def delete_some(self) -> None:
        ids = self.dice.sample(sorted(self.ledger.files), min(5, len(self.ledger.files)))
        if ids:
            self._delete(frozenset(ids), "deletions of some", id=ids, contexts=["file", "voice", "avatar"])

    def delete_small(self) -> None:
        most = self.dice.randrange(3000)
        small = [id_ for id_, entry in self.ledger.files.items() if entry.size <= most and not entry.avatar]
        self._delete(frozenset(small), "deletions by filter", size_lte=most)

    def delete_percent(self) -> None:
        percent = self.dice.choice([10, 30, 50, 70])
        entries = sorted(self.ledger.files.values(), key=lambda entry: entry.id)
        used, passed, oldest = sum(entry.size for entry in entries), 0, []
        for entry in entries:
            if passed * 100 >= used * percent:
                break
            oldest.append(entry.id)
            passed += entry.size
        self._delete(frozenset(oldest), "deletions by percent", f"files/percent/{percent}/")

    def end(self) -> None:
        assert self.ledger.user
        self.ledger.open = Ending()
        self._answered(self.ledger.user.delete("account/"), 204)
        self.ledger.ended()
