"""Sign-in and slots over a real ejabberd, configured as the README says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from media_gallery.quantities import iso
from media_gallery.slot_tokens import verify
from tests.service import MIB, Service, anyone
from tests.test_import import AN_HOUR_AGO, aged
from tests.xmpp.conftest import ChatClient, client_settings, component_settings, signed_in
from tests.xmpp.ejabberd import ASKING, OLD_UPLOADS_BY_NODE, SIGNED, Ejabberd
from tests.xmpp.prosody import COMPONENT, EXTERNAL_SECRET, HOST, OLD_UPLOADS, SLOT_SECRET, UPLOADS
from tests.xmpp.test_connection import check_announced, check_answers
from tests.xmpp.test_import import CONTENTS, check_addresses, imported, uploaded
from tests.xmpp.test_sign_in import check_iq
from tests.xmpp.test_slots import CONDITIONS, ERROR, NOW, asked, put, put_of, wanted


@pytest.fixture(scope="module")
def without_xmpp(start_service: Callable[..., Service]) -> Service:
    """A service that ejabberd's own upload module sends files to."""
    return start_service(
        EJABBERD_UPLOAD_SECRET=EXTERNAL_SECRET, SLOT_SERVICE_SECRET=EXTERNAL_SECRET, SLOT_DOMAINS=ASKING
    )


@pytest.fixture(scope="module")
def ejabberd(tmp_path_factory: pytest.TempPathFactory, without_xmpp: Service) -> Iterator[Ejabberd]:
    server = Ejabberd(tmp_path_factory.mktemp("ejabberd"), without_xmpp.url)
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


async def sent(service: Service, client: ChatClient, to: str, name: str) -> None:
    """Upload a photo to a slot of that upload service; it must be fetched there, and its sender finds it as `name`."""
    slot = (await asked(client, wanted("très cool.jpg", 5), to=to)).find(f"{{{NOW}}}slot")
    assert slot is not None
    there, back = (part.get("url", "") for name in ("put", "get") for part in slot.iter(f"{{{NOW}}}{name}"))
    assert there.startswith(f"{service.url}/media/")
    assert await put(there, b"photo", media_type="image/jpeg") == 201
    assert await put(there, b"photo", media_type="image/jpeg") == 409
    assert (await asyncio.to_thread(anyone.get, back)).content == b"photo"
    user = await asyncio.to_thread(service.user, jid=client.boundjid.bare)
    [item] = await asyncio.to_thread(user.items)
    assert (item["slot_id"], item["name"]) == (back.split("/")[-2], name)


async def test_its_module_signs_the_address_and_tells_who_uploads(without_xmpp: Service, romeo: ChatClient) -> None:
    await sent(without_xmpp, romeo, SIGNED, "très_cool.jpg")


async def test_its_module_asks_us_for_a_slot(without_xmpp: Service, ejabberd: Ejabberd) -> None:
    async with signed_in(f"juliet@{ASKING}", ejabberd) as juliet:
        await sent(without_xmpp, juliet, f"upload.{ASKING}", "très cool.jpg")
        admin = await asyncio.to_thread(without_xmpp.user, jid="admin@example.org")
        refusals = {4097: "resource-constraint", 21 * MIB: "not-acceptable"}
        await asyncio.to_thread(admin.put, "account/quota/", jid=f"juliet@{ASKING}", value=4096)
        for size, condition in refusals.items():
            error = (await asked(juliet, wanted(size=size), to=f"upload.{ASKING}")).find(ERROR)
            assert error is not None and error.find(CONDITIONS + condition) is not None


@pytest.mark.parametrize(("to", "path"), [(OLD_UPLOADS, "upload"), (OLD_UPLOADS_BY_NODE, "by-node")])
async def test_files_that_its_module_kept_are_taken_over(
    service: Service, ejabberd: Ejabberd, romeo: ChatClient, to: str, path: str
) -> None:
    addresses = {await uploaded(romeo, name, data, to): data for name, data in CONTENTS.items()}
    aged(ejabberd.directory / path)
    base = f"http://127.0.0.1:{ejabberd.http_port}/{path}/"
    source: tuple[object, ...] = ("ejabberd", ejabberd.directory / path, "--address", base)
    if to == OLD_UPLOADS_BY_NODE:
        assert imported(service, *source)["without_owner"] == len(CONTENTS)
        source = (*source, "--host", HOST)
    report = imported(service, *source)
    assert (report["taken"], report["bytes"]) == (len(CONTENTS), sum(map(len, CONTENTS.values())))
    check_addresses(service, addresses)
    items = service.user(jid=f"romeo@{HOST}").items(date_lte=iso(AN_HOUR_AGO * 1_000_000), order_by="-id")
    assert {item["size"] for item in items[: len(CONTENTS)]} == {len(data) for data in CONTENTS.values()}
    assert imported(service, *source)["known"] == len(CONTENTS)
