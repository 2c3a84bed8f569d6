"""Slots of XEP-0363: who may upload what, and the address and the token that let them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from media_gallery.accounts import Accounts
from media_gallery.models import Jid
from media_gallery.names import media_url
from media_gallery.offers import new_slot_id
from media_gallery.slot_tokens import VALID, Claims, Purpose, SlotTokens
from media_gallery.uploads import Uploads


@dataclass(frozen=True, slots=True)
class Wanted:
    """A file that somebody wants to upload: its size in bytes, `expires` in seconds since 1970."""

    name: str
    size: int
    media_type: str = ""
    purpose: Purpose = "message"
    expires: int | None = None


@dataclass(frozen=True, slots=True)
class Slots:
    """Gives out slots, of which nothing is kept."""

    accounts: Accounts
    uploads: Uploads
    tokens: SlotTokens
    public_url: str
    clock: Callable[[], int]

    async def give(self, jid: Jid, wanted: Wanted, domains: Sequence[str]) -> tuple[str, str]:
        """The address of a new slot, and the token to put the file there. `domains`: whose users get slots, if not
        those of all that may sign in. Raises Forbidden, and what `Uploads.permit` raises.
        """
        self.accounts.check_allowed(jid, domains)
        await self.uploads.permit(jid.bare, wanted.size)
        now, slot = self.clock() // 1_000_000, new_slot_id()
        claims = Claims(
            sub=jid.bare, slot=slot, filename=wanted.name, filesize=wanted.size, filetype=wanted.media_type, iat=now,
            exp=now + VALID, expires=wanted.expires, purpose=wanted.purpose,
        )  # fmt: skip
        return media_url(self.public_url, slot, wanted.name), await self.tokens.sign(claims)
