"""`/slots/SECRET`: slots of XEP-0363 for an XMPP server that asks over HTTP, which is ejabberd with `service_url`."""

from __future__ import annotations

import hmac
from typing import Annotated
from urllib.parse import unquote

import msgspec
from msgspec import Meta
from starlette.responses import Response

from media_gallery.errors import LimitReached, NoSpace, NotFound, QuotaExceeded, TooManyFiles, TooManyRequests
from media_gallery.http.middleware import PRIVATE
from media_gallery.http.parameters import Text
from media_gallery.http.request import Call, read_parameters
from media_gallery.models import Jid
from media_gallery.names import clean_name
from media_gallery.slots import Wanted


class SlotQuery(msgspec.Struct):
    """What ejabberd's `mod_http_upload` asks at its `service_url`."""

    jid: Text
    name: Text
    size: Annotated[int, Meta(ge=1, le=2**63 - 1)]
    content_type: Text = ""


async def give(call: Call) -> Response:
    """A slot for an ejabberd that asks for its users: the address to put the file and the one to get it, a line each.

    They are without percent-encoding, since ejabberd encodes all but `A-Z a-z 0-9 _ . - / :` of what it gets. So the
    token has its place in the path: a parameter would not survive.

    The status tells ejabberd what to tell them: 402 if a limit is reached, 403 if they may not upload, 413 if the file
    is too large. Raises NotFound for another secret than ours.
    """
    services = call.services
    secret = services.settings.slot_service_secret.get_secret_value()
    if not secret or not hmac.compare_digest(secret.encode(), call.request.path_params["secret"].encode()):
        raise NotFound
    said = await read_parameters(call, SlotQuery, strict=False)
    wanted = Wanted(clean_name(said.name), said.size, said.content_type)
    domains = services.settings.slot_domains
    try:
        url, token = await services.slots.give(Jid.parse(said.jid), wanted, domains)
    except (QuotaExceeded, TooManyFiles, TooManyRequests, NoSpace) as refusal:
        raise LimitReached(str(refusal)) from refusal
    start, slot, name = unquote(url).rsplit("/", 2)
    return Response(f"{start}/{token}/{slot}/{name}\n{start}/{slot}/{name}", 200, PRIVATE, "text/plain")
