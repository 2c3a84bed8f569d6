"""What the service answers over XMPP: the whole of it on one screen.

An IQ (RFC 6120, section 8.2.3) comes in as an element and goes out as text; the courier holds the connection.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from xml.etree.ElementTree import Element

import structlog

from media_gallery.xmpp import discovery
from media_gallery.xmpp.query import Query, Refused, Services, written

log = structlog.get_logger()
Handler = Callable[[Query], Awaitable[str]]
"""Gives what the result holds, as XML. Raises Refused."""

QUERIES: dict[tuple[str, str], Handler] = {
    ("get", "{urn:xmpp:ping}ping"): discovery.ping,
    ("get", "{jabber:iq:version}query"): discovery.version,
    ("get", f"{{{discovery.INFO}}}query"): discovery.info,
    ("get", f"{{{discovery.ITEMS}}}query"): discovery.items,
}
"""By the type of an IQ and its one element."""


class Room:
    """Answers what is asked of us."""

    def __init__(self, services: Services) -> None:
        self.services = services

    async def answer(self, iq: Element) -> str | None:
        """The answer to an IQ of type get or set, whatever is in it; None where nobody could be answered."""
        sender = iq.get("from", "")
        if not sender and self.services.is_component:
            return None
        try:
            return _reply(iq, "result", await self._result(iq, sender))
        except Refused as refusal:
            return _reply(iq, "error", _error(refusal.kind, refusal.condition))
        except Exception:  # a fault of one answer is not one of the connection
            log.exception("a fault in an answer over XMPP")
            return _reply(iq, "error", _error("wait", "internal-server-error"))

    async def _result(self, iq: Element, sender: str) -> str:
        if len(iq) != 1:  # RFC 6120, section 8.2.3
            raise Refused("modify", "bad-request")
        handler = QUERIES.get((iq.attrib["type"], iq[0].tag))
        if handler is None or ("@" in iq.get("to", "") and self.services.is_component):
            raise Refused("cancel", "service-unavailable")
        return await handler(Query(self.services, sender, iq[0]))


def _reply(iq: Element, kind: str, content: str) -> str:
    ends = {"to": iq.get("from"), "from": iq.get("to")}
    named = {name: value for name, value in ends.items() if value}
    return written("iq", content, type=kind, id=iq.get("id", ""), **named)


def _error(kind: str, condition: str) -> str:
    return written("error", written(condition, xmlns="urn:ietf:params:xml:ns:xmpp-stanzas"), type=kind)
