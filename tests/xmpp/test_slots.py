"""Slots of XEP-0363 through a real Prosody. tests/unit/test_answers.py has every kind of request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any
from urllib.parse import unquote, urlsplit
from uuid import uuid4
from xml.etree import ElementTree as ET
from xml.sax.saxutils import quoteattr

import pytest

from media_gallery.slot_tokens import Claims, verify
from tests.service import MIB, Service, anyone
from tests.waiting import DEADLINE
from tests.xmpp.conftest import ChatClient, component_settings, signed_in
from tests.xmpp.prosody import EXTERNAL_SECRET, HOST, OWN_UPLOADS, SIGNED, SLOT_SECRET, UPLOADS, Prosody
from tests.xmpp.test_connection import form_of
from tests.xmpp.test_sign_in import ask as ask_for_code

pytestmark = pytest.mark.same_everywhere
NOW, OLD = "urn:xmpp:http:upload:0", "urn:xmpp:http:upload"
ERROR = "{jabber:client}error"
CONDITIONS = "{urn:ietf:params:xml:ns:xmpp-stanzas}"


@pytest.fixture(scope="module")
def gallery(connected: Callable[..., Service], prosody: Prosody) -> Service:
    said = {"SLOTS": "true", "SLOT_SECRET": SLOT_SECRET, "DENIED_DOMAINS": "denied.test", "DEFAULT_QUOTA": 30 * MIB}
    said |= {"PROSODY_UPLOAD_SECRET": EXTERNAL_SECRET, "PROSODY_UPLOAD_OWNER": f"everybody@{HOST}"}
    return connected(**component_settings(prosody, UPLOADS), **said)


@pytest.fixture(scope="module")
async def juliet(prosody: Prosody, gallery: Service) -> AsyncIterator[ChatClient]:
    async with signed_in(f"juliet@{HOST}", prosody) as client:
        yield client


async def asked(client: ChatClient, inner: str, to: str = UPLOADS, more: str = "") -> ET.Element:
    """Send this XML as an IQ of type get; return the answer."""
    number = uuid4().hex
    answer: asyncio.Future[ET.Element] = asyncio.get_running_loop().create_future()

    def take(stanza: Any) -> Any:
        if stanza["id"] == number and not answer.done():
            answer.set_result(stanza.xml)
        return stanza

    client.add_filter("in", take)
    try:
        client.send_raw(f"<iq type='get' id='{number}' to='{to}' {more}>{inner}</iq>")
        return await asyncio.wait_for(answer, DEADLINE)
    finally:
        client.del_filter("in", take)


def wanted(name: str = "photo.jpg", size: object = 4096, more: str = "content-type='image/jpeg'") -> str:
    return f"<request xmlns='{NOW}' filename={quoteattr(name)} size='{size}' {more}/>"


def put_of(iq: ET.Element) -> tuple[str, str]:
    """The address and the token of a slot in the current form."""
    put, get = iq.find(f"{{{NOW}}}slot/{{{NOW}}}put"), iq.find(f"{{{NOW}}}slot/{{{NOW}}}get")
    assert put is not None and get is not None, ET.tostring(iq)
    [header] = put
    assert (header.get("name"), put.get("url")) == ("Authorization", get.get("url"))
    return get.get("url", ""), (header.text or "").removeprefix("Bearer ")


def claims_of(gallery: Service, url: str, token: str) -> Claims:
    """The claims of a slot's token, which must be valid for its address."""
    assert url.startswith(f"{gallery.url}/media/")
    slot, name = urlsplit(url).path.split("/")[2:]
    claims = verify(SLOT_SECRET, token, slot, unquote(name), 0)
    assert claims.sub == f"juliet@{HOST}"
    return claims


async def test_a_client_finds_the_service_and_gets_a_slot(gallery: Service, juliet: ChatClient) -> None:
    disco = juliet.plugin["xep_0030"]
    items = (await disco.get_items(HOST, local=False))["disco_items"]["items"]
    assert UPLOADS in {item[0] for item in items}
    info = (await disco.get_info(UPLOADS, local=False))["disco_info"]
    assert [identity[:2] for identity in info["identities"]] == [("store", "file")]
    assert {NOW, OLD, "urn:xmpp:ping"} < set(info["features"])
    assert form_of(info.xml) == f"{gallery.url}/api/"
    await juliet.plugin["xep_0199"].send_ping(UPLOADS, timeout=DEADLINE)
    iq = await asked(juliet, wanted("très cool.jpg"))
    assert iq.get("from") == UPLOADS
    url, token = put_of(iq)
    claims = claims_of(gallery, url, token)
    assert (claims.filename, claims.filesize, claims.filetype) == ("très cool.jpg", 4096, "image/jpeg")
    assert token not in gallery.log() and claims.slot not in gallery.log()


async def test_an_old_client_gets_its_own_form(gallery: Service, juliet: ChatClient) -> None:
    inner = "<filename>voice.ogg</filename><size>500</size><content-type>audio/ogg</content-type>"
    iq = await asked(juliet, f"<request xmlns='{OLD}'>{inner}</request>")
    put, get = iq.findtext(f"{{{OLD}}}slot/{{{OLD}}}put", ""), iq.findtext(f"{{{OLD}}}slot/{{{OLD}}}get", "")
    url, _, token = put.partition("?token=")
    assert url == get and claims_of(gallery, url, token).filesize == 500


async def test_an_upload_to_a_slot_belongs_to_who_asked_for_it(gallery: Service, juliet: ChatClient) -> None:
    names = ["très cool.jpg", "a#b?c&d=e%20f+g;h.jpg", "фото 📷 '\"<&>.jpg"]
    for number, name in enumerate(names, 1):
        url, token = put_of(await asked(juliet, wanted(name, number)))
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "image/jpeg"}
        put = await asyncio.to_thread(gallery.http.put, url, content=bytes(number), headers=headers)
        assert put.status_code == 201, put.text
        assert (await asyncio.to_thread(gallery.http.get, url)).content == bytes(number)
    inner = f"<filename>voice.ogg</filename><size>{number + 1}</size>"
    iq = await asked(juliet, f"<request xmlns='{OLD}'>{inner}</request>")
    put_url = iq.findtext(f"{{{OLD}}}slot/{{{OLD}}}put", "")
    assert (await asyncio.to_thread(gallery.http.put, put_url, content=bytes(number + 1))).status_code == 201
    assert put_url.partition("?token=")[2] not in gallery.log()
    user = await asyncio.to_thread(lambda: gallery.user(jid=f"juliet@{HOST}"))
    items = await asyncio.to_thread(user.items)
    assert [item["name"] for item in items[:4]] == ["voice.ogg", *reversed(names)]
    assert await asyncio.to_thread(user.used) == sum(item["size"] for item in items)


async def put(url: str, data: bytes, token: str = "", media_type: str = "") -> int:
    said = {"Content-Type": media_type, "Authorization": token and f"Bearer {token}"}
    headers = {name: value for name, value in said.items() if value}
    return (await asyncio.to_thread(anyone.put, url, content=data, headers=headers)).status_code


@pytest.mark.parametrize(("name", "kept"), [("photo one.jpg", "photo one.jpg"), ("a\u202eb.jpg", "ab.jpg")])
async def test_a_server_may_give_out_the_slots(gallery: Service, juliet: ChatClient, name: str, kept: str) -> None:
    """Prosody's own module has our address and secret: it decides, we keep the file and know who uploaded it."""
    url, token = put_of(await asked(juliet, wanted(name, 5), to=OWN_UPLOADS))
    here = url.replace("https://gallery.example.org", gallery.url)
    assert here.startswith(f"{gallery.url}/media/")
    assert await put(here, b"other size", token) == 413
    assert await put(here, b"photo", token, "image/jpeg") == 201
    assert await put(here, b"photo", token, "image/jpeg") == 409
    assert (await asyncio.to_thread(anyone.get, here)).content == b"photo"
    user = await asyncio.to_thread(gallery.user, jid=f"juliet@{HOST}")
    newest = (await asyncio.to_thread(user.items))[0]
    assert (newest["name"], newest["slot_id"]) == (kept, urlsplit(here).path.split("/")[2])


@pytest.mark.parametrize("version", SIGNED)
@pytest.mark.parametrize("media_type", ["", "image/jpeg"])
async def test_a_module_may_sign_the_address(
    gallery: Service, juliet: ChatClient, version: str, media_type: str
) -> None:
    """Prosody's `mod_http_upload_external` does not tell who uploads."""
    more = f"content-type='{media_type}'" if media_type else ""
    iq = await asked(juliet, wanted("très cool.jpg", 5, more), to=SIGNED[version])
    slot = iq.find(f"{{{NOW}}}slot")
    assert slot is not None, ET.tostring(iq)
    there, back = (part.get("url", "").replace("https://gallery.example.org", gallery.url) for part in reversed(slot))
    assert there.startswith(f"{back}?{version}=")
    assert await put(there, b"other size", media_type=media_type) == 403
    assert await put(there, b"photo", media_type=media_type) == 201
    assert await put(there, b"photo", media_type=media_type) == 409
    assert (await asyncio.to_thread(anyone.get, back)).content == b"photo"
    everybody = await asyncio.to_thread(gallery.user, jid=f"everybody@{HOST}")
    newest = (await asyncio.to_thread(everybody.items))[0]
    assert (newest["slot_id"], newest["name"]) == (urlsplit(back).path.split("/")[2], "très cool.jpg")


@pytest.mark.parametrize(
    ("inner", "kind", "condition", "text"),
    [
        (wanted(size=20 * MIB + 1), "modify", "not-acceptable", "Файл слишком велик: не больше 20 МиБ"),
        (wanted(size=2**63), "modify", "not-acceptable", "Файл слишком велик: не больше 20 МиБ"),
        (wanted(size=0), "modify", "bad-request", "Запрос составлен неверно"),
        (wanted(""), "modify", "bad-request", "Запрос составлен неверно"),
        (f"<request xmlns='{NOW}'/>", "modify", "bad-request", "Запрос составлен неверно"),
        ("<request xmlns='urn:xmpp:http:upload:9'/>", "cancel", "service-unavailable", None),
    ],
)
async def test_a_refusal_is_in_the_language_of_who_asks(
    gallery: Service, juliet: ChatClient, inner: str, kind: str, condition: str, text: str | None
) -> None:
    iq = await asked(juliet, inner, more="xml:lang='ru'")
    error = iq.find(ERROR)
    assert error is not None and error.get("type") == kind, ET.tostring(iq)
    assert error.find(CONDITIONS + condition) is not None, ET.tostring(iq)
    assert error.findtext(f"{CONDITIONS}text") == text


async def test_who_may_not_sign_in_gets_no_slot(gallery: Service, prosody: Prosody) -> None:
    async with signed_in("tybalt@denied.test", prosody) as tybalt:
        error = (await asked(tybalt, wanted())).find(ERROR)
        assert error is not None and error.get("type") == "auth" and error.find(f"{CONDITIONS}forbidden") is not None


async def test_a_flood_is_answered_and_codes_go_on(gallery: Service, juliet: ChatClient) -> None:
    answers = await asyncio.gather(*(asked(juliet, wanted(f"{number}.jpg")) for number in range(300)))
    assert {iq.get("type") for iq in answers} == {"result"}
    urls = {get.get("url") for iq in answers for get in iq.iter(f"{{{NOW}}}get")}
    assert len(urls) == 300
    await ask_for_code(gallery, juliet)
    assert "was lost" not in gallery.log() and "a fault in an answer" not in gallery.log()
