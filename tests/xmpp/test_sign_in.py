"""Codes asked for over HTTP, received over XMPP through Prosody, exchanged for tokens."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from slixmpp.xmlstream import ET

from tests.service import Service, assert_error
from tests.xmpp.conftest import ChatClient, call, client_settings, request_code, signed_in
from tests.xmpp.prosody import COMPONENT, HOST, Prosody

CONFIRM = "{http://jabber.org/protocol/http-auth}confirm"


def confirm_of(stanza: Any) -> dict[str, str]:
    element = stanza.xml.find(CONFIRM)
    assert element is not None, ET.tostring(stanza.xml)
    return dict(element.attrib)


async def ask(service: Service, romeo: ChatClient, kind: str = "iq", **more: Any) -> str:
    """Ask for a code; return it once it has arrived."""
    answer = await request_code(service, jid=romeo.boundjid.full, type=kind, **more)
    return confirm_of(await romeo.code(answer))["id"]


async def check_iq(service: Service, romeo: ChatClient, api_jid: str) -> None:
    answer = await request_code(service, jid=romeo.boundjid.full, type="iq")
    stanza, body = await romeo.code(answer), answer.json()
    assert set(body) == {"request_id", "api_jid"}
    assert body["api_jid"] == api_jid == stanza["from"].bare
    assert stanza["id"] == body["request_id"]
    assert stanza["type"] == "get"
    confirm = confirm_of(stanza)
    assert confirm["method"] == "POST"
    assert confirm["url"] == f"{service.url}/api/v1/account/xmpp_auth/"
    assert len(confirm["id"]) == 6 and confirm["id"].isdigit()
    token = await call(service, "xmpp_auth", jid=romeo.boundjid.full, code=confirm["id"])
    assert token.status_code == 201 and set(token.json()) == {"token", "expires"}


async def test_a_component_sends_the_code_as_an_iq(component: Service, romeo: ChatClient) -> None:
    await check_iq(component, romeo, COMPONENT)


async def test_a_client_account_sends_the_code_as_an_iq(
    connected: Callable[..., Service], prosody: Prosody, romeo: ChatClient
) -> None:
    await check_iq(connected(**client_settings(prosody)), romeo, f"gallery@{HOST}")


async def test_a_message_is_for_a_person_in_their_language(component: Service, romeo: ChatClient) -> None:
    answer = await request_code(
        component, jid=romeo.boundjid.bare, headers={"Accept-Language": "ru-RU,ru;q=0.9,en;q=0.8"}
    )
    message = await romeo.code(answer)
    assert message["id"] == answer.json()["request_id"]
    assert message["type"] == "chat"
    code = confirm_of(message)["id"]
    assert code in message["body"] and "Никому" in message["body"]
    assert message["lang"] == "ru"
    assert (await call(component, "xmpp_auth", jid=romeo.boundjid.bare, code=code)).status_code == 201


async def test_a_message_is_copied_to_no_other_device(component: Service, prosody: Prosody, romeo: ChatClient) -> None:
    async with signed_in(f"romeo@{HOST}", prosody) as tablet:
        await tablet.plugin["xep_0280"].enable()
        await romeo.code(await request_code(component, jid=romeo.boundjid.full, type="message"))
        await tablet.plugin["xep_0199"].send_ping(HOST)
        assert tablet.received.empty()


async def test_a_message_is_in_english_by_default(component: Service, romeo: ChatClient) -> None:
    asked = await request_code(component, jid=romeo.boundjid.bare, type="message")
    assert "Do not give it to anybody" in (await romeo.code(asked))["body"]


async def test_the_client_may_answer_as_it_likes(component: Service, romeo: ChatClient) -> None:
    for answer in ("result", "error", None):
        asked = await request_code(component, jid=romeo.boundjid.full, type="iq")
        stanza = await romeo.code(asked)
        if answer == "result":
            stanza.reply().send()
        elif answer == "error":
            reply = stanza.reply().error()
            reply["error"]["condition"] = "not-authorized"
            reply.send()
        assert asked.status_code == 201
        used = await call(component, "xmpp_auth", jid=romeo.boundjid.bare, code=confirm_of(stanza)["id"])
        assert used.status_code == 201


async def test_a_token_opens_the_account_of_the_bare_jid(component: Service, romeo: ChatClient) -> None:
    code = await ask(component, romeo)
    spelled = romeo.boundjid.bare.upper()  # the same account by RFC 7622
    answer = await call(component, "xmpp_auth", jid=spelled, code=int(code), device="Phone", client="Xabber")
    headers = {"Authorization": f"Bearer {answer.json()['token']}"}
    tokens = (await asyncio.to_thread(component.http.get, "/api/v1/account/tokens/", headers=headers)).json()["items"]
    assert (tokens[0]["device"], tokens[0]["client"], tokens[0]["current"]) == ("Phone", "Xabber", True)


async def test_a_wrong_code_is_404_and_the_right_one_still_works(component: Service, romeo: ChatClient) -> None:
    code = await ask(component, romeo)
    wrong = f"{(int(code) + 1) % 10**6:06d}"
    assert_error(await call(component, "xmpp_auth", jid=romeo.boundjid.bare, code=wrong), 404)
    assert (await call(component, "xmpp_auth", jid=romeo.boundjid.bare, code=code)).status_code == 201


async def test_a_code_works_once(component: Service, romeo: ChatClient) -> None:
    code = await ask(component, romeo)
    assert (await call(component, "xmpp_auth", jid=romeo.boundjid.bare, code=code)).status_code == 201
    assert_error(await call(component, "xmpp_auth", jid=romeo.boundjid.bare, code=code), 404)


async def test_a_code_exchanged_twice_at_once_gives_one_token(component: Service, romeo: ChatClient) -> None:
    code = await ask(component, romeo)
    answers = await asyncio.gather(
        *(call(component, "xmpp_auth", jid=romeo.boundjid.bare, code=code) for _ in range(5))
    )
    assert sorted(answer.status_code for answer in answers) == [201, 404, 404, 404, 404]


async def test_a_code_is_for_one_jid(component: Service, romeo: ChatClient) -> None:
    code = await ask(component, romeo)
    assert_error(await call(component, "xmpp_auth", jid=f"juliet@{HOST}", code=code), 404)


async def test_after_five_wrong_tries_a_code_is_void(component: Service, romeo: ChatClient) -> None:
    code = await ask(component, romeo)
    wrong = f"{(int(code) + 1) % 10**6:06d}"
    for _ in range(5):
        assert_error(await call(component, "xmpp_auth", jid=romeo.boundjid.bare, code=wrong), 404)
    assert_error(await call(component, "xmpp_auth", jid=romeo.boundjid.bare, code=code), 404)


async def test_a_code_deletes_the_account(component: Service, romeo: ChatClient) -> None:
    token = (await call(component, "xmpp_auth", jid=romeo.boundjid.bare, code=await ask(component, romeo))).json()
    body = {"jid": romeo.boundjid.bare, "code": await ask(component, romeo)}
    answer = await asyncio.to_thread(component.http.request, "DELETE", "/api/v1/account/", json=body)
    assert answer.status_code == 204
    headers = {"Authorization": f"Bearer {token['token']}"}
    assert_error(await asyncio.to_thread(component.http.get, "/api/v1/files/", headers=headers), 401)


async def test_denied_jids_and_domains_are_kept_out(component: Service) -> None:
    spelled = [f"tybalt@denied.test{dot}" for dot in ("", ".", "。", "．", "｡")]
    for jid in (*spelled, "tybalt@ＤＥＮＩＥＤ．test", f"paris@{HOST}", f"PARIS@{HOST}", HOST):
        assert_error(await call(component, "xmpp_code_request", jid=jid), 403)
        assert_error(await call(component, "xmpp_auth", jid=jid, code="000000"), 403)


async def test_an_iq_needs_a_full_jid(component: Service) -> None:
    assert_error(await call(component, "xmpp_code_request", jid=f"romeo@{HOST}", type="iq"), 400, "jid")
    assert_error(await call(component, "xmpp_code_request", jid="@", type="message"), 400, "jid")
    assert_error(await call(component, "xmpp_code_request", type="message"), 400, "jid")
    assert_error(await call(component, "xmpp_code_request", jid=f"romeo@{HOST}", type="sms"), 400, "type")


async def test_no_answer_tells_whether_an_account_exists(component: Service, romeo: ChatClient) -> None:
    await call(component, "xmpp_auth", jid=romeo.boundjid.bare, code=await ask(component, romeo))
    answers = [await call(component, "xmpp_auth", jid=jid, code="0") for jid in (romeo.boundjid.bare, f"nobody@{HOST}")]
    assert answers[0].content == answers[1].content
    answers = [await request_code(component, jid=jid) for jid in (romeo.boundjid.bare, f"nobody2@{HOST}")]
    assert [answer.status_code for answer in answers] == [201, 201]
    await romeo.code(answers[0])


async def test_a_code_expires(connected: Callable[..., Service], prosody: Prosody, romeo: ChatClient) -> None:
    service = connected(**client_settings(prosody), CODE_LIFETIME="1 s")
    code = await ask(service, romeo)
    await asyncio.sleep(1.1)
    assert_error(await call(service, "xmpp_auth", jid=romeo.boundjid.bare, code=code), 404)


async def test_secrets_stay_out_of_the_log(component: Service, romeo: ChatClient) -> None:
    code = await ask(component, romeo)
    token = (await call(component, "xmpp_auth", jid=romeo.boundjid.bare, code=code)).json()["token"]
    log = component.log()
    assert token not in log and f'"{code}"' not in log and "component-secret" not in log
