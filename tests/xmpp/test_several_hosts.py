"""Several hosts on one database: which is connected to the XMPP server, and what that means for sign-in."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.front.nginx import PROGRAM as NGINX
from tests.front.nginx import Nginx
from tests.postgres import Postgres
from tests.redis import Redis
from tests.service import Service, anyone, assert_error
from tests.waiting import wait_until
from tests.xmpp.conftest import ChatClient, call, client_settings, component_settings
from tests.xmpp.prosody import HANDED_OVER, Prosody
from tests.xmpp.test_sign_in import ask
from tests.xmpp.test_slots import asked, put_of, wanted

DENIED = "Second component attempted to connect"
"""The error of Prosody if a component is already connected."""


@pytest.fixture(scope="module")
def database() -> Iterator[Callable[[], str]]:
    server = Postgres()
    yield server.new_database
    server.stop()


async def test_a_client_account_is_connected_by_every_host(
    connected: Callable[..., Service], prosody: Prosody, romeo: ChatClient, database: Callable[[], str]
) -> None:
    url = database()
    one, two = (connected(**client_settings(prosody), DATABASE_URL=url) for _ in range(2))
    for sender, told in ((one, two), (two, one)):
        code = await ask(sender, romeo)
        token = await call(told, "xmpp_auth", jid=romeo.boundjid.bare, code=code)
        assert token.status_code == 201
        headers = {"Authorization": f"Bearer {token.json()['token']}"}
        assert sender.http.get("/api/v1/files/", headers=headers).status_code == 200


async def test_a_component_is_connected_by_one_host_and_another_takes_over(
    connected: Callable[..., Service], start_service: Callable[..., Service], prosody: Prosody, romeo: ChatClient,
    database: Callable[[], str],
) -> None:  # fmt: skip
    settings = component_settings(prosody, HANDED_OVER) | {"DATABASE_URL": database(), "SLOTS": "true"}
    one, two = connected(**settings), start_service(**settings)
    slots = [await asked(romeo, wanted(), HANDED_OVER)]
    assert_error(await call(two, "xmpp_code_request", jid=romeo.boundjid.full), 503)
    code = await ask(one, romeo)
    assert (await call(two, "xmpp_auth", jid=romeo.boundjid.bare, code=code)).status_code == 201
    denials = prosody.log().count(DENIED)
    await asyncio.to_thread(wait_until, lambda: prosody.log().count(DENIED) >= denials + 2)
    assert "connected to the XMPP server" not in two.log() and "was lost" not in one.log()
    assert two.log().count("no connection to the XMPP server") == 1
    assert one.process
    os.killpg(one.process.pid, signal.SIGKILL)
    await asyncio.to_thread(two.wait_until, lambda: "connected to the XMPP server" in two.log())
    code = await ask(two, romeo)
    assert (await call(two, "xmpp_auth", jid=romeo.boundjid.bare, code=code)).status_code == 201
    slots.append(await asked(romeo, wanted(), HANDED_OVER))
    for slot in slots:  # each host takes tokens that the other has signed
        url, token = put_of(slot)
        slot_id, name = url.split("/")[-2:]
        claims = await asyncio.to_thread(two.within, lambda g: g.slots.tokens.verify(token, slot_id, name))  # noqa: B023
        assert claims.sub == romeo.boundjid.bare


@pytest.mark.skipif(NGINX is None, reason="nginx is not installed")
@pytest.mark.parametrize("slash", ["/", ""])
async def test_nginx_finds_the_host_that_is_connected_and_tells_it_the_client_s_address(
    connected: Callable[..., Service], start_service: Callable[..., Service], prosody: Prosody, romeo: ChatClient,
    database: Callable[[], str], tmp_path: Path, slash: str,
) -> None:  # fmt: skip
    redis = Redis()
    settings = component_settings(prosody, f"{len(slash)}.{HANDED_OVER}")
    settings |= {"DATABASE_URL": database(), "RATES_URL": redis.url, "RATE_CODE_REQUEST_ADDRESS": "6/day"}
    one, two = connected(**settings), start_service(**settings)
    front = Nginx(tmp_path / "nginx", two, "code-requests", tls=False, others=[one])

    def request(number: int) -> httpx.Response:
        spoofed = {"X-Forwarded-For": f"192.0.2.{number}", "Forwarded": f"for=192.0.2.{number}"}
        url = f"{front.url}/api/v1/account/xmpp_code_request{slash}"
        return anyone.post(url, json={"jid": romeo.boundjid.full, "type": "iq"}, headers=spoofed)

    answers = [await asyncio.to_thread(request, number) for number in range(8)]
    front.stop()
    redis.stop()
    assert [answer.status_code for answer in answers] == [201] * 6 + [429] * 2
    two.wait_until(lambda: [line.get("status") for line in two.log_lines()].count(503) >= 3)
