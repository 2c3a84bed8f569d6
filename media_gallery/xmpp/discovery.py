"""Who we are and what we can do (XEP-0030, XEP-0092, XEP-0128, XEP-0199)."""

from __future__ import annotations

import sys
from xml.sax.saxutils import escape

from media_gallery import __version__
from media_gallery.slot_tokens import PURPOSES
from media_gallery.xmpp.query import Query, Refused, Services, written
from media_gallery.xmpp.slots import OLD_UPLOAD, PURPOSE, UPLOAD

INFO, ITEMS = "http://jabber.org/protocol/disco#info", "http://jabber.org/protocol/disco#items"
_FEATURES = (INFO, ITEMS, "jabber:iq:version", "urn:xmpp:ping")
_SLOTS = (UPLOAD, OLD_UPLOAD, *(f"{PURPOSE}#{name}" for name in PURPOSES))
_GALLERY = "urn:xabber:http:url"
"""Where clients look for the gallery's address (contract, "How clients find the service")."""


async def ping(query: Query) -> str:
    return ""


async def version(query: Query) -> str:
    said = {"name": "media-gallery", "version": __version__, "os": sys.platform}
    return written("query", "".join(written(name, text) for name, text in said.items()), xmlns="jabber:iq:version")


async def items(query: Query) -> str:
    """An empty list: the service has no items."""
    _check_node(query)
    return written("query", xmlns=ITEMS)


async def info(query: Query) -> str:
    """Identity, features, and the form with the gallery's address."""
    _check_node(query)
    return written("query", _identity(query.services) + _features(query.services) + _forms(query.services), xmlns=INFO)


def _check_node(query: Query) -> None:
    if query.element.get("node"):  # XEP-0030, section 3.2
        raise Refused("cancel", "item-not-found")


def _identity(services: Services) -> str:
    if services.settings.slots:
        return written("identity", category="store", type="file", name="Media gallery")
    # COMPAT: not store/file, since old iOS clients take the first such service for one of XEP-0363
    category, identity_type = ("component", "generic") if services.is_component else ("client", "bot")
    return written("identity", category=category, type=identity_type, name="Media gallery")


def _features(services: Services) -> str:
    names = (*_FEATURES, *_SLOTS) if services.settings.slots else _FEATURES
    return "".join(written("feature", var=name) for name in names)


def _forms(services: Services) -> str:
    """The gallery's address, and if the service gives out slots, the size of the largest file. A file of exactly that
    size is taken, since some clients send one.
    """
    settings = services.settings
    forms = _form(_GALLERY, {f"{_GALLERY}:mediagallery": settings.api_url})
    if settings.slots:
        for namespace in (UPLOAD, OLD_UPLOAD):
            forms += _form(namespace, {"max-file-size": str(settings.max_file_size)})
    return forms


def _form(form_type: str, values: dict[str, str]) -> str:
    """A form with values (XEP-0128)."""
    fields = [_field("FORM_TYPE", form_type, "hidden"), *(_field(name, value) for name, value in values.items())]
    return written("x", "".join(fields), xmlns="jabber:x:data", type="result")


def _field(name: str, value: str, field_type: str = "text-single") -> str:
    return written("field", written("value", escape(value)), var=name, type=field_type)
