"""`PUT /media/SLOT_ID/NAME`: the upload to a slot of XEP-0363, at the address where the file can be fetched later."""

from __future__ import annotations

import re
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

from media_gallery import external_slots, media_types
from media_gallery.errors import (
    BadRequest,
    Forbidden,
    LengthRequired,
    NotFound,
    TooLarge,
    Unauthorized,
)
from media_gallery.http.middleware import PRIVATE
from media_gallery.http.request import Call, chunks, declared_length
from media_gallery.models import SLOT_ID, Account, Jid
from media_gallery.names import clean_name
from media_gallery.offers import Offer
from media_gallery.quantities import LAST
from media_gallery.slot_tokens import Claims

_OTHER_SIZE = "The size is not the one that the slot was asked for"
_SHA1 = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, slots=True)
class Granted:
    """An upload that somebody who gives out slots has permitted: whose file it becomes, and of how many bytes."""

    account: Account
    size: int
    offer: Offer


async def put(call: Call) -> Response:
    """Keep the bytes as they are, also those of an avatar, since clients publish their size and digest.

    The answer is always `201`, since one client takes `200` for a failure. Raises Unauthorized, Forbidden, Conflict,
    TooLarge, BadRequest and what `Uploads.begin` raises. What the head of a request tells is checked before its body is
    read.
    """
    request, uploads = call.request, call.services.uploads
    granted = await _granted(call)
    request.scope["state"]["account"] = granted.account.id
    async with uploads.begin(granted.account, granted.size, granted.size, granted.offer.slot_id) as upload:
        async for chunk in chunks(request, call.services.settings):
            if upload.received.size + len(chunk) > granted.size:
                raise TooLarge(_OTHER_SIZE)
            await upload.write(chunk)
        await upload.finish(granted.offer)
    return Response(None, 201, PRIVATE)


async def _granted(call: Call) -> Granted:
    """Raises Unauthorized, Forbidden, BadRequest, TooLarge, LengthRequired."""
    said = call.request.query_params
    if any(version in said for version in external_slots.VERSIONS):
        return await _by_signature(call)
    if token := call.token or said.get("token") or call.request.path_params.get("before"):
        return await _by_token(call, token)
    raise Unauthorized("A slot's token is required")


async def _by_token(call: Call, token: str) -> Granted:
    path = call.request.path_params
    claims = await call.services.slots.tokens.verify(token, path["slot_id"], path["name"])
    _check_head(call.request, claims)
    account = await call.services.accounts.ensure(Jid.parse(claims.sub))
    offer = Offer(
        name=clean_name(claims.filename),
        size=claims.filesize,
        media_type=claims.filetype or None,
        part_type=call.request.headers.get("content-type"),
        context="avatar" if claims.purpose == "profile" else None,
        slot_id=claims.slot,
        unchanged=True,
        expires_at=_end(call, claims),
    )
    return Granted(account, claims.filesize, offer)


def _check_head(request: Request, claims: Claims) -> None:
    """Raise if the head tells another size or type than those the slot was asked for (XEP-0363, section 3).

    Parameters of a media type do not count; types that say nothing, such as an empty one, do not count, either.
    """
    length = declared_length(request)
    if length is not None and length != claims.filesize:
        raise TooLarge(_OTHER_SIZE)
    types = {media_types.parse(said)[0] for said in (claims.filetype, request.headers.get("content-type", "")) if said}
    if len(types - {None}) > 1:
        raise BadRequest("The media type is not the one that the slot was asked for")


def _end(call: Call, claims: Claims) -> int | None:
    """When the file is to be gone, in microseconds since 1970: as the slot says, and if it is ephemeral, as we do."""
    ends = [] if claims.expires is None else [min(claims.expires, LAST // 1_000_000) * 1_000_000]
    if claims.purpose == "ephemeral":
        ends.append(claims.iat * 1_000_000 + int(call.services.settings.ephemeral_lifetime * 1_000_000))
    return min(ends, default=None)


async def _by_signature(call: Call) -> Granted:
    """A slot of Prosody's `mod_http_upload_external`, or one of ejabberd's, whose path begins with the uploader."""
    request, settings = call.request, call.services.settings
    path, length = request.path_params, declared_length(request)
    if length is None:
        raise LengthRequired
    user, media_type = path.get("before"), request.headers.get("content-type", "")
    secret = settings.prosody_upload_secret if user is None else settings.ejabberd_upload_secret
    parts = [part for part in (user, path["slot_id"], path["name"]) if part is not None]
    external_slots.check(secret.get_secret_value(), "/".join(parts), str(length), media_type, request.query_params)
    if not SLOT_ID.fullmatch(path["slot_id"]):
        raise NotFound
    offer = Offer(
        name=clean_name(path["name"]),
        size=length,
        part_type=media_type or None,
        slot_id=path["slot_id"],
        unchanged=True,
    )
    return Granted(await _owner(call, user), length, offer)


async def _owner(call: Call, user: str | None) -> Account:
    """Whose file it becomes. ejabberd tells the SHA-1 of the uploader's bare JID. Raises Forbidden if nobody does."""
    accounts, owner = call.services.accounts, call.services.settings.prosody_upload_owner
    if user is not None and _SHA1.fullmatch(user):
        return await accounts.ensure_unnamed(user)
    if user is None and owner:
        return await accounts.ensure(Jid.parse(owner))
    raise Forbidden("Nobody says whose file this is")
