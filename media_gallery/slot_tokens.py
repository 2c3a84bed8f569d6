"""The token that permits one upload to one slot: it is signed when the slot is given out, and verified at the upload.

It is a JWT (RFC 7519, HS256) with the claims of Prosody's `mod_http_file_share`, which can sign such tokens if it has
our secret. Nothing of it is stored; a slot takes one file, so a token works once. It is written here, not taken from a
library: there is one algorithm, so a token cannot choose how it is verified; and a library takes ten times as long.
"""

from __future__ import annotations

import hmac
import re
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from typing import Annotated, Literal, get_args

import msgspec

from media_gallery.db import Database
from media_gallery.db.secrets import find_secret, keep_secret
from media_gallery.errors import Forbidden

VALID = 300
"""Seconds for which a token is valid (XEP-0363, section 9, recommends so many)."""
Purpose = Literal["message", "profile", "ephemeral", "permanent"]
"""What a file is for (XEP-0363, section 8)."""
PURPOSES: tuple[Purpose, ...] = get_args(Purpose)
_LONGEST = 8192
"""Characters of a token, at most: a name of 255 bytes and the longest JID need half of them."""
_SHAPE = re.compile(r"([\w-]+)\.([\w-]+)\.([\w-]+)", re.ASCII)
_REFUSED = "The permission for this upload is not valid, or no longer"
Slot = Annotated[str, msgspec.Meta(pattern=r"\A[A-Za-z0-9_-]{22,64}\Z")]
"""A name for an address and a directory that cannot be guessed: 128 bits in base64 are 22 characters."""
Text = Annotated[str, msgspec.Meta(min_length=1)]
Moment = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class Claims(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a token says. `sub`: the uploader's bare JID; `filesize` in bytes; the rest in seconds since 1970.

    `expires`: when the file itself should be deleted, if the client told. `purpose` is ours, Prosody has none.
    """

    sub: Text
    slot: Slot
    filename: Text
    filesize: Annotated[int, msgspec.Meta(gt=0, le=2**63 - 1)]
    filetype: str
    iat: Moment
    exp: Moment
    expires: Moment | None = None
    purpose: Purpose = "message"


class _Header(msgspec.Struct, forbid_unknown_fields=True):
    """A token's header (RFC 7515, section 4). Further fields are refused: they would ask for what we do not support."""

    alg: Literal["HS256"]
    typ: str = "JWT"


_claims, _header = msgspec.json.Decoder(Claims), msgspec.json.Decoder(_Header)


def sign(secret: str, claims: Claims) -> str:
    """The token with these claims."""
    said = f"{_HEADER}.{_encoded(msgspec.json.encode(claims))}"
    return f"{said}.{_signature(secret.encode(), said)}"


def verify(secret: str, token: str, slot: str, name: str, now: int) -> Claims:
    """The claims of a token that is valid for `/media/SLOT/NAME`, both percent-decoded, at `now` (seconds since 1970).

    Raises Forbidden if it is forged, malformed, too late, or for another address.
    """
    parts = _SHAPE.fullmatch(token[: _LONGEST + 1])
    if not parts or len(token) > _LONGEST:
        raise Forbidden(_REFUSED)
    header, payload, signature = parts.groups()
    if not hmac.compare_digest(signature, _signature(secret.encode(), f"{header}.{payload}")):
        raise Forbidden(_REFUSED)
    try:
        _header.decode(_decoded(header))
        claims = _claims.decode(_decoded(payload))
    except ValueError as error:  # the errors of msgspec and base64 are ValueErrors
        raise Forbidden(_REFUSED) from error
    if now >= claims.exp or (claims.slot, claims.filename) != (slot, name):
        raise Forbidden(_REFUSED)
    return claims


def _signature(secret: bytes, said: str) -> str:
    return _encoded(hmac.digest(secret, said.encode(), "sha256"))


def _encoded(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def _decoded(text: str) -> bytes:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


_HEADER = _encoded(b'{"alg":"HS256","typ":"JWT"}')


class SlotTokens:
    """Signs and verifies with the `secret` of the settings, or else with one that the database keeps for all hosts."""

    def __init__(self, db: Database, clock: Callable[[], int], secret: str = "") -> None:
        self.db, self.clock, self._secret = db, clock, secret

    async def sign(self, claims: Claims) -> str:
        """The token with these claims. Raises what the database raises."""
        return sign(await self._find_secret(), claims)

    async def verify(self, token: str, slot: str, name: str) -> Claims:
        """The claims of a token that is valid now for `/media/SLOT/NAME`, percent-decoded. Call it when a request
        begins, since an upload may take longer than its token is valid. Raises Forbidden, and what the database raises.
        """
        return verify(await self._find_secret(), token, slot, name, self.clock() // 1_000_000)

    async def _find_secret(self) -> str:
        if not self._secret:
            new, found = secrets.token_urlsafe(32), await self.db.read(lambda c: find_secret(c, "slots"))
            if found is None:
                found = await self.db.write(lambda c: keep_secret(c, "slots", new))
            self._secret = found
        return self._secret
