"""What is asked over XMPP, as a value, and how answers are written (RFC 6120, section 8)."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from xml.etree.ElementTree import Element
from xml.sax.saxutils import escape, quoteattr

from media_gallery.errors import GalleryError
from media_gallery.settings import Settings
from media_gallery.slots import Slots

_STANZAS = "urn:ietf:params:xml:ns:xmpp-stanzas"
_PLAIN = re.compile(r"[\w .:/@%#?=+-]*")
"""Attribute values that need no quoting, as most do: this check is quicker than `quoteattr`."""
_LANGUAGE = "{http://www.w3.org/XML/1998/namespace}lang"


@dataclass(frozen=True, slots=True)
class Services:
    """What the handlers use; made by `app.answering`."""

    settings: Settings
    slots: Slots
    clock: Callable[[], int]
    slot_hosts: tuple[str, ...]
    """Domains whose users get slots."""

    @property
    def is_component(self) -> bool:
        """Whether we are a component of the server, not a client account on it."""
        return bool(self.settings.xmpp_component_secret.get_secret_value())


@dataclass(frozen=True, slots=True)
class Query:
    """One IQ of type get or set. `sender` is empty if it is our own server; `element` is the IQ's child; `language` is
    that of its texts, as a primary subtag.
    """

    services: Services
    sender: str
    element: Element
    language: str


class Refused(Exception):
    """A refusal as an XMPP error. `text` is for a person, `hint` is XML for their client."""

    def __init__(self, error_type: str, condition: str, text: str = "", hint: str = "") -> None:
        super().__init__(condition)
        self.error_type, self.condition, self.text, self.hint = error_type, condition, text, hint

    @classmethod
    def by(cls, refusal: GalleryError, language: str, hint: str = "") -> Refused:
        """A refusal of ours as an XMPP error."""
        return cls(refusal.error_type, refusal.condition, refusal.told(language), hint)


def language_of(iq: Element) -> str:
    """The language of a stanza, if we have texts in it, else English (RFC 6120, section 8.1.5)."""
    return "ru" if iq.get(_LANGUAGE, "").lower().partition("-")[0] == "ru" else "en"


def written(name: str, content: str = "", /, **attributes: str) -> str:
    """An XML element as text; `content` is XML, too."""
    said = ""
    for key, value in attributes.items():
        said += f' {key}="{value}"' if _PLAIN.fullmatch(value) else f" {key}={quoteattr(value)}"
    return f"<{name}{said}>{content}</{name}>" if content else f"<{name}{said}/>"


def reply(iq: Element, iq_type: str, content: str) -> str:
    """The answer to an IQ, of type `result` or `error`."""
    ends = {"to": iq.get("from"), "from": iq.get("to")}
    named = {name: value for name, value in ends.items() if value}
    return written("iq", content, type=iq_type, id=iq.get("id", ""), **named)


def refusal(iq: Element, refused: Refused) -> str:
    """The answer that refuses an IQ (RFC 6120, section 8.3)."""
    said = written(refused.condition, xmlns=_STANZAS)
    if refused.text:
        said += written("text", escape(refused.text), **{"xmlns": _STANZAS, "xml:lang": language_of(iq)})
    return reply(iq, "error", written("error", said + refused.hint, type=refused.error_type))
