"""The answers over XMPP, without a connection: every request gets exactly one answer of the right form."""

from __future__ import annotations

import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape, quoteattr

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from media_gallery import xmpp
from media_gallery.app import answering
from media_gallery.models import Jid
from media_gallery.settings import Settings
from media_gallery.slot_tokens import PURPOSES, verify
from media_gallery.xmpp import Room
from tests.service import FREE_RATES, MIB, empty_database

SECRET = "a secret of thirty-two characters"
UPLOAD, OLD, PURPOSE = "urn:xmpp:http:upload:0", "urn:xmpp:http:upload", "urn:xmpp:http:upload:purpose:0"
ERRORS = "{urn:ietf:params:xml:ns:xmpp-stanzas}"
INFO = "http://jabber.org/protocol/disco#info"
LARGEST, QUOTA = 20 * MIB, 30 * MIB
URL = "https://gallery.example.org"


@asynccontextmanager
async def room_of(directory: Path, **more: Any) -> AsyncIterator[Room]:
    shutil.copy(empty_database(), directory)
    said = {"xmpp_jid": "upload.example.org", "xmpp_component_secret": "x", "slots": True, "slot_secret": SECRET,
            "public_url": URL, "max_file_size": LARGEST, "default_quota": QUOTA,
            **{name.lower(): rate for name, rate in FREE_RATES.items()}}  # fmt: skip
    async with answering(Settings.model_validate({"data_dir": directory, **said, **more})) as room:
        yield room


@pytest.fixture(scope="module")
async def room(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Room]:
    async with room_of(tmp_path_factory.mktemp("room")) as room:
        yield room


def iq_of(inner: str, sender: str = "romeo@example.org/orchard", kind: str = "get", more: str = "") -> ET.Element:
    return ET.fromstring(
        f"<iq xmlns='jabber:component:accept' type='{kind}' id='i&lt;1' to='upload.example.org'"
        f" from={quoteattr(sender)} {more}>{inner}</iq>"
    )


async def ask(room: Room, inner: str, sender: str = "romeo@example.org/orchard", **more: str) -> ET.Element:
    answer = await room.answer(iq_of(inner, sender, **more))
    assert answer is not None and "\n" not in answer
    iq = ET.fromstring(answer)
    assert (iq.tag, iq.get("id"), iq.get("to"), iq.get("from")) == ("iq", "i<1", sender, "upload.example.org")
    return iq


def wanted(name: str = "a.jpg", size: object = 5, inner: str = "", **more: str) -> str:
    said = "".join(f" {key.replace('_', '-')}={quoteattr(value)}" for key, value in more.items())
    return f"<request xmlns='{UPLOAD}' filename={quoteattr(name)} size={quoteattr(str(size))}{said}>{inner}</request>"


def wanted_of_old(name: str = "a.jpg", size: object = 5, media_type: str = "image/jpeg") -> str:
    return (f"<request xmlns='{OLD}'><filename>{escape(name)}</filename><size>{size}</size>"
            f"<content-type>{escape(media_type)}</content-type></request>")  # fmt: skip


def refused(iq: ET.Element, kind: str, condition: str) -> ET.Element:
    """The error of an answer, which must have this condition and no other."""
    assert iq.get("type") == "error" and len(iq) == 1, ET.tostring(iq)
    error = iq[0]
    conditions = [child.tag for child in error if child.tag.startswith(ERRORS) and child.tag != f"{ERRORS}text"]
    assert (error.get("type"), conditions) == (kind, [ERRORS + condition]), ET.tostring(iq)
    return error


def slot_of(room: Room, iq: ET.Element, sender: str = "romeo@example.org") -> Any:
    """The claims of a slot, which must be valid for its address."""
    assert iq.get("type") == "result", ET.tostring(iq)
    [slot] = iq
    assert slot.tag in (f"{{{UPLOAD}}}slot", f"{{{OLD}}}slot")
    put, get = slot
    if slot.tag == f"{{{UPLOAD}}}slot":
        [header] = put
        assert header.get("name") == "Authorization" and header.text
        url, token = put.get("url", ""), header.text.removeprefix("Bearer ")
        assert get.get("url") == url and len(header.text) < 8192
    else:
        assert not put.attrib and put.text
        url, _, token = put.text.partition("?token=")
        assert get.text == url
    path = re.fullmatch(rf"{URL}/media/([0-9a-f]{{32}})/([A-Za-z0-9%._~-]+)", url)
    assert path, url
    claims = verify(SECRET, token, path[1], unquote(path[2]), room.services.clock() // 1_000_000)
    assert claims.sub == sender
    return claims


# --- Discovery ---


async def info_of(
    room: Room,
) -> tuple[set[tuple[str | None, str | None]], set[str | None], dict[str, dict[str | None, str]]]:
    """The identities, features and forms of a disco#info answer."""
    [query] = await ask(room, f"<query xmlns='{INFO}'/>")
    forms = {}
    for form in query.findall("{jabber:x:data}x"):
        assert form.get("type") == "result"
        fields = {field.get("var"): field.findtext("{jabber:x:data}value", "") for field in form}
        assert [field.get("type") for field in form if field.get("var") == "FORM_TYPE"] == ["hidden"]
        forms[fields.pop("FORM_TYPE")] = fields
    identities = {(one.get("category"), one.get("type")) for one in query.findall(f"{{{INFO}}}identity")}
    return identities, {one.get("var") for one in query.findall(f"{{{INFO}}}feature")}, forms


async def test_discovery_tells_what_is_accepted(room: Room) -> None:
    identities, features, forms = await info_of(room)
    assert identities == {("store", "file")}
    assert features >= {UPLOAD, OLD, INFO, "urn:xmpp:ping", *(f"{PURPOSE}#{name}" for name in PURPOSES)}
    gallery = {
        "urn:xabber:http:url:mediagallery": f"{URL}/api/"
    }  # and no size: some clients would use the size of any form
    assert forms == {
        "urn:xabber:http:url": gallery,
        **{name: {"max-file-size": str(LARGEST)} for name in (UPLOAD, OLD)},
    }
    refused(await ask(room, f"<query xmlns='{INFO}' node='x'/>"), "cancel", "item-not-found")


@pytest.mark.parametrize(
    "said",
    [
        {"slots": False},
        {"slots": False, "xmpp_component_secret": "", "xmpp_password": "x", "xmpp_jid": "a@example.org"},
    ],
)
async def test_without_slots_none_are_announced_and_none_are_given(said: dict[str, Any], tmp_path: Path) -> None:
    async with room_of(tmp_path, **said) as room:
        identities, features, forms = await info_of(room)
        assert identities < {("component", "generic"), ("client", "bot")} and list(forms) == ["urn:xabber:http:url"]
        assert not [name for name in features if name and name.startswith("urn:xmpp:http")]
        for asked in (wanted(), wanted_of_old()):
            refused(await ask(room, asked), "cancel", "service-unavailable")
        assert (
            await room.answer(ET.fromstring("<iq type='get' id='1'><ping xmlns='urn:xmpp:ping'/></iq>")) is None
        ) == (
            room.services.is_component  # which has nobody to answer; a client account has its server
        )


# --- Slots ---


async def test_a_slot_is_for_one_file_of_the_bare_jid(room: Room) -> None:
    for sender in ("romeo@example.org/orchard", "ROMEO@EXAMPLE.ORG/x", "romeo@example.org", "romeo@example.org/a/b@c"):
        iq = await ask(room, wanted("très cool.png", 4096, content_type="image/png"), sender)
        claims = slot_of(room, iq)
        assert (claims.filename, claims.filesize, claims.filetype) == ("très cool.png", 4096, "image/png")
        assert (claims.exp - claims.iat, claims.purpose, claims.expires) == (300, "message", None)
    assert slot_of(room, await ask(room, wanted())).slot != slot_of(room, await ask(room, wanted())).slot


async def test_the_first_version_has_its_own_form(room: Room) -> None:
    claims = slot_of(room, await ask(room, wanted_of_old("a b&c.ogg", 77, "audio/ogg")))
    assert (claims.filename, claims.filesize, claims.filetype) == ("a b&c.ogg", 77, "audio/ogg")
    for inner in ("", "<filename>a</filename>", "<size>5</size>", "<filename>a</filename><size>0</size>"):
        refused(await ask(room, f"<request xmlns='{OLD}'>{inner}</request>"), "modify", "bad-request")
    error = refused(await ask(room, wanted_of_old(size=LARGEST + 1)), "modify", "not-acceptable")
    assert error.findtext(f"{{{OLD}}}file-too-large/{{{OLD}}}max-file-size") == str(LARGEST)


@pytest.mark.parametrize("media_type", ["", "ogg", "x" * 300, "*/*", "a/b/c", "application/octet-stream", " "])
async def test_a_type_without_meaning_counts_as_none(room: Room, media_type: str) -> None:
    assert slot_of(room, await ask(room, wanted(content_type=media_type))).filetype == ""


@pytest.mark.parametrize("media_type", ["image/jpeg", "text/plain; charset=utf-8", "audio/ogg+voice", "IMAGE/PNG"])
async def test_a_type_is_kept_as_it_is_said(room: Room, media_type: str) -> None:
    assert slot_of(room, await ask(room, wanted(content_type=media_type))).filetype == media_type


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("../../etc/passwd", "passwd"), ("C:\\a\\b.txt", "b.txt"), ("a\u202egpj.exe", "agpj.exe"), ("..", "_"),
        ("ü" * 300 + ".jpg", "ü" * 125 + ".jpg"), ("фото 📷?.jpg", "фото 📷?.jpg"),
        ("a#b?c&d=e%20f+g.txt", "a#b?c&d=e%20f+g.txt"),
        (".hidden", ".hidden"), ("a\tb.txt", "ab.txt"), ("'\"<>&.txt", "'\"<>&.txt"), ("con", "con"),
        ("e\u0301.txt", "e\u0301.txt"),
    ],
)  # fmt: skip
async def test_names_of_every_kind(room: Room, name: str, kept: str) -> None:
    assert slot_of(room, await ask(room, wanted(name))).filename == kept
    assert slot_of(room, await ask(room, wanted_of_old(name))).filename == kept


@pytest.mark.parametrize("size", ["1", "+5", " 5 ", "0005", str(LARGEST)])
async def test_sizes_that_are_taken(room: Room, size: str) -> None:
    assert slot_of(room, await ask(room, wanted(size=size))).filesize == int(size)


@pytest.mark.parametrize("size", [LARGEST + 1, 2**31, 2**32, 2**63 - 1, 2**63, 2**64, 10**29, "9" * 5000])
async def test_what_is_too_large_is_told_how_large_it_may_be(room: Room, size: object) -> None:
    error = refused(await ask(room, wanted(size=size)), "modify", "not-acceptable")
    assert error.findtext(f"{{{UPLOAD}}}file-too-large/{{{UPLOAD}}}max-file-size") == str(LARGEST)
    assert error.findtext(f"{ERRORS}text") == "The file is too large: at most 20 MiB"


@pytest.mark.parametrize("size", ["", " ", "0", "-1", "1.5", "1e3", "0x10", "NaN", "five", "１２", "5 5", "+", "--5"])
async def test_what_is_no_positive_integer_is_no_size(room: Room, size: str) -> None:
    refused(await ask(room, wanted(size=size)), "modify", "bad-request")


@pytest.mark.parametrize(
    "asked",
    [
        f"<request xmlns='{UPLOAD}'/>", f"<request xmlns='{UPLOAD}' filename='a'/>",
        f"<request xmlns='{UPLOAD}' size='5'/>",
        wanted(""), wanted("  "), wanted("n" * 5000), "", wanted() * 2, f"<body>x</body>{wanted()}",
    ],
)  # fmt: skip
async def test_what_is_malformed(room: Room, asked: str) -> None:
    refused(await ask(room, asked), "modify", "bad-request")


@pytest.mark.parametrize(
    "asked",
    [
        "<request xmlns='urn:xmpp:http:upload:1' filename='a' size='5'/>", "<request filename='a' size='5'/>",
        f"<slot xmlns='{UPLOAD}'/>", "<query xmlns='jabber:iq:roster'/>", f"<Request xmlns='{UPLOAD}'/>",
    ],
)  # fmt: skip
async def test_unknown_requests_are_refused(room: Room, asked: str) -> None:
    refused(await ask(room, asked), "cancel", "service-unavailable")


async def test_a_slot_is_asked_for_by_get_and_of_the_service_itself(room: Room) -> None:
    refused(await ask(room, wanted(), kind="set"), "cancel", "service-unavailable")
    iq = iq_of(wanted())
    iq.set("to", "somebody@upload.example.org")
    answer = await room.answer(iq)
    assert answer is not None
    refused(ET.fromstring(answer), "cancel", "service-unavailable")


@pytest.mark.parametrize("purpose", PURPOSES)
async def test_purposes(room: Room, purpose: str) -> None:
    claims = slot_of(room, await ask(room, wanted(inner=f"<{purpose} xmlns='{PURPOSE}'/>")))
    assert (claims.purpose, claims.expires) == (purpose, None)


async def test_the_expiry_of_a_file(room: Room) -> None:
    for end in ("2101-02-03T04:05:06Z", "2101-02-03T07:05:06.123+03:00"):
        asked = wanted(inner=f"<ephemeral xmlns='{PURPOSE}' expire-before='{end}'/>")
        claims = slot_of(room, await ask(room, asked))
        assert claims.expires == datetime(2101, 2, 3, 4, 5, 6, tzinfo=UTC).timestamp()
    for end in (
        "",
        "soon",
        "2001-01-01T00:00:00Z",
        "2101-02-03",
        "2101-02-30T04:05:06Z",
        "2101-02-03T04:05:06",
        "9" * 99,
    ):
        asked = wanted(inner=f"<ephemeral xmlns='{PURPOSE}' expire-before='{end}'/>")
        refused(await ask(room, asked), "modify", "bad-request")
    for inner in (f"<x xmlns='{PURPOSE}'/>", f"<message xmlns='{PURPOSE}'/><profile xmlns='{PURPOSE}'/>"):
        refused(await ask(room, wanted(inner=inner)), "modify", "bad-request")
    assert slot_of(room, await ask(room, wanted(inner="<future xmlns='urn:else'/>"))).purpose == "message"


# --- Permissions and limits ---


@pytest.mark.parametrize(
    ("sender", "said", "allowed"),
    [
        ("romeo@example.org", {}, True),
        ("romeo@EXAMPLE.org.", {}, True),
        ("romeo@elsewhere.example", {}, False),
        ("romeo@upload.example.org", {}, False),
        ("romeo@sub.example.org", {}, False),
        ("example.org", {}, False),
        ("gateway.example.org", {"allowed_jids": "gateway.example.org"}, False),
        ("romeo@elsewhere.example", {"allowed_jids": "romeo@elsewhere.example"}, True),
        ("romeo@elsewhere.example", {"allowed_domains": "elsewhere.example"}, True),
        ("romeo@example.org", {"allowed_domains": "elsewhere.example"}, False),
        ("romeo@elsewhere.example", {"slot_domains": "example.org, elsewhere.example"}, True),
        ("romeo@example.org", {"slot_domains": "one.example", "allowed_domains": "example.org"}, False),
        ("romeo@example.org", {"denied_domains": "example.org"}, False),
        ("romeo@example.org", {"denied_jids": "Romeo@example.org"}, False),
    ],
)
async def test_who_gets_slots(sender: str, said: dict[str, Any], allowed: bool, tmp_path: Path) -> None:
    async with room_of(tmp_path, **said) as room:
        answer = await ask(room, wanted(), f"{sender}/x")
        if allowed:
            slot_of(room, answer, Jid.parse(sender).bare)
        else:
            assert refused(answer, "auth", "forbidden").findtext(f"{ERRORS}text")


async def test_the_quota_counts_with_and_without_an_account(room: Room) -> None:
    services = room.services
    mercutio, tybalt = Jid.parse("mercutio@example.org"), Jid.parse("tybalt@example.org")
    await services.slots.accounts.issue_token(mercutio, "", "", admin=False)
    await services.slots.accounts.set_quota(mercutio.bare, 1000)
    slot_of(room, await ask(room, wanted(size=1000), str(mercutio)), mercutio.bare)
    error = refused(await ask(room, wanted(size=1001), str(mercutio)), "wait", "resource-constraint")
    assert error.findtext(f"{ERRORS}text") == "Quota exceeded: quota 1000 bytes, used 0 bytes, required 1001 bytes"
    russian = refused(
        await ask(room, wanted(size=3 * MIB // 2), str(mercutio), more="xml:lang='ru-RU'"),
        "wait",
        "resource-constraint",
    ).find(f"{ERRORS}text")
    assert russian is not None and russian.get("{http://www.w3.org/XML/1998/namespace}lang") == "ru"
    assert russian.text == "Квота исчерпана: квота 1000 Б, занято 0 Б, требуется 1,5 МиБ"
    slot_of(room, await ask(room, wanted(size=LARGEST), str(tybalt)), tybalt.bare)
    with pytest.raises(Exception, match="no such account"):  # the first upload makes the account
        await services.slots.accounts.get(tybalt.bare)


async def test_rates_are_told_with_a_time(tmp_path: Path) -> None:
    async with room_of(tmp_path, rate_slot="2/day", default_quota="1000") as room:
        slot_of(room, await ask(room, wanted(), "romeo@example.org/a"))
        error = refused(await ask(room, wanted(size=1001), "romeo@example.org/b"), "wait", "resource-constraint")
        assert len(error) == 2  # a refusal counts, too; it tells no time, since nobody knows when there is room
        error = refused(await ask(room, wanted(), "romeo@example.org/c"), "wait", "resource-constraint")
        retry = error.find(f"{{{UPLOAD}}}retry")
        assert retry is not None
        again = datetime.fromisoformat(retry.get("stamp", "").replace("Z", "+00:00"))
        assert 0 < again.timestamp() - room.services.clock() / 10**6 <= 86401
        slot_of(room, await ask(room, wanted(), "juliet@example.org"), "juliet@example.org")


# --- Any request ---


async def test_an_unexpected_error_is_answered(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(_: object) -> str:
        raise RuntimeError("a fault of ours")

    monkeypatch.setitem(room.queries, ("get", "{urn:xmpp:ping}ping"), broken)
    answer = await ask(room, "<ping xmlns='urn:xmpp:ping'/>")
    refused(answer, "wait", "internal-server-error")
    assert "a fault of ours" not in ET.tostring(answer, "unicode")


texts = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"], exclude_characters="\ufffe\uffff"))
tags = st.sampled_from([tag for _, tag in xmpp.QUERIES | xmpp.SLOT_QUERIES] + [f"{{{PURPOSE}}}ephemeral", "x", "{a}b"])
attributes = st.dictionaries(
    st.sampled_from(["filename", "size", "content-type", "node", "expire-before", "{http://www.w3.org/XML/1998/namespace}lang"]),
    texts | st.integers().map(str),
)  # fmt: skip


def element(tag: str, said: dict[str, str], text: str, inner: list[ET.Element]) -> ET.Element:
    made = ET.Element(tag, said)
    made.text = text
    made.extend(inner)
    return made


elements = st.recursive(
    st.builds(element, tags, attributes, texts, st.just([])),
    lambda inner: st.builds(element, tags, attributes, texts, st.lists(inner, max_size=3)),
    max_leaves=4,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    st.lists(elements, max_size=2),
    st.dictionaries(st.sampled_from(["from", "to", "id"]), texts | st.just("romeo@example.org/x")),
    st.sampled_from(["get", "set"]),
)
async def test_whatever_is_asked_is_answered(
    room: Room, inner: list[ET.Element], ends: dict[str, str], kind: str
) -> None:
    answer = await room.answer(element("{jabber:component:accept}iq", ends | {"type": kind}, "", inner))
    if not ends.get("from"):
        assert answer is None
        return
    assert answer is not None
    iq = ET.fromstring(answer)
    assert (iq.get("id"), iq.get("to")) == (ends.get("id", ""), ends["from"])
    assert iq.get("type") in ("result", "error")
    assert not iq.findall(f".//{ERRORS}internal-server-error")
