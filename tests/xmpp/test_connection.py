"""The XMPP connection if the server goes away, comes back, or asks who we are."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from slixmpp.xmlstream import ET

from media_gallery.connection import XmppConfig, try_connection
from tests.ports import free_port
from tests.service import Service, assert_error
from tests.waiting import DEADLINE
from tests.xmpp.conftest import ChatClient, call, client_settings, component_settings, request_code, signed_in
from tests.xmpp.prosody import COMPONENT, HANDED_OVER, HOST, SECRET, Prosody
from tests.xmpp.test_sign_in import ask


@pytest.fixture
def own_prosody(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prosody]:
    """A server that a test may stop."""
    server = Prosody(tmp_path_factory.mktemp("prosody"))
    for name in ("gallery", "romeo"):
        server.register(name)
    yield server.start()
    server.stop()


def shown(service: Service) -> float:
    """What the metrics tell of the connection."""
    [found] = re.findall(r"^gallery_xmpp_connected{.*} (.*)", service.http.get("/metrics").text, re.MULTILINE)
    return float(found)


async def recovers(service: Service, prosody: Prosody) -> None:
    prosody.stop()
    answer = await call(service, "xmpp_code_request", jid=f"romeo@{HOST}")  # it does not wait for the server
    assert_error(answer, 503)
    assert int(answer.headers["Retry-After"]) > 0
    await asyncio.to_thread(service.wait_until, lambda: shown(service) == 0)
    assert service.http.get("/readyz").is_success  # files are served without the XMPP server, too
    prosody.start()

    def asked() -> httpx.Response:
        return service.http.post("/api/v1/account/xmpp_code_request/", json={"jid": f"romeo@{HOST}"})

    await asyncio.to_thread(service.wait_until, lambda: asked().status_code == 201)
    assert shown(service) == 1
    async with signed_in(f"romeo@{HOST}", prosody) as romeo:
        await ask(service, romeo)


async def test_a_component_recovers(connected: Callable[..., Service], own_prosody: Prosody) -> None:
    await recovers(connected(**component_settings(own_prosody)), own_prosody)


async def test_a_client_account_recovers(connected: Callable[..., Service], own_prosody: Prosody) -> None:
    await recovers(connected(**client_settings(own_prosody)), own_prosody)


async def test_a_service_starts_before_its_server(start_service: Callable[..., Service], own_prosody: Prosody) -> None:
    own_prosody.stop()
    service = start_service(**component_settings(own_prosody))
    assert_error(await call(service, "xmpp_code_request", jid=f"romeo@{HOST}"), 503)
    own_prosody.start()
    await asyncio.to_thread(service.wait_until, lambda: "connected to the XMPP server" in service.log())


async def test_a_certificate_that_is_not_trusted_is_refused(
    start_service: Callable[..., Service], prosody: Prosody
) -> None:
    service = start_service(**client_settings(prosody) | {"XMPP_CA_FILE": ""})
    await asyncio.to_thread(service.wait_until, lambda: "certificate is not trusted" in service.log())
    assert_error(await call(service, "xmpp_code_request", jid=f"romeo@{HOST}"), 503)


async def test_a_wrong_component_secret_is_told(start_service: Callable[..., Service], prosody: Prosody) -> None:
    service = start_service(**component_settings(prosody) | {"XMPP_COMPONENT_SECRET": "wrong-secret"})
    await asyncio.to_thread(service.wait_until, lambda: "it refuses our secret" in service.log())
    assert_error(await call(service, "xmpp_code_request", jid=f"romeo@{HOST}"), 503)
    assert "ALLOWED_DOMAINS is empty" in service.log() and "wrong-secret" not in service.log()


async def test_each_reason_has_its_sentence(prosody: Prosody, monkeypatch: pytest.MonkeyPatch) -> None:
    component = XmppConfig(COMPONENT, component_port=prosody.component_port, component_secret="wrong-secret")
    right = replace(component, jid=f"0.{HANDED_OVER}", component_secret=SECRET)
    client = XmppConfig(f"gallery@{HOST}", "gallery", "127.0.0.1", prosody.c2s_port, ca_file=prosody.ca_file)
    assert await try_connection(right) is None
    assert await try_connection(client) is None
    for config, reason in (
        (component, "it refuses our secret"),
        (replace(right, jid="unknown.test"), "it knows no component unknown.test"),
        (replace(right, component_port=free_port()), "nothing answers at 127.0.0.1 port"),
        (replace(client, port=free_port()), "nothing answers at 127.0.0.1 port"),
        (replace(client, password="wrong-password"), "it refuses our password"),
        (replace(client, ca_file=None), "its certificate is not trusted"),
    ):
        told = await try_connection(config)
        assert told and reason in told and "wrong-" not in told

    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    for config in (replace(right, component_host="nowhere.test"), replace(client, host="nowhere.test")):
        assert await try_connection(config) == "the name nowhere.test is not found in DNS"


def test_the_doctor_tries_the_xmpp_server(component: Service, prosody: Prosody, tmp_path: Path) -> None:
    beside = component.cli("doctor")
    assert f"XMPP           a server listens at 127.0.0.1 port {prosody.component_port}" in beside
    other = component_settings(prosody, f"1.{HANDED_OVER}")
    assert f"1.{HANDED_OVER} was taken" in component.cli("doctor", DATA_DIR=tmp_path / "none", **other)
    told = component.cli(
        "doctor", code=1, DATA_DIR=tmp_path / "none", **other | {"XMPP_COMPONENT_SECRET": "wrong-secret"}
    )
    assert "it refuses our secret" in told and "wrong-secret" not in told


async def check_answers(romeo: ChatClient, jid: str, service: Service) -> None:
    await romeo.plugin["xep_0199"].send_ping(jid, timeout=DEADLINE)
    version = await romeo.plugin["xep_0092"].get_version(jid)
    assert version["software_version"]["name"] == "media-gallery"
    info = (await romeo.plugin["xep_0030"].get_info(jid))["disco_info"]
    [identity] = info["identities"]
    assert identity[0] in ("component", "client")  # not store/file, since it takes no uploads by XEP-0363
    assert "urn:xmpp:ping" in info["features"]
    assert form_of(info.xml) == f"{service.url}/api/"


async def test_a_component_answers_pings_and_version_and_disco(component: Service, romeo: ChatClient) -> None:
    await check_answers(romeo, COMPONENT, component)


async def test_a_client_account_answers_pings_and_version_and_disco(
    connected: Callable[..., Service], prosody: Prosody, romeo: ChatClient
) -> None:
    service = connected(**client_settings(prosody))
    asked = await request_code(service, jid=romeo.boundjid.full)
    await check_answers(romeo, (await romeo.code(asked))["from"].full, service)


async def test_our_prosody_module_lets_clients_find_the_gallery(prosody: Prosody, romeo: ChatClient) -> None:
    await check_announced(romeo)


async def check_announced(romeo: ChatClient) -> None:
    """The host and the account's bare JID announce it; old iOS clients ask that JID, then each item of the host."""
    for jid in (HOST, romeo.boundjid.bare):
        info = (await romeo.plugin["xep_0030"].get_info(jid, local=False))["disco_info"]
        assert form_of(info.xml) == "https://gallery.example.org/api/"
        assert ("store", "file") not in {identity[:2] for identity in info["identities"]}
    items = (await romeo.plugin["xep_0030"].get_items(HOST, local=False))["disco_items"]["items"]
    assert COMPONENT in {item[0] for item in items}


def form_of(info: ET.Element) -> str:
    """The gallery's address in a form of disco#info."""
    for form in info.findall("{jabber:x:data}x"):
        fields = {field.get("var"): field.findtext("{jabber:x:data}value") for field in form}
        if fields.get("FORM_TYPE") == "urn:xabber:http:url":
            return str(fields["urn:xabber:http:url:mediagallery"])
    raise AssertionError(ET.tostring(info))
