"""The same over a real ejabberd, configured as the README says."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from tests.service import Service
from tests.xmpp.conftest import ChatClient, client_settings, component_settings, signed_in
from tests.xmpp.ejabberd import Ejabberd
from tests.xmpp.prosody import COMPONENT, HOST
from tests.xmpp.test_connection import check_announced, check_answers
from tests.xmpp.test_sign_in import check_iq


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
