"""The stanzas that carry one-time codes, as the contract writes them."""

from xml.etree import ElementTree as ET

import pytest

from media_gallery.courier import code_iq, code_message
from media_gallery.errors import BadRequest

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


def test_characters_that_xml_forbids_are_refused() -> None:
    """XML 1.0, section 2.2. A server would close the stream, and no other code could be sent."""
    words = ["romeo@example.org", "req-1", "012345", URL, "Code", "en"]
    for character in map(chr, {*range(0x20), 0xD800, 0xDFFF, 0xFFFE, 0xFFFF} - {*b"\t\n\r"}):
        for at in range(len(words)):
            spoiled = [word + character * (at == place) for place, word in enumerate(words)]
            with pytest.raises(BadRequest):
                code_message(*spoiled)
            if at < 4:
                with pytest.raises(BadRequest):
                    code_iq(*spoiled[:4])
    for character in "\t\n\r\x20\x7f\x80\ud7ff\ue000\ufffd\U00010000\U0010ffff":
        assert ET.fromstring(code_message(*[*words[:4], character, "en"])).findtext("body")
