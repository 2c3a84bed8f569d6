"""Sign-in and slots over a real ejabberd, configured as the README says."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from media_gallery.slot_tokens import verify
from tests.service import Service
from tests.xmpp.conftest import ChatClient, client_settings, component_settings, signed_in
from tests.xmpp.ejabberd import Ejabberd
from tests.xmpp.prosody import COMPONENT, HOST, SLOT_SECRET, UPLOADS
from tests.xmpp.test_connection import check_announced, check_answers
from tests.xmpp.test_sign_in import check_iq
from tests.xmpp.test_slots import asked, put_of, wanted


@pytest.fixture(scope="module")
def ejabberd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ejabberd]:
    server = Ejabberd(tmp_path_factory.mktemp("ejabberd"))
    yield server
    server.stop()


@pytest.fixture
async def romeo(ejabberd: Ejabberd) -> AsyncIterator[ChatClient]:
    async with signed_in(f"romeo@{HOST}", ejabberd) as client:
        yield client


async def test_a_component_signs_people_in_and_our_module_lets_them_find_it(
    connected: Callable[..., Service], ejabberd: Ejabberd, romeo: ChatClient
) -> None:
    service = connected(**component_settings(ejabberd))
    await check_iq(service, romeo, COMPONENT)
    await check_answers(romeo, COMPONENT, service)
    await check_announced(romeo)


async def test_a_client_account_signs_people_in(
    connected: Callable[..., Service], ejabberd: Ejabberd, romeo: ChatClient
) -> None:
    await check_iq(connected(**client_settings(ejabberd)), romeo, f"gallery@{HOST}")


async def test_two_hosts_as_one_component_give_out_slots_in_turn(
    connected: Callable[..., Service], ejabberd: Ejabberd, romeo: ChatClient
) -> None:
    said = component_settings(ejabberd, UPLOADS) | {"XMPP_COMPONENT_PORT": ejabberd.uploads_port}
    said |= {"SLOTS": "true", "SLOT_SECRET": SLOT_SECRET}
    hosts = [connected(**said) for _ in range(2)]
    info = (await romeo.plugin["xep_0030"].get_info(UPLOADS, local=False))["disco_info"]
    assert "urn:xmpp:http:upload:0" in info["features"]
    asking = set[str]()
    while len(asking) < len(hosts):
        url, token = put_of(await asked(romeo, wanted()))
        slot, name = url.split("/")[-2:]
        assert verify(SLOT_SECRET, token, slot, name, 0).sub == romeo.boundjid.bare
        asking.add(url.partition("/media/")[0])
    assert asking == {host.url for host in hosts}
