"""What is asked over XMPP as a value, and how it is answered (RFC 6120, section 8)."""

from __future__ import annotations

from dataclasses import dataclass
from xml.etree.ElementTree import Element
from xml.sax.saxutils import quoteattr

from media_gallery.settings import Settings


@dataclass(frozen=True, slots=True)
class Services:
    """What the handlers call on; made by `app.answering`."""

    settings: Settings

    @property
    def is_component(self) -> bool:
        """Whether we are a component of the server, not a client account on it."""
        return bool(self.settings.xmpp_component_secret.get_secret_value())


@dataclass(frozen=True, slots=True)
class Query:
    """One IQ of type get or set. `sender` is empty where it is our own server; `element` is what the IQ asks."""

    services: Services
    sender: str
    element: Element


class Refused(Exception):
    """A refusal that is XMPP's own, of no interest to a person."""

    def __init__(self, kind: str, condition: str) -> None:
        super().__init__(condition)
        self.kind, self.condition = kind, condition


def written(name: str, content: str = "", /, **attributes: str) -> str:
    """An element of XML; `content` is XML. In names of attributes `_` stands for `-`."""
    said = "".join(f" {key.replace('_', '-')}={quoteattr(value)}" for key, value in attributes.items())
    return f"<{name}{said}>{content}</{name}>" if content else f"<{name}{said}/>"
