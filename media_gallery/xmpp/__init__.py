"""The table of all that the service answers over XMPP.

An IQ (RFC 6120, section 8.2.3) comes in as an element and goes out as text; the courier holds the connection.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from xml.etree.ElementTree import Element

import structlog

from media_gallery.errors import GalleryError
from media_gallery.xmpp import discovery, slots
from media_gallery.xmpp.query import Query, Refused, Services, language_of, refusal, reply

log = structlog.get_logger()
Handler = Callable[[Query], Awaitable[str]]
"""Returns the content of the result, as XML. Raises Refused, GalleryError."""

QUERIES: dict[tuple[str, str], Handler] = {
    ("get", "{urn:xmpp:ping}ping"): discovery.ping,
    ("get", "{jabber:iq:version}query"): discovery.version,
    ("get", f"{{{discovery.INFO}}}query"): discovery.info,
    ("get", f"{{{discovery.ITEMS}}}query"): discovery.items,
}
"""Handlers by the type of an IQ and the tag of its element."""

SLOT_QUERIES: dict[tuple[str, str], Handler] = {
    ("get", f"{{{slots.UPLOAD}}}request"): slots.request,
    ("get", f"{{{slots.OLD_UPLOAD}}}request"): slots.old_request,
}
"""The same, only if the service gives out slots."""


class Room:
    """Answers the IQs that others send us."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self.queries = QUERIES | (SLOT_QUERIES if services.settings.slots else {})

    async def answer(self, iq: Element) -> str | None:
        """The answer to an IQ of type get or set, whatever it holds; None if it does not tell whom to answer."""
        if not self._knows_sender(iq):
            return None
        try:
            return reply(iq, "result", await self._result(iq))
        except Refused as refused:
            return refusal(iq, refused)
        except GalleryError as error:
            return refusal(iq, Refused.by(error, language_of(iq)))
        except Exception:  # a fault in one answer must not end the connection
            log.exception("a fault in an answer over XMPP")
            return refusal(iq, Refused.by(GalleryError(), language_of(iq)))

    def refuse(self, iq: Element) -> str | None:
        """The answer if there are too many IQs; None if this one does not tell whom to answer."""
        return refusal(iq, Refused("wait", "resource-constraint")) if self._knows_sender(iq) else None

    def _knows_sender(self, iq: Element) -> bool:
        """Whether there is a sender. A component always gets one; to a client account, its own server may send none."""
        return bool(iq.get("from")) or not self.services.is_component

    async def _result(self, iq: Element) -> str:
        if len(iq) != 1:  # RFC 6120, section 8.2.3
            raise Refused("modify", "bad-request")
        handler = self.queries.get((iq.attrib["type"], iq[0].tag))
        if handler is None or ("@" in iq.get("to", "") and self.services.is_component):
            raise Refused("cancel", "service-unavailable")
        return await handler(Query(self.services, iq.get("from", ""), iq[0], language_of(iq)))
