"""Who may use the service: one-time codes, tokens, quotas, and the end of an account."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

import structlog

from media_gallery import metrics
from media_gallery.courier import Courier, code_iq, code_message
from media_gallery.db import Connection, Database
from media_gallery.db import accounts as queries
from media_gallery.db.accounts import NewToken, Token
from media_gallery.db.upkeep import Totals, count_all
from media_gallery.errors import (
    BadRequest,
    Forbidden,
    GalleryError,
    NotFound,
    TooManyRequests,
    Unauthorized,
    Unavailable,
)
from media_gallery.files import Files, only_logged
from media_gallery.models import Account, AccountId, Caller, Jid, Page, Quota, Window, account_name
from media_gallery.policy import Policy
from media_gallery.rates import Rates, place_of
from media_gallery.settings import Settings

log = structlog.get_logger()
TOUCH = 300 * 1_000_000
"""Microseconds after which the last use of a token is noted again."""
_SIGNED_IN, _ASKED, _VOIDED, _PAUSED = "signed-in", "asked", "voided", "paused"
"""What `Rates` remembers of a JID at a client address."""
_DAY = 86400
_AT_HOME = 90 * 86400
"""Seconds for which it is remembered that a JID has signed in at an address."""
_KEPT_OUT = "This JID is not allowed here"
_WRONG_CODE = "The code is wrong or has expired"
_BODIES = {
    "en": "{code} is your code to open the media gallery. Do not give it to anybody.",
    "ru": "{code} — ваш код для входа в медиагалерею. Никому его не сообщайте.",
}


@dataclass(frozen=True, slots=True)
class Issued:
    """A new token, which is shown this once; `expires` in microseconds."""

    token: str
    expires: int


@dataclass(eq=False, kw_only=True)
class Accounts:
    """Sign-in and the life of accounts. Times in microseconds since 1970, sizes in bytes."""

    db: Database
    files: Files
    courier: Courier
    rates: Rates
    policy: Policy
    clock: Callable[[], int]
    settings: Settings

    def __post_init__(self) -> None:
        self._touching: dict[int, asyncio.Task[None]] = {}
        self.closed_before: dict[AccountId, int] = {}
        """Accounts that were being deleted at the last look, and how many files each still had."""

    # --- Signing in ---

    async def request_code(
        self, jid: Jid, stanza_type: Literal["message", "iq"], language: str, address: str, holder: bool = False
    ) -> tuple[str, str]:
        """Send a one-time code over XMPP; return the stanza's id and our JID. `holder`: the caller has a token of this
        account.

        Only codes that were sent count. Raises Forbidden, TooManyRequests, BadRequest (an `iq` needs a full JID),
        Unavailable (no XMPP connection).
        """
        if stanza_type == "iq" and not jid.resource:
            raise BadRequest("An iq needs a full JID", fields={"jid": "must have a resource for type iq"})
        self.check_allowed(jid)
        await self.courier.check()  # a host without a connection counts nothing: another one is asked
        code, request_id = f"{secrets.randbelow(10**6):06d}", secrets.token_urlsafe(16)
        url = f"{self.settings.public_url}/api/v1/account/xmpp_auth/"
        if stanza_type == "iq":
            stanza = code_iq(str(jid), request_id, code, url)
        else:
            body = _BODIES.get(language, _BODIES["en"]).format(code=code)
            stanza = code_message(str(jid), request_id, code, url, body, language if language in _BODIES else "en")
        place = self._place(address)
        async with self.rates.counting(*await self._limits(jid, place, holder)):
            await self.rates.remember(_ASKED, f"{jid.bare} {place}", self.settings.code_lifetime)
            await self._send(jid, code, stanza)
        return request_id, self.courier.jid

    def _place(self, address: str) -> str:
        return place_of(address, self.settings.rate_ipv6_prefix)

    async def _limits(self, jid: Jid, place: str, holder: bool) -> list[tuple[str, str, str]]:
        """The limits that a request for a code counts against: the owner has limits apart from strangers.

        Raises TooManyRequests if codes were guessed at from this address.
        """
        settings, here = self.settings, f"{jid.bare} {place}"
        if holder:
            return [("code-request-jid", settings.rate_code_request_jid, f"{jid.bare} token")]
        if (pause := await self.rates.left(_PAUSED, here)) > 0:
            raise TooManyRequests(retry_after=int(pause) + 1)
        from_here = ("code-request-address", settings.rate_code_request_address, place)
        if await self.rates.knows(_SIGNED_IN, await self._home(jid, place)):
            return [from_here, ("code-request-jid", settings.rate_code_request_jid, here)]
        both = ("code-request-jid-address", settings.rate_code_request_jid_address, here)
        return [from_here, both, ("code-request-jid", settings.rate_code_request_jid, jid.bare)]

    async def _send(self, jid: Jid, code: str, stanza: str) -> None:
        hashed = await _hash_code(jid.bare, code)
        expires = self.clock() + int(self.settings.code_lifetime * 1_000_000)
        # Kept before it is sent, since the client may use it before our answer reaches the client.
        await self.db.write(lambda c: queries.insert_code(c, jid.bare, hashed, expires))
        try:
            await self.courier.send(stanza)
        except Unavailable:
            metrics.codes.labels("unsent").inc()
            await self.db.write(lambda c: queries.delete_code(c, jid.bare, hashed))
            raise
        metrics.codes.labels("sent").inc()

    def check_allowed(self, jid: Jid, domains: Sequence[str] = ()) -> None:
        """Raise Forbidden if a JID may not use the service; `domains`, if given, replaces `ALLOWED_DOMAINS`."""
        settings = self.settings
        if jid.bare in settings.denied_jids or not jid.local:
            raise Forbidden(_KEPT_OUT)
        if jid.bare in settings.allowed_jids:
            return
        allowed = domains or settings.allowed_domains
        if jid.domain in settings.denied_domains or (allowed and jid.domain not in allowed):
            raise Forbidden(_KEPT_OUT)

    async def sign_in(self, jid: Jid, code: str, device: str, client: str, address: str) -> Issued:
        """Exchange a one-time code for a token. Raises NotFound for a wrong, used or expired code, TooManyRequests."""
        await self._use_code(jid, code, address)
        issued = await self.issue_token(jid, device, client, admin=False)
        with only_logged("place of a sign-in not remembered"):
            await self.rates.remember(_SIGNED_IN, await self._home(jid, self._place(address)), _AT_HOME)
        return issued

    async def _home(self, jid: Jid, place: str) -> str:
        """A key for a JID's account at an address; a later account of the same JID has another key."""
        account = await self.db.read(lambda c: queries.find_account(c, jid.bare))
        return f"{jid.bare} {account.created_at if account else 0} {place}"

    async def _use_code(self, jid: Jid, code: str, address: str) -> None:
        """Raise NotFound unless the code is right, and use it up.

        Addresses that neither asked for a code of this JID nor signed in to it can use up neither its rate nor all
        tries of a code, since that would keep the owner out.
        """
        self.check_allowed(jid)
        place = self._place(address)
        here = f"{jid.bare} {place}"
        home = await self._home(jid, place)
        known = await self.rates.knows(_SIGNED_IN, home) | await self.rates.knows(_ASKED, here)
        tries = self.settings.code_tries if known else max(1, self.settings.code_tries * 2 // 5)
        async with self.rates.counting(
            ("code-try-address", self.settings.rate_code_try_address, place),
            ("code-try-jid", self.settings.rate_code_try_jid, here if known else jid.bare),
        ):
            hashed, now = await _hash_code(jid.bare, code), self.clock()
            good, tried = await self.db.write(lambda c: queries.take_code(c, jid.bare, hashed, now, tries))
        metrics.codes.labels("used" if good else "refused").inc()
        if not good:
            if tried >= self.settings.code_tries:
                await self._pause(here)
            # Only an address that asked for a code learns of it, since others shall not learn that there is one.
            if known and tried:
                raise NotFound(_WRONG_CODE, tries_left=max(0, tries - tried))
            raise NotFound(_WRONG_CODE)

    async def _pause(self, here: str) -> None:
        """Refuse new codes at an address that made one void: for a while, and each time for twice as long."""
        times = await self.rates.again(_VOIDED, here, _DAY)
        pause = self.settings.code_pause * 2.0 ** min(times - 1, 20)
        if pause:
            await self.rates.remember(_PAUSED, here, min(pause, _DAY))

    async def issue_token(self, jid: Jid, device: str, client: str, admin: bool) -> Issued:
        """A new token for a JID; its account is made if there is none."""
        token, now = secrets.token_urlsafe(32), self.clock()
        expires = now + int(self.settings.token_lifetime * 1_000_000)
        new = NewToken(device, client, admin, now, expires)

        async def transaction(c: Connection) -> None:
            account = await queries.ensure_account(c, jid.bare, jid.domain, now)
            await queries.insert_token(c, account.id, _hash_token(token), new)

        await self.db.write(transaction)
        return Issued(token, expires)

    async def authenticate(self, token: str) -> Caller:
        """Who calls with this token. Raises Unauthorized."""
        now = self.clock()
        found = await self.db.read(lambda c: queries.find_caller(c, _hash_token(token), now))
        if found is None:
            raise Unauthorized
        caller, last_used = found
        if (last_used is None or now - last_used > TOUCH) and caller.token_id not in self._touching:
            # Nobody waits for this or fails with it: reading goes on even if nothing can be written.
            task = self._touching[caller.token_id] = asyncio.create_task(self._touch(caller.token_id, now))
            task.add_done_callback(lambda _: self._touching.pop(caller.token_id))
        return caller

    async def _touch(self, token_id: int, now: int) -> None:
        with suppress(GalleryError):
            await self.db.write(lambda c: queries.touch_token(c, token_id, now))

    def is_admin(self, caller: Caller) -> bool:
        return caller.admin or caller.jid in self.settings.admins

    def check_admin(self, caller: Caller) -> None:
        """Raises Forbidden."""
        if not self.is_admin(caller):
            raise Forbidden("Only an administrator may do this")

    # --- Tokens ---

    async def list_tokens(self, account: AccountId, window: Window) -> Page[Token]:
        """A page of the account's valid tokens, the newest first."""
        return await self.db.scan(lambda c: queries.list_tokens(c, account, self.clock(), window))

    async def revoke_token(self, account: AccountId, token_id: int) -> None:
        """Raises NotFound."""
        if not await self.db.write(lambda c: queries.delete_token(c, account, token_id), frees=True):
            raise NotFound("There is no such token")

    async def ensure(self, jid: Jid) -> Account:
        """The account of a JID that has been proven elsewhere; it is made if there is none."""
        found, now = await self.db.read(lambda c: queries.find_account(c, jid.bare)), self.clock()
        if found is not None:
            return found
        return await self.db.write(lambda c: queries.ensure_account(c, jid.bare, jid.domain, now))

    async def ensure_unnamed(self, jid_sha1: str) -> Account:
        """The account of a bare JID of which only the SHA-1 is known, in hex; it is made if there is none, and its
        owner's from the first sign-in on.
        """
        return await self.db.write(lambda c: queries.ensure_unnamed(c, jid_sha1, self.clock()))

    # --- Quota ---

    async def asked(self, caller: Caller, name: str | None) -> Account:
        """The account that a call is about: the caller's own, unless an administrator names another (`account_name`).
        Raises Forbidden, NotFound, BadRequest.
        """
        if not name or account_name(name) == caller.jid:
            return caller.record
        self.check_admin(caller)
        return await self.get(name)

    async def get(self, name: str) -> Account:
        """The account of this name (`account_name`). Raises NotFound, BadRequest."""
        kept = account_name(name)
        account = await self.db.read(lambda c: queries.find_account(c, kept))
        if account is None:
            raise NotFound("There is no such account")
        return account

    def quota_of(self, account: Account) -> Quota:
        return self.policy.quota(account)

    async def set_quota(self, name: str, quota: int | None) -> Account:
        """Give the account of this name a quota of its own, or the default one again. Raises NotFound, BadRequest."""
        kept = account_name(name)
        account = await self.db.write(lambda c: queries.set_quota(c, kept, quota))
        if account is None:
            raise NotFound("There is no such account")
        return account

    async def list(self, vhost: str | None, search: str | None, window: Window) -> Page[Account]:
        """A page of all accounts, or of a domain's, or of those whose JID contains a text, ordered by one of
        ACCOUNT_ORDERS.
        """
        return await self.db.scan(lambda c: queries.list_accounts(c, vhost, search, window, self.policy.default.size))

    async def totals(self) -> Totals:
        return await self.db.scan(count_all)

    # --- The end ---

    async def delete_with_code(self, jid: Jid, code: str, address: str) -> None:
        """Delete the account of a JID, proven by a one-time code. Raises NotFound for a wrong code."""
        await self._use_code(jid, code, address)
        account = await self.db.read(lambda c: queries.find_account(c, jid.bare))
        if account is not None:
            await self.delete(account.id)

    async def inspect(self, name: str, by: Caller) -> Account:
        """The account whose files an administrator is about to see, which is logged. Raises Forbidden, NotFound,
        BadRequest.
        """
        if not self.settings.admins_see_files:
            raise Forbidden("Administrators may not see the files of others here")
        account = await self.get(name)
        log.warning("an administrator sees an account's files", jid=account.jid, by=by.jid)
        return account

    async def remove(self, name: str, by: Caller) -> None:
        """Delete an account for an administrator, which is logged. Raises NotFound, BadRequest."""
        account = await self.get(name)
        log.warning("an administrator deletes an account", account=account.id, by=by.account)
        await self.delete(account.id)

    async def delete(self, account: AccountId) -> None:
        """Remove an account: its tokens at once, then all it has stored."""
        await self.db.write(lambda c: queries.close_account(c, account), frees=True)
        with only_logged("account not emptied yet", account=account):
            await self.finish_closing(account)

    async def finish_closing(self, account: AccountId) -> None:
        """Remove what is left of a closed account, also if a crash stopped this before."""
        await self.files.delete_all(account)
        await self.db.write(lambda c: queries.remove_closed(c, account), frees=True)

    async def finish_all_closing(self, at_once: bool) -> int:
        """Finish closed accounts; how many.

        Unless `at_once`, only those that have not shrunk since the last time: a request is still emptying the others.
        """
        closed, before = await self.db.read(queries.list_closed), self.closed_before
        self.closed_before = closed
        left = [account for account, files in closed.items() if at_once or before.get(account) == files]
        for account in left:
            await self.finish_closing(account)
        return len(left)


def _hash_token(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()  # 256 random bits need no slow hash


async def _hash_code(jid: str, code: str) -> str:
    """A slow hash, since a code has few digits: who reads the database cannot find the code while it is valid."""
    work = hashlib.scrypt
    return (await asyncio.to_thread(work, code.encode(), salt=jid.encode(), n=2**13, r=8, p=1, dklen=32)).hex()
