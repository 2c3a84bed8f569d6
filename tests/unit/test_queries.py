"""Queries in the event loop over SQLite: they use an index, and do not read more rows if an account has more.

Work is counted in steps of SQLite's virtual machine, not in time, since the steps are the same on every machine.
"""

from __future__ import annotations

import ast
import shutil
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

import media_gallery
from media_gallery import files as files_module
from media_gallery.app import Gallery, assemble, running
from media_gallery.courier import HTTP_AUTH
from media_gallery.db import Connection, Query, sqlite
from media_gallery.db.old_addresses import keep_address
from media_gallery.db.sqlite import SqliteDatabase
from media_gallery.models import CATEGORIES, LINK_ORDERS, AccountId, Caller, Digest, Filter, Jid, Window
from media_gallery.offers import Offer
from media_gallery.settings import Settings
from media_gallery.slot_tokens import Claims
from tests.service import empty_database

SOURCE = Path(media_gallery.__file__).parent
MANY, NEAR, PAGE = 1000, 20, 10
"""Links of the account that has many; links that a list may skip in the loop; links on a page."""
STEPS = 60 * NEAR
"""Steps that one call may take in the loop. It needs some for each link that it skips, thousands for MANY."""


@dataclass
class Seen:
    """What ran in the loop: the places of the calls in our source, the statements, and calls with too many steps."""

    places: set[tuple[str, int]] = field(default_factory=set)
    statements: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    long: list[tuple[int, list[str]]] = field(default_factory=list)


class Watched(SqliteDatabase):
    """The real database, which notes what it runs in the loop."""

    seen = Seen()

    async def read(self, query: Query[Any]) -> Any:
        caller = sys._getframe(1)
        self.seen.places.add((caller.f_code.co_filename, caller.f_lineno))
        steps, run, reader = [0], list[str](), self._reader

        class Noting:
            dialect = reader.dialect

            def __getattr__(self, name: str) -> Any:
                async def call(sql: str, *args: Any) -> Any:
                    Watched.seen.statements[sql] = args
                    run.append(sql)
                    return await getattr(reader, name)(sql, *args)

                return call if name in ("all", "one", "run") else getattr(reader, name)

        reader.raw.set_progress_handler(lambda: steps.__setitem__(0, steps[0] + 10), 10)
        try:
            return await query(Noting())  # type: ignore[arg-type]
        finally:
            reader.raw.set_progress_handler(None, 0)
            if steps[0] > STEPS:
                self.seen.long.append((steps[0], run))


class Mailbox:
    """A courier that keeps the last code."""

    jid, code = "gallery.example.org", ""

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    async def check(self) -> None: ...

    async def send(self, stanza: str) -> None:
        confirm = ET.fromstring(stanza).find(f"{{{HTTP_AUTH}}}confirm")
        assert confirm is not None
        self.code = str(confirm.get("id"))


@pytest.fixture(scope="module")
async def gallery(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gallery]:
    settings = Settings(data_dir=tmp_path_factory.mktemp("queries"), decoders=1)
    shutil.copy(empty_database(), settings.data_dir)
    async with running(assemble(settings, db=Watched(settings.database_path), courier=Mailbox())) as gallery:
        yield gallery


@pytest.fixture(scope="module", autouse=True)
def _near() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files_module, "NEAR", NEAR)
        yield


async def filled(gallery: Gallery, name: str, shares: dict[str, int]) -> Caller:
    """An account with this many links of each category, all to the same bytes, and this many tokens."""
    token = (await gallery.accounts.issue_token(Jid.parse(f"{name}@example.org"), "", "", False)).token
    caller, count = await gallery.accounts.authenticate(token), sum(shares.values())
    types = {"image": "image/png", "video": "video/mp4", "voice": "audio/ogg", "file": "a/b", "avatar": "image/png"}
    kinds = [category for category, share in shares.items() for _ in range(share)]

    async def fill(c: Connection) -> None:
        await c.run("INSERT INTO blobs (sha256, sha1, size, key, links, created_at) VALUES ($1, $2, 0, $1, $3, 1)",
                    name.ljust(64, "0"), name.ljust(40, "0"), count)  # fmt: skip
        row = await c.one("SELECT MAX(id) FROM blobs")
        assert row
        for number, kind in enumerate(kinds):
            await c.run(
                "INSERT INTO links (account_id, blob_id, slot_id, name, folded, size, media_type, context, category,"
                " metadata, thumbnails, created_at) VALUES ($1, $2, $3, 'a', 'a', 0, $4, $5, $6, '{}', TRUE, $7)",
                caller.account, row[0], f"{number:08x}{name.encode().hex()}", types[kind],
                kind if kind in ("voice", "avatar") else "file", kind, number,
            )  # fmt: skip
            await c.run("INSERT INTO tokens (account_id, hash, device, client, admin, created_at, expires)"
                        " VALUES ($1, $2, '', '', FALSE, 1, $3)",
                        caller.account, f"{name}{number}", 2**62)  # fmt: skip
            await c.run("INSERT INTO trash (key, created_at) VALUES ($1, $2)", f"{name}{number}", number)
        for kind, share in shares.items():
            await c.run("INSERT INTO usage VALUES ($1, $2, $3, 0)", caller.account, kind, share)
        await c.run("UPDATE accounts SET files = $2 WHERE id = $1", caller.account, count)

    await gallery.db.write(fill, long=True)
    return caller


async def every_list(gallery: Gallery, account: AccountId) -> None:
    """Each order of each filter for which stored counts exist, and some other filters."""
    kinds = [None, *CATEGORIES, "audio"]
    contexts: list[tuple[Any, ...]] = [(), ("file",), ("avatar",), ("voice", "avatar")]
    for order, falling, kind, context, avatars, page in product(
        LINK_ORDERS, (True, False), kinds, contexts, (True, False), (2, 3)
    ):
        wanted = Filter(type=kind, contexts=context, with_avatars=avatars)
        await gallery.files.list(account, wanted, Window(order, falling, page, PAGE))
    for wanted in (Filter(ids=(1, 2)), Filter(name="a"), Filter(size_gte=0), Filter(since=1, until=10**9)):
        await gallery.files.list(account, wanted, Window("name", True, 1, PAGE))
        await gallery.files.usage(account, wanted)


async def everything_else(gallery: Gallery, caller: Caller, name: str) -> None:
    """All other queries that read in the loop, for an account."""
    files, accounts, uploads, account = gallery.files, gallery.accounts, gallery.uploads, caller.account
    jid, someone = Jid.parse(caller.jid), Jid.parse(f"other-{name}@example.org")
    await files.usage(account, Filter())
    await accounts.get(jid.bare)
    assert (await accounts.ensure(jid)).id == account
    await accounts.list_tokens(account, Window("id", True, 1, 50))
    for algorithm, length, avatar in product(("sha-1", "sha-256"), (40, 64), (True, False)):
        digest = Digest(algorithm, name.ljust(length, "0"))  # type: ignore[arg-type]
        await uploads.slot(caller.record, Offer("a", 0, digest, context="avatar" if avatar else None))
    kept = []
    for slot_id in ("", f"put-{name}"):  # unknown bytes, and known ones
        async with uploads.begin(account, 1, slot_id=slot_id) as upload:
            await upload.write(name.encode())
            kept.append((await upload.finish(Offer("a.txt", slot_id=slot_id))).link)
    await files.find(kept[0].slot_id, "a.txt")
    await gallery.db.write(lambda c: keep_address(c, f"/old/{name}", kept[0].id))
    assert (await files.find_old(f"/old/{name}")).link == kept[0]
    await files.keep_thumbnails(kept[0].blob, {})
    await files.decode(replace(kept[0], media_type="image/png"))
    await files.delete(account, Filter(ids=tuple(link.id for link in kept)))
    await files.delete_oldest(account, 1, False)
    for use in (accounts.sign_in, accounts.delete_with_code):
        await accounts.request_code(someone, "message", "en", "192.0.2.1")
        code = gallery.courier.code  # type: ignore[attr-defined]
        await (use(someone, code, "", "", "192.0.2.1") if use == accounts.sign_in else use(someone, code, "192.0.2.1"))  # type: ignore[call-arg]
    for owner in (caller.jid, f"nobody-{name}@example.org"):
        await uploads.permit(owner, 1)
    await gallery.slots.tokens.sign(
        Claims(sub=caller.jid, slot="a" * 22, filename="a", filesize=1, filetype="", iat=1, exp=2)
    )
    await gallery.maintenance.tidy()


@pytest.fixture(scope="module")
async def seen(gallery: Gallery) -> Seen:
    """What ran in the loop for three accounts that have many files of different kinds."""
    for name, shares in (
        ("even", dict.fromkeys(map(str, CATEGORIES), MANY // 5)),
        ("avatars", {"avatar": MANY, "video": 2}),
        ("videos", {"video": MANY, "voice": 2}),
    ):
        caller = await filled(gallery, name, shares)
        await every_list(gallery, caller.account)
        await everything_else(gallery, caller, name)
    await gallery.maintenance.fsck()
    return Watched.seen


def test_nothing_in_the_loop_grows_with_what_an_account_has(seen: Seen) -> None:
    assert not seen.long, "\n".join(map(str, seen.long[:20]))


async def test_every_statement_of_the_loop_has_an_index(gallery: Gallery, seen: Seen) -> None:
    async def explain(c: Connection) -> dict[str, list[str]]:
        return {
            sql: [str(row[3]) for row in await c.all(f"EXPLAIN QUERY PLAN {sql}", *args)]
            for sql, args in seen.statements.items()
        }

    plans = await gallery.db.scan(explain)
    assert len(plans) > 20
    for sql, plan in plans.items():
        assert not [step for step in plan if step.startswith("SCAN") and step != "SCAN CONSTANT ROW"], (sql, plan)


def test_all_that_is_ever_read_in_the_loop_was_seen(seen: Seen) -> None:
    calls = [
        (str(path), range(node.lineno, (node.end_lineno or 0) + 1))
        for path in SOURCE.rglob("*.py")
        if path.parent.name != "db"  # which moves whole databases
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("db.read")
    ]
    assert len(calls) > 10
    unseen = [(path, lines.start) for path, lines in calls if not seen.places & {(path, line) for line in lines}]
    assert not unseen


async def test_any_number_of_ids_is_the_same_statement(gallery: Gallery, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each connection prepares and keeps every different text of a statement."""
    caller, texts, of_sizes = await filled(gallery, "ids", {"file": 60}), set[str](), list[set[str]]()
    numbered = sqlite._numbered.__wrapped__

    def noting(sql: str) -> str:
        texts.add(sql)
        return numbered(sql)

    monkeypatch.setattr(sqlite, "_numbered", noting)
    for size in (1, 2, 7, 40):
        texts.clear()
        window = Window("id", True, 1, size)
        ids = tuple(item.id for item in (await gallery.files.list(caller.account, Filter(), window)).items)
        await gallery.files.list(caller.account, Filter(ids=ids), window)
        await gallery.files.usage(caller.account, Filter(ids=ids))
        assert await gallery.files.delete(caller.account, Filter(ids=ids)) == size
        await gallery.maintenance._needed([f"ids{number}" for number in range(size)])
        await gallery.maintenance._known([f"ids{number}" for number in range(size)])
        await gallery.maintenance._empty([f"ids{number}" for number in range(size)])
        of_sizes.append({sql for sql in texts if "tokens" not in sql})  # the last use of tokens is noted meanwhile
    assert all(len(texts) > 8 and texts == of_sizes[0] for texts in of_sizes)
