"""Queries on accounts, what they have, their tokens and the one-time codes."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass

from media_gallery.db import Connection, Row
from media_gallery.db.filters import like
from media_gallery.models import ACCOUNT_ORDERS, Account, AccountId, Caller, Category, Page, Window

_ACCOUNT = "id, jid, quota, used, files, created_at"


@dataclass(frozen=True, slots=True)
class NewToken:
    """What is stored of a bearer token beside its hash; times in microseconds."""

    device: str
    client: str
    admin: bool
    created_at: int
    expires: int


@dataclass(frozen=True, slots=True)
class Token(NewToken):
    """A bearer token as its owner is shown it. The token itself is stored nowhere."""

    id: int
    last_used: int | None


def _account(row: Row) -> Account:
    id_, jid, quota, used, files, created_at = row
    return Account(id_, jid, quota, used, files, created_at)


def _token(row: Row) -> Token:
    id_, device, client, admin, created_at, expires, last_used = row
    return Token(device, client, bool(admin), created_at, expires, id_, last_used)


# --- Accounts ----------------------------------------------------------------------------------------------------


async def find_account(c: Connection, jid: str) -> Account | None:
    row = await c.one(f"SELECT {_ACCOUNT} FROM accounts WHERE jid = $1", jid)
    return _account(row) if row else None


async def find_account_by_sha1(c: Connection, jid_sha1: str) -> Account | None:
    """The account of a bare JID with this digest, in hex."""
    row = await c.one(f"SELECT {_ACCOUNT} FROM accounts WHERE jid_sha1 = $1", jid_sha1)
    return _account(row) if row else None


async def find_account_by_id(c: Connection, account: AccountId) -> Account | None:
    row = await c.one(f"SELECT {_ACCOUNT} FROM accounts WHERE id = $1 AND jid IS NOT NULL", account)
    return _account(row) if row else None


async def ensure_account(c: Connection, jid: str, vhost: str, now: int) -> Account:
    """The account of a bare JID, made if there is none. One that was made for its digest alone gets its name."""
    row = await c.one(
        "INSERT INTO accounts (jid, vhost, created_at, jid_sha1) VALUES ($1, $2, $3, $4)"
        f" ON CONFLICT (jid_sha1) DO UPDATE SET jid = excluded.jid, vhost = excluded.vhost RETURNING {_ACCOUNT}",
        jid, vhost, now, digest_of(jid),
    )  # fmt: skip
    assert row
    return _account(row)


def digest_of(jid: str) -> str:
    """How accounts are named by digest, in hex."""
    return hashlib.sha1(jid.encode()).hexdigest()  # noqa: S324, it names an account to ejabberd, and guards nothing


def unnamed(jid_sha1: str) -> str:
    """How an account is called of whose JID only the digest is known."""
    return f"sha1:{jid_sha1}"


async def ensure_unnamed(c: Connection, jid_sha1: str, now: int) -> Account:
    """The account of a bare JID of which only the digest is known, in hex; made if there is none. Until its owner signs
    in, it is called by that.
    """
    row = await c.one(
        "INSERT INTO accounts (jid, vhost, created_at, jid_sha1) VALUES ($1, '', $2, $3)"
        f" ON CONFLICT (jid_sha1) DO UPDATE SET jid_sha1 = excluded.jid_sha1 RETURNING {_ACCOUNT}",
        unnamed(jid_sha1), now, jid_sha1,
    )  # fmt: skip
    assert row
    return _account(row)


async def set_quota(c: Connection, jid: str, quota: int | None) -> Account | None:
    row = await c.one(f"UPDATE accounts SET quota = $2 WHERE jid = $1 RETURNING {_ACCOUNT}", jid, quota)
    return _account(row) if row else None


# --- What an account has --------------------------------------------------------------------------------------------


async def add_file(c: Connection, account: AccountId, size: int, category: Category) -> Account | None:
    """Count one more file; the account after it, None if it was deleted. Others wait until the transaction ends."""
    row = await c.one(
        "UPDATE accounts SET used = used + $2, files = files + 1 WHERE id = $1 AND jid IS NOT NULL"
        f" RETURNING {_ACCOUNT}",
        account, size,
    )  # fmt: skip
    if row is not None:
        await add_usage(c, account, category, 1, size)
    return _account(row) if row else None


async def add_usage(c: Connection, account: AccountId, category: Category, files: int, size: int) -> None:
    """Add files and bytes to the counts of a category; numbers below 0 take them away."""
    await c.run(
        "INSERT INTO usage (account_id, category, files, used) VALUES ($1, $2, $3, $4)"
        " ON CONFLICT (account_id, category) DO UPDATE SET"
        " files = usage.files + excluded.files, used = usage.used + excluded.used",
        account, category, files, size,
    )  # fmt: skip


async def find_awaited_size(c: Connection, account: AccountId, now: int) -> int | None:
    """Bytes of the largest slot hit whose upload may still come."""
    row = await c.one("SELECT MAX(size) FROM links WHERE account_id = $1 AND awaited_until > $2", account, now)
    return row[0] if row else None


# --- Lists and the end ------------------------------------------------------------------------------------------------


async def list_accounts(
    c: Connection, vhost: str | None, search: str | None, window: Window, common: int
) -> Page[Account]:
    """A page of accounts, ordered by one of ACCOUNT_ORDERS; `search`: a part of the JID; `common`: the quota of those
    without their own.
    """
    columns = {order: order for order in ACCOUNT_ORDERS} | {"quota": "COALESCE(quota, $5)"}
    where = (
        "jid IS NOT NULL AND (CAST($1 AS TEXT) IS NULL OR vhost = $1)"
        " AND (CAST($2 AS TEXT) IS NULL OR jid LIKE $2 ESCAPE '\\')"
    )
    contained = f"%{like(search.lower())}%" if search else None  # a JID is kept in lower case
    total = await c.one(f"SELECT COUNT(*) FROM accounts WHERE {where}", vhost, contained)
    rows = await c.all(
        f"SELECT {_ACCOUNT} FROM accounts WHERE {where} AND CAST($5 AS BIGINT) >= 0"
        f" ORDER BY {columns[window.order]} {window.direction}, id {window.direction} LIMIT $3 OFFSET $4",
        vhost, contained, window.size, window.before, common,
    )  # fmt: skip
    assert total
    return Page([_account(row) for row in rows], total[0], window)


async def close_account(c: Connection, account: AccountId) -> bool:
    """Take the JID and the tokens from an account: nobody can use it any more, and the JID is free again."""
    row = await c.one("SELECT jid FROM accounts WHERE id = $1 AND jid IS NOT NULL", account)
    if row is None:
        return False
    await c.run("DELETE FROM codes WHERE jid = $1", row[0])
    await c.run("DELETE FROM tokens WHERE account_id = $1", account)
    await c.run("UPDATE accounts SET jid = NULL, jid_sha1 = NULL WHERE id = $1", account)
    return True


async def list_closed(c: Connection) -> dict[AccountId, int]:
    """Closed accounts, and how many files each still has."""
    return {
        AccountId(row[0]): row[1] for row in await c.all("SELECT id, files FROM accounts WHERE jid IS NULL LIMIT 1000")
    }


async def remove_closed(c: Connection, account: AccountId) -> None:
    """Remove a closed account that has no links any more."""
    await c.run(
        "DELETE FROM accounts WHERE id = $1 AND jid IS NULL AND NOT EXISTS (SELECT 1 FROM links WHERE account_id = $1)",
        account,
    )


# --- Tokens ------------------------------------------------------------------------------------------------------


async def insert_token(c: Connection, account: AccountId, hashed: str, new: NewToken) -> None:
    await c.run(
        "INSERT INTO tokens (account_id, hash, device, client, admin, created_at, expires)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7)",
        account, hashed, new.device, new.client, new.admin, new.created_at, new.expires,
    )  # fmt: skip


async def find_caller(c: Connection, hashed: str, now: int) -> tuple[Caller, int | None] | None:
    """Whose valid token this is, and when it was last used."""
    row = await c.one(
        "SELECT t.id, t.admin, t.last_used, a.id, a.jid, a.quota, a.used, a.files, a.created_at"
        " FROM tokens t JOIN accounts a ON a.id = t.account_id"
        " WHERE t.hash = $1 AND t.expires > $2 AND a.jid IS NOT NULL",
        hashed, now,
    )  # fmt: skip
    if row is None:
        return None
    token_id, admin, last_used, *account = row
    return Caller(_account(account), token_id, bool(admin)), last_used


async def touch_token(c: Connection, token_id: int, now: int) -> None:
    await c.run("UPDATE tokens SET last_used = $2 WHERE id = $1", token_id, now)


async def list_tokens(c: Connection, account: AccountId, now: int, window: Window) -> Page[Token]:
    where = "account_id = $1 AND expires > $2"
    total = await c.one(f"SELECT COUNT(*) FROM tokens WHERE {where}", account, now)
    rows = await c.all(
        "SELECT id, device, client, admin, created_at, expires, last_used FROM tokens"
        f" WHERE {where} ORDER BY id DESC LIMIT $3 OFFSET $4",
        account, now, window.size, window.before,
    )  # fmt: skip
    assert total
    return Page([_token(row) for row in rows], total[0], window)


async def delete_token(c: Connection, account: AccountId, token_id: int) -> bool:
    return await c.run("DELETE FROM tokens WHERE account_id = $1 AND id = $2", account, token_id) > 0


# --- Codes -------------------------------------------------------------------------------------------------------


async def insert_code(c: Connection, jid: str, hashed: str, expires: int) -> None:
    await c.run("INSERT INTO codes (jid, hash, expires) VALUES ($1, $2, $3)", jid, hashed, expires)


async def delete_code(c: Connection, jid: str, hashed: str) -> None:
    await c.run("DELETE FROM codes WHERE jid = $1 AND hash = $2", jid, hashed)


async def take_code(c: Connection, jid: str, hashed: str, now: int, tries: int) -> tuple[bool, int]:
    """Use up the code: true once, and only before it has expired or had `tries` wrong tries. The second value, for a
    wrong code: the most wrong tries that any code of the JID has now.

    A wrong try counts against every valid code of the JID, since it may have been meant for any of them.
    """
    rows = await c.all(  # counts before it compares: simultaneous tries cannot exceed the limit
        "UPDATE codes SET tries = tries + 1 WHERE jid = $1 AND expires > $2 AND tries < $3 RETURNING id, hash, tries",
        jid, now, tries,
    )  # fmt: skip
    good = next((code_id for code_id, kept, _ in rows if hmac.compare_digest(kept, hashed)), None)
    if good is None:
        return False, max((tried for _, _, tried in rows), default=0)
    await c.run("DELETE FROM codes WHERE id = $1", good)
    for code_id, _, _ in rows:  # only those that were counted: a void code stays void
        await c.run("UPDATE codes SET tries = tries - 1 WHERE id = $1", code_id)
    return True, 0


async def delete_expired(c: Connection, now: int) -> int:
    """Remove codes and tokens past their time; how many."""
    codes = await c.run("DELETE FROM codes WHERE expires <= $1", now)
    return codes + await c.run("DELETE FROM tokens WHERE expires <= $1", now)
