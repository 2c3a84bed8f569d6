"""The stanzas that carry one-time codes, as the contract writes them."""

from xml.etree import ElementTree as ET

from media_gallery.xmpp import code_iq, code_message

CONFIRM = "{http://jabber.org/protocol/http-auth}confirm"
URL = "https://gallery.example.org/api/v1/account/xmpp_auth/"


def test_the_iq() -> None:
    iq = ET.fromstring(code_iq("romeo@example.org/a<b>'\"", "req-1", "012345", URL))
    assert (iq.tag, iq.attrib) == ("iq", {"type": "get", "to": "romeo@example.org/a<b>'\"", "id": "req-1"})
    [confirm] = iq
    assert (confirm.tag, confirm.attrib) == (CONFIRM, {"id": "012345", "method": "POST", "url": URL})


def test_the_message() -> None:
    message = ET.fromstring(code_message("romeo@example.org", "req-1", "012345", URL, "Code: 012345 & more", "ru"))
    assert message.get("type") == "chat"
    assert message.get("{http://www.w3.org/XML/1998/namespace}lang") == "ru"
    assert [child.tag for child in message] == [
        "body", CONFIRM, "{urn:xmpp:carbons:2}private", "{urn:xmpp:hints}no-store", "{urn:xmpp:hints}no-copy",
    ]  # fmt: skip
    assert message.findtext("body") == "Code: 012345 & more"
