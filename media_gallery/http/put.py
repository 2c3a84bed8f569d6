"""`PUT /media/SLOT_ID/NAME`: the upload to a slot of XEP-0363, at the address where the file can be fetched later."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from media_gallery import media_types
from media_gallery.errors import BadRequest, TooLarge, Unauthorized
from media_gallery.http.middleware import PRIVATE
from media_gallery.http.request import Call, chunks
from media_gallery.models import Jid
from media_gallery.names import clean_name
from media_gallery.offers import Offer
from media_gallery.quantities import LAST
from media_gallery.slot_tokens import Claims


async def put(call: Call) -> Response:
    """Keep the bytes as they are, also those of an avatar, since clients publish their size and digest.

    The answer is always `201`, since one client takes `200` for a failure. Raises Unauthorized, Forbidden, Conflict,
    TooLarge, BadRequest and what `Uploads.begin` raises. What the head of a request tells is checked before its body is
    read.
    """
    request, path = call.request, call.request.path_params
    token = call.token or request.query_params.get("token")
    if not token:
        raise Unauthorized("A slot's token is required")
    claims = await call.services.slot_tokens.verify(token, path["slot_id"], path["name"])
    _check_head(request, claims)
    account = await call.services.accounts.ensure(Jid.parse(claims.sub))
    request.scope["state"]["account"] = account
    size = claims.filesize
    async with call.services.uploads.begin(account, size, size, claims.slot) as upload:
        async for chunk in chunks(request, call.services.settings):
            if upload.received.size + len(chunk) > size:
                raise TooLarge(_OTHER_SIZE)
            await upload.write(chunk)
        await upload.finish(_offer(call, claims))
    return Response(None, 201, PRIVATE)


_OTHER_SIZE = "The size is not the one that the slot was asked for"


def _check_head(request: Request, claims: Claims) -> None:
    """Raise if the head tells another size or type than those the slot was asked for (XEP-0363, section 3).

    Parameters of a media type do not count; types that say nothing, such as an empty one, do not count, either.
    """
    if "transfer-encoding" not in request.headers and request.headers.get("content-length", "0") != str(
        claims.filesize
    ):
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


def _offer(call: Call, claims: Claims) -> Offer:
    request = call.request
    return Offer(
        name=clean_name(claims.filename),
        size=claims.filesize,
        media_type=claims.filetype or None,
        part_type=request.headers.get("content-type"),
        context="avatar" if claims.purpose == "profile" else None,
        slot_id=claims.slot,
        unchanged=True,
        expires_at=_end(call, claims),
    )
