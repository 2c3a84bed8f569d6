"""Any sequence of requests, against a model: lists, pages, counts, quotas, stored bytes. `--rounds` / 5 sequences."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from tests import samples
from tests.model import category, model
from tests.service import MIB, Service, User

pytestmark = pytest.mark.timeout(0)  # the long forms take long; each single wait has its own deadline
BYTES = [b"", b"a", b"b" * 10, b"c" * 25, b"d" * 25, b"e" * 60, samples.picture("png", 40, 40)]
NAMES = ["a.txt", "B.bin", "привет.ogg", "ПРИВЕТ 2.png", "100%_done.pdf"]
TYPES = ["text/csv", "image/png", "video/mp4", "audio/ogg", "application/x-data"]
PLURALS = {"image": "images", "video": "videos", "voice": "voices", "file": "files", "avatar": "avatars"}
ALL = ["file", "voice", "avatar"]
MOST = 3
who = st.integers(0, MOST - 1)
bodies = st.sampled_from(BYTES)
filters = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from([*PLURALS, "audio"]),
        "contexts": st.lists(st.sampled_from(ALL), min_size=1, max_size=3, unique=True),
        "media_type": st.sampled_from(["image", "image/*", "text/csv", "ogg", "*"]),
        "size_gte": st.integers(0, 60),
        "size_lte": st.integers(0, 60),
        "name": st.sampled_from(["a", "Привет", "%", "_", ".BIN"]),
    },
)
ORDERS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "id": lambda item: item["id"],
    "created_at": lambda item: (item["created_at"], item["id"]),
    "name": lambda item: (item["name"].casefold(), item["id"]),
    "size": lambda item: (item["size"], item["id"]),
}


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class Account:
    """What the model knows of an account: its file objects, oldest first, and its quota."""

    def __init__(self, user: User) -> None:
        self.user, self.items, self.quota = user, list[dict[str, Any]](), 50 * MIB
        self.awaited = set[int]()
        """Slot hits that an upload of the same takes over, once."""

    @property
    def used(self) -> int:
        return sum(item["size"] for item in self.items)

    def wanted(self, wanted: dict[str, Any], avatars: bool) -> list[dict[str, Any]]:
        """The items that pass a filter; avatars only if the filter names them, or if `avatars` is set."""
        items = [item | {"is_avatar": item["is_avatar"] and not avatars} for item in self.items]
        through = set(model(items, wanted))
        return [item for item in self.items if item["id"] in through]

    def oldest(self, percent: int, exclude_avatars: bool) -> list[dict[str, Any]]:
        passed, found = 0, []
        for item in self.items:
            if passed * 100 >= self.used * percent:
                break
            if not (exclude_avatars and item["is_avatar"]):
                found.append(item)
                passed += item["size"]
        return found

    def took(self, answer: dict[str, Any], **expected: Any) -> None:
        """Note a file object of an answer; from now on the lists must show it."""
        assert {key: answer[key] for key in expected} == expected
        assert (answer.pop("quota"), answer.pop("used")) == (self.quota, self.used + answer["size"])
        self.items.append(answer)

    def awaits(self, name: str, data: bytes) -> dict[str, Any] | None:
        """The slot hit that an upload of these bytes takes over."""
        hits = (item for item in self.items if item["id"] in self.awaited and not item["is_avatar"])
        same = [item for item in hits if (item["name"], item["hashes"]["sha-256"]) == (name, digest(data))]
        return same[-1] if same else None

    def took_over(self, hit: dict[str, Any], answer: dict[str, Any], **expected: Any) -> None:
        assert {key: answer[key] for key in expected} == expected
        assert (answer["id"], answer.pop("quota"), answer.pop("used")) == (hit["id"], self.quota, self.used)
        self.awaited.remove(hit["id"])
        self.items[self.items.index(hit)] = answer

    def lose(self, items: list[dict[str, Any]]) -> None:
        gone = {item["id"] for item in items}
        self.items = [item for item in self.items if item["id"] not in gone]


class Requests(RuleBasedStateMachine):
    """Three accounts that share bytes, and an administrator who sets their quotas."""

    service: Service
    admin: User
    number = 0

    def __init__(self) -> None:
        super().__init__()
        Requests.number += 1
        self.accounts = [Account(self._user(number)) for number in range(MOST)]

    def _user(self, number: int) -> User:
        return self.service.user(jid=f"{number}@example{Requests.number}.org")

    def teardown(self) -> None:
        for account in self.accounts:
            assert account.user.delete("account/").status_code == 204
        assert self.service.stored_bytes() == 0
        assert not list((self.service.data_dir / "links").glob("*/*"))

    # --- Uploads and slots ---

    def _fits(self, account: Account, size: int, answer: Any) -> bool:
        if account.used + size <= account.quota:
            assert answer.is_success, answer.text
            return True
        assert answer.status_code == 403
        said = {key: answer.json()["details"][key] for key in ("quota", "used")}
        assert said == {"quota": account.quota, "used": account.used}
        return False

    @rule(who=who, data=bodies, name=st.sampled_from(NAMES), type_=st.sampled_from(TYPES), voice=st.booleans())
    def upload(self, who: int, data: bytes, name: str, type_: str, voice: bool) -> None:
        account, context = self.accounts[who], "voice" if voice else "file"
        answer = account.user.send(data, name, media_type=type_, context=context)
        if self._fits(account, len(data), answer):
            said = {"name": name, "size": len(data), "media_type": type_, "context": context}
            if hit := account.awaits(name, data):
                account.took_over(hit, answer.json(), **said)
            else:
                account.took(answer.json(), **said)
                assert account.items[-1]["hashes"]["sha-256"] == digest(data)

    @rule(who=who, side=st.sampled_from([20, 40]))
    def avatar(self, who: int, side: int) -> None:
        account = self.accounts[who]
        answer = account.user.send(samples.picture("png", side, side), "me.png", path="avatar/upload/")
        size = answer.json()["size"] if answer.is_success else answer.json()["details"]["required"]
        if self._fits(account, size, answer):
            account.took(answer.json(), context="avatar", width=side, media_type="image/png")

    @rule(who=who, data=bodies, name=st.sampled_from(NAMES))
    def slot(self, who: int, data: bytes, name: str) -> None:
        account = self.accounts[who]
        answer = account.user.get("files/slot/", name=name, size=len(data), hash=digest(data))
        if not self._fits(account, len(data), answer):
            return
        known = [item for item in account.items if item["hashes"]["sha-256"] == digest(data)]
        if known:
            context = "file" if known[-1]["is_avatar"] else known[-1]["context"]
            found = answer.json()
            found["hash"] = found["hashes"]["sha-1"]  # a slot's answer has the digest of its request
            account.took(found, name=name, media_type=known[-1]["media_type"], context=context)
            account.awaited.add(found["id"])
        else:
            assert {key: answer.json()[key] for key in ("quota", "used")} == {
                "quota": account.quota, "used": account.used,
            }  # fmt: skip
            assert "id" not in answer.json()

    @rule(who=who, quota=st.sampled_from([None, 0, 30, 60, 100, 500]))
    def set_quota(self, who: int, quota: int | None) -> None:
        account = self.accounts[who]
        account.quota = 50 * MIB if quota is None else quota
        answer = self.admin.put("account/quota/", jid=account.user.jid, value=quota).json()
        assert answer == {"jid": account.user.jid, "quota": account.quota, "used": account.used}

    # --- Deletions ---

    @precondition(lambda self: any(account.items for account in self.accounts))
    @rule(who=who, data=st.data())
    def delete_one(self, who: int, data: st.DataObject) -> None:
        """By id or by URL. Avatars are deleted only if they are named, files of other accounts never."""
        item = data.draw(st.sampled_from([item for account in self.accounts for item in account.items]))
        selector = data.draw(st.sampled_from([{"id": item["id"]}, {"file": item["file"]}]))
        contexts = data.draw(st.sampled_from([{}, {"contexts": ALL}]))
        account = self.accounts[who]
        mine = [own for own in account.items if own["id"] == item["id"] and (contexts or not own["is_avatar"])]
        answer = account.user.delete("files/", **selector, **contexts)
        assert answer.status_code == (204 if mine else 404)
        account.lose(mine)

    @rule(who=who, wanted=filters)
    def delete_some(self, who: int, wanted: dict[str, Any]) -> None:
        account = self.accounts[who]
        answer = account.user.delete("files/", **wanted)
        assert answer.status_code == (204 if wanted else 400)
        if wanted:
            named = "avatar" in wanted.get("contexts", [])
            account.lose([item for item in account.wanted(wanted, True) if named or not item["is_avatar"]])

    @rule(who=who, percent=st.integers(1, 100), exclude=st.booleans(), delete=st.booleans())
    def oldest(self, who: int, percent: int, exclude: bool, delete: bool) -> None:
        account = self.accounts[who]
        items = account.oldest(percent, exclude)
        path = f"files/percent/{percent}/"
        assert self._ids(account.user.items(path, exclude_avatars=exclude, obj_per_page=500)) == self._ids(items)
        if delete:
            assert account.user.delete(path, exclude_avatars=exclude).status_code == 204
            account.lose(items)

    @rule(who=who)
    def end(self, who: int) -> None:
        """An account is deleted, and made again under the same JID."""
        account = self.accounts[who]
        assert account.user.delete("account/").status_code == 204
        assert account.user.get("files/").status_code == 401
        self.accounts[who] = Account(self._user(who))

    # --- Lists ---

    @rule(who=who, wanted=filters, order=st.sampled_from([*ORDERS]), descending=st.booleans(),
          page=st.integers(1, 3), size=st.integers(1, 5))  # fmt: skip
    def look(self, who: int, wanted: dict[str, Any], order: str, descending: bool, page: int, size: int) -> None:
        account = self.accounts[who]
        through = sorted(account.wanted(wanted, False), key=ORDERS[order], reverse=descending)
        paging = {"order_by": "-" * descending + order, "page": page, "obj_per_page": size}
        answer = account.user.get("files/", **wanted, **paging).json()
        assert self._ids(answer["items"]) == self._ids(through[(page - 1) * size : page * size])
        assert (answer["total_objects"], answer["total_pages"]) == (len(through), math.ceil(len(through) / size))

    @rule(who=who, wanted=filters)
    def statistics(self, who: int, wanted: dict[str, Any]) -> None:
        account = self.accounts[who]
        self._counts(account, account.user.get("files/stats/", **wanted).json(), account.wanted(wanted, True))

    @staticmethod
    def _ids(items: list[dict[str, Any]]) -> list[int]:
        return [item["id"] for item in items]

    @staticmethod
    def _counts(account: Account, statistics: dict[str, Any], items: list[dict[str, Any]]) -> None:
        for kind, plural in [*PLURALS.items(), (None, "total")]:
            sizes = [item["size"] for item in items if kind in (None, category(item))]
            assert statistics[plural] == {"count": len(sizes), "used": sum(sizes)}, (plural, statistics)
        assert statistics["quota"] == account.quota

    @invariant()
    def everything_agrees(self) -> None:
        for account in self.accounts:
            listed = account.user.items(contexts=ALL, order_by="id", obj_per_page=500)
            seen = ("width", "height", "thumbnail", "thumbnails")  # known once the file was decoded
            for there, item in zip(listed, account.items, strict=True):
                assert {key: there[key] for key in there if key not in seen} == {
                    key: item[key] for key in item if key not in seen
                }
            assert account.user.get("account/quota/").json() == {"quota": account.quota, "used": account.used}
            self._counts(account, account.user.get("files/stats/").json(), account.items)
        known = {item["hashes"]["sha-256"] for account in self.accounts for item in account.items}
        assert self.service.stored_bytes() == len(known)


def test_any_sequence_of_requests(request: pytest.FixtureRequest, start_service: Callable[..., Service]) -> None:
    Requests.service = start_service(WORKERS="2", SMALL_FILE_SIZE=30)
    Requests.admin = Requests.service.user(jid="admin@example.org")
    examples = max(5, request.config.getoption("--rounds") // 5)
    run_state_machine_as_test(
        Requests,
        settings=settings(
            max_examples=examples,
            derandomize=examples < 10,  # the long form looks for new ones
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        ),
    )
    assert "0 for gc, 0 wrong" in Requests.service.cli("fsck", GC_GRACE="0")
