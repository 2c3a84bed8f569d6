"""What an account may have, and whether there is room for one more file."""

from __future__ import annotations

from dataclasses import dataclass

from media_gallery.db import Connection
from media_gallery.db import accounts as queries
from media_gallery.errors import QuotaExceeded, TooManyFiles, Unauthorized
from media_gallery.models import Account, AccountId, Category, Quota


@dataclass(frozen=True, slots=True)
class Allowance:
    """The most that an account may have: bytes, and files of any size."""

    size: int
    files: int


class Policy:
    """Tells what an account may have. Methods that take a connection are part of the caller's transaction."""

    def __init__(self, default: Allowance) -> None:
        self.default = default

    def allowance(self, account: Account) -> Allowance:
        """What an account may have: its own limit, if it has one, else the default. Limits of domains and of groups
        would belong between the two.
        """
        size = self.default.size if account.quota is None else account.quota
        return Allowance(size, self.default.files)

    def quota(self, account: Account) -> Quota:
        return Quota(self.allowance(account).size, account.used)

    def room(self, account: Account, size: int) -> Quota | None:
        """The quota, if the account has room for one more file of `size` bytes; if not, `check_room` tells why."""
        quota = self.quota(account)
        return quota if size <= quota.left and account.files < self.allowance(account).files else None

    async def get_quota(self, c: Connection, account: AccountId) -> Quota:
        """Raises Unauthorized if the account was deleted since the request began."""
        return self.quota(await _get(c, account))

    async def check_room(
        self, c: Connection, account: AccountId | str, size: int, whole: int = 0, now: int = 0
    ) -> Quota:
        """The quota before one more file of `size` bytes. Raises what `charge` would raise if there is no room for it.

        `whole`: the size that a refusal names, if `size` is only the least that the file may have. `now`: the file may
        take over the link of a slot hit, which is counted already; then `used` is without it. `account` may be a bare
        JID, whose account is made with this file.
        """
        found = await _get(c, account) if isinstance(account, int) else await _get_or_new(c, account)
        quota, full, counted = self.quota(found), found.files >= self.allowance(found).files, None
        if now and (full or size > quota.left):
            counted = await queries.find_awaited_size(c, found.id, now)
        _check(quota, size - (counted or 0), max(size, whole), full and counted is None)
        return Quota(quota.limit, quota.used - (counted or 0))

    async def charge(
        self, c: Connection, account: AccountId, size: int, category: Category, limited: bool = True
    ) -> Quota:
        """Count one more file; the quota after it. Raises QuotaExceeded, TooManyFiles or Unauthorized: then the
        transaction must not be committed. It counts before it checks, so that two files at once cannot both take the
        last room. Only if not `limited` an account may have more than its limits allow.
        """
        found = await queries.add_file(c, account, size, category)
        if found is None:
            raise Unauthorized
        quota = self.quota(found)
        if limited:
            _check(Quota(quota.limit, quota.used - size), size, size, found.files > self.allowance(found).files)
        return quota


async def _get(c: Connection, account: AccountId) -> Account:
    found = await queries.find_account_by_id(c, account)
    if found is None:
        raise Unauthorized
    return found


async def _get_or_new(c: Connection, jid: str) -> Account:
    """The account of a bare JID; if there is none, what a new one would be."""
    return await queries.find_account(c, jid) or Account(AccountId(0), jid, None, 0, 0, 0)


def _check(quota: Quota, added: int, required: int, full: bool) -> None:
    if added > quota.left:
        raise QuotaExceeded(quota=quota.limit, used=quota.used, required=required)
    if full:
        raise TooManyFiles
