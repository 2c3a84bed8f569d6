"""The calls under `account/`: tokens, quotas, administrators, deletion. Sign-in itself is in `tests/xmpp/`."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest

from tests import samples
from tests.service import Service, User, assert_error
from tests.waiting import wait_until


@pytest.fixture(scope="module")
def limited(start_service: Callable[..., Service]) -> Service:
    """A service with low limits."""
    return start_service(
        RATE_UPLOAD="3/day", RATE_SLOT="4/day", RATE_CODE_REQUEST_JID="2/day", RATE_CODE_TRY_JID="3/day",
        RATE_CODE_REQUEST_ADDRESS="5/day", RATE_CODE_TRY_ADDRESS="6/day", TRUSTED_PROXIES="127.0.0.1",
    )  # fmt: skip


# --- Tokens ---


def test_tokens_are_listed_newest_first_with_the_one_in_use_marked(service: Service) -> None:
    phone, web = (service.user(jid="tokens@example.org") for _ in range(2))
    service.wait_until(lambda: web.get("account/tokens/").json()["items"][0]["last_used"])
    page = web.get("account/tokens/").json()
    assert page["total_objects"] == 2
    newest, oldest = page["items"]
    assert (newest["current"], oldest["current"]) == (True, False)
    assert set(newest) == {"token_id", "device", "client", "created_at", "expires", "last_used", "current"}
    lifetime = datetime.fromisoformat(newest["expires"]) - datetime.fromisoformat(newest["created_at"])
    assert lifetime.days == 30
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", newest["created_at"])
    assert newest["last_used"] >= newest["created_at"] and oldest["last_used"] is None
    assert phone.token not in str(page) and web.token not in str(page)


def test_a_revoked_token_opens_nothing(service: Service) -> None:
    phone, web = (service.user(jid="revoked@example.org") for _ in range(2))
    [token] = [token for token in web.get("account/tokens/").json()["items"] if not token["current"]]
    assert web.delete("account/tokens/", token_id=token["token_id"]).status_code == 204
    assert_error(phone.get("files/"), 401)
    assert web.get("files/").status_code == 200
    assert_error(web.delete("account/tokens/", token_id=token["token_id"]), 404)


def test_an_expired_token_opens_nothing(start_service: Callable[..., Service]) -> None:
    anna = start_service(TOKEN_LIFETIME="1 s").user()
    answer = wait_until(lambda: (refused := anna.get("files/")).is_error and refused)
    assert_error(answer, 401)
    assert answer.headers["WWW-Authenticate"] == "Bearer"


def test_a_token_is_stored_only_as_a_hash(service: Service) -> None:
    anna = service.user()
    anna.get("files/")
    rows = service.within(lambda g: g.db.read(lambda c: c.all("SELECT * FROM tokens")))
    assert rows and not any(anna.token in str(value) for row in rows for value in row)


# --- Quota ---


def test_everybody_reads_their_own_quota(anna: User) -> None:
    anna.upload(b"12345")
    assert anna.get("account/quota/").json() == {"quota": 50 * 1024 * 1024, "used": 5}


def test_only_an_administrator_reads_and_sets_quotas_of_others(anna: User, boris: User, admin: User) -> None:
    assert_error(anna.get("account/quota/", jid=boris.jid), 403)
    assert_error(anna.put("account/quota/", jid=boris.jid, value=1), 403)
    assert_error(anna.put("account/quota/", value=1), 403)
    assert anna.get("account/quota/", jid=anna.jid).status_code == 200
    boris.upload(b"123")
    answer = admin.put("account/quota/", jid=boris.jid, value=1000)
    assert answer.json() == {"jid": boris.jid, "quota": 1000, "used": 3}
    assert admin.get("account/quota/", jid=boris.jid).json() == {"quota": 1000, "used": 3}
    assert boris.get("account/quota/").json() == {"quota": 1000, "used": 3}
    answer = admin.put("account/quota/", jid=boris.jid, value=None)
    assert answer.json()["quota"] == 50 * 1024 * 1024
    admin.put("account/quota/", jid=boris.jid, value=1000)
    wrong: list[dict[str, Any]] = [{"quota": 7000}, {}, {"value": ""}, {"value": []}]
    for missing in wrong:
        assert_error(admin.put("account/quota/", jid=boris.jid, **missing), 400, "value")
    assert_error(admin.http.put(f"account/quota/?value=&jid={boris.jid}"), 400, "value")
    assert boris.get("account/quota/").json() == {"quota": 1000, "used": 3}
    assert_error(admin.put("account/quota/", jid="nobody@example.org", value=1), 404)
    assert_error(admin.put("account/quota/", jid=boris.jid, value="much"), 400, "value")
    assert_error(admin.put("account/quota/", jid=boris.jid, value=-1), 400, "value")


def test_an_administrator_sets_their_own_quota_by_default(admin: User) -> None:
    assert admin.put("account/quota/", value=12345).json() == {"jid": admin.jid, "quota": 12345, "used": 0}
    admin.put("account/quota/", value=None)


def test_a_token_may_make_an_administrator(service: Service) -> None:
    clerk = service.user("clerk", admin=True)
    assert clerk.get("account/list/").status_code == 200


def test_administrators_list_accounts(service: Service, admin: User) -> None:
    names = ["carla", "dora", "eva"]
    users = [service.user(jid=f"{name}@list.example") for name in names]
    for size, user in zip((30, 10, 20), users, strict=True):
        user.upload(b"x" * size)
    admin.put("account/quota/", jid=users[1].jid, value=99 * 1024 * 1024)

    def order(by: str) -> list[str]:
        page = admin.get("account/list/", vhost="list.example", order_by=by).json()
        assert page["total_objects"] == 3
        return [item["jid"].partition("@")[0] for item in page["items"]]

    assert order("jid") == ["carla", "dora", "eva"]
    assert order("-used") == ["carla", "eva", "dora"]
    assert order("-quota")[0] == "dora"
    [item] = admin.get("account/list/", vhost="LIST.example", obj_per_page=1, page=1).json()["items"]
    assert set(item) == {"jid", "quota", "used", "files", "created_at"}
    assert (item["jid"], item["used"], item["files"]) == ("carla@list.example", 30, 1)
    assert_error(users[0].get("account/list/"), 403)
    assert_error(admin.get("account/list/", order_by="colour"), 400, "order_by")


# --- The end of an account ---


def test_administrators_search_accounts_by_a_part_of_their_jid(service: Service, admin: User) -> None:
    for name in ("needle_a", "needle-b"):
        service.user(jid=f"{name}@hay.example")

    def found(**params: Any) -> list[str]:
        return [item["jid"] for item in admin.get("account/list/", **params).json()["items"]]

    assert found(search="NEEDLE") == ["needle-b@hay.example", "needle_a@hay.example"]
    assert found(search="le_a@hay", vhost="hay.example") == ["needle_a@hay.example"]
    assert found(search="needle%hay") == found(search="needle", vhost="other.example") == []
    assert_error(admin.get("account/list/", search="a\0b"), 400)


def test_everybody_learns_who_they_are(anna: User, admin: User) -> None:
    anna.upload(b"12345")
    told = anna.get("account/").json()
    assert set(told) == {"jid", "quota", "used", "files", "created_at", "admin", "seen_by_admins", "token_id"}
    assert (told["jid"], told["used"], told["files"], told["admin"]) == (anna.jid, 5, 1, False)
    assert told["token_id"] == anna.get("account/tokens/").json()["items"][0]["token_id"]
    assert admin.get("account/").json()["admin"] is True
    assert anna.service.user(admin=True).get("account/").json()["admin"] is True


def test_an_administrator_sees_how_much_an_account_stores_by_kind(anna: User, boris: User, admin: User) -> None:
    anna.upload(b"12345", "a.txt", "text/plain")
    told = admin.get("files/stats/", jid=anna.jid.upper()).json()
    assert told == anna.get("files/stats/").json() and told["files"] == {"count": 1, "used": 5}
    assert_error(boris.get("files/stats/", jid=anna.jid), 403)
    assert_error(admin.get("files/stats/", jid="nobody@example.org"), 404)


def test_an_administrator_deletes_an_account(anna: User, boris: User, admin: User) -> None:
    item = anna.upload(b"12345")
    assert_error(boris.delete("account/list/", jid=anna.jid), 403)
    assert_error(admin.delete("account/list/"), 400)
    assert admin.delete("account/list/", jid=anna.jid).status_code == 204
    assert_error(anna.get("account/"), 401)
    assert_error(admin.http.get(item["file"]), 404)
    assert_error(admin.delete("account/list/", jid=anna.jid), 404)
    assert [line for line in anna.service.log_lines() if line["event"] == "an administrator deletes an account"]


def test_nobody_sees_the_files_of_another_unless_a_setting_lets_administrators(anna: User, admin: User) -> None:
    anna.upload(b"12345")
    assert anna.get("account/").json()["seen_by_admins"] is False
    for user in (anna, admin):
        for jid in (anna.jid, admin.jid, "nobody@example.org"):
            assert_error(user.get("account/files/", jid=jid), 403)


def test_each_look_at_the_files_of_another_is_logged(start_service: Callable[..., Service]) -> None:
    service = start_service(ADMINS="chief@example.org", ADMINS_SEE_FILES="true")
    chief, anna, boris = (service.user(jid=f"{name}@example.org") for name in ("chief", "anna", "boris"))
    items = [anna.upload(b"12345", f"{number}.txt", "text/plain") for number in range(2)]
    avatar = anna.avatar(samples.picture("png", 64, 64))
    boris.upload(b"of boris")
    assert anna.get("account/").json()["seen_by_admins"] is True
    assert_error(boris.get("account/files/", jid=anna.jid), 403)
    assert_error(chief.get("account/files/"), 400)
    assert_error(chief.get("account/files/", jid="nobody@example.org"), 404)

    def looks() -> list[tuple[str, str]]:
        lines = service.log_lines()
        return [
            (line["by"], line["jid"]) for line in lines if line["event"] == "an administrator sees an account's files"
        ]

    assert looks() == []
    page = chief.get("account/files/", jid="ANNA@example.org/phone").json()
    assert [item["id"] for item in page["items"]] == [avatar["id"], items[1]["id"], items[0]["id"]]
    assert page["items"][1:] == anna.items()
    found = chief.get("account/files/", jid=anna.jid, name="1.TXT", obj_per_page=1).json()
    assert [item["id"] for item in found["items"]] == [items[1]["id"]]
    assert looks() == [(chief.jid, anna.jid)] * 2
    for answer in (chief.delete("files/", id=items[0]["id"]), chief.delete("files/", id=items[0]["id"], jid=anna.jid)):
        assert answer.status_code in (400, 404)
    assert len(anna.items()) == 2


def test_administrators_see_the_state_of_the_service(anna: User, admin: User) -> None:
    before = admin.get("service/").json()
    anna.upload(b"12345" * 9, "state.bin")
    state = admin.get("service/").json()
    assert state["files"] == before["files"] + 1 and state["used"] == before["used"] + 45
    assert state["parts"] == dict.fromkeys(("database", "storage", "rates", "xmpp", "decoders"))
    assert_error(anna.get("service/"), 403)


def test_a_deleted_account_loses_all_it_had(service: Service, boris: User) -> None:
    anna = service.user()
    shared, own = anna.upload(b"shared bytes"), anna.upload(b"bytes of anna alone")
    kept = boris.upload(b"shared bytes")
    before = service.stored_bytes()
    assert_error(anna.delete("account/", jid=boris.jid), 403)
    assert anna.delete("account/", jid=anna.jid.upper()).status_code == 204
    assert_error(anna.get("files/"), 401)
    for file in (shared, own):
        assert_error(anna.http.get(file["file"]), 404)
    assert boris.http.get(kept["file"]).content == b"shared bytes"
    assert service.stored_bytes() == before - 1
    again = service.user(jid=anna.jid)
    assert again.get("account/quota/").json()["used"] == 0 and again.items() == []


def test_deleting_an_account_needs_a_token_or_a_code(service: Service, anna: User) -> None:
    answer = service.http.request("DELETE", "/api/v1/account/", json={"jid": anna.jid})
    assert_error(answer, 401)
    answer = service.http.request("DELETE", "/api/v1/account/", json={"jid": anna.jid, "code": "123456"})
    assert_error(answer, 404)
    assert anna.get("files/").status_code == 200


# --- Rates ---


def check_refused(answer_status: int, retry_after: str | None) -> None:
    assert answer_status == 429
    assert retry_after is not None and 0 < int(retry_after) <= 24 * 60 * 60 + 1


def test_uploads_and_slots_are_limited_per_account(limited: Service) -> None:
    anna, boris = limited.user(), limited.user()
    for _ in range(3):
        anna.upload(b"x")
    answer = anna.send(b"x")
    assert_error(answer, 429)
    check_refused(answer.status_code, answer.headers.get("Retry-After"))
    assert_error(anna.get("files/slot/", name="x", size=1), 429)  # as the upload would be
    for _ in range(4):
        assert boris.get("files/slot/", name="x", size=1).status_code == 200
    assert_error(boris.get("files/slot/", name="x", size=1), 429)
    assert anna.get("files/").status_code == 200


def post(service: Service, path: str, address: str, **body: str) -> int:
    answer = service.http.post(f"/api/v1/account/{path}/", json=body, headers={"X-Forwarded-For": address})
    if answer.status_code == 429:
        check_refused(answer.status_code, answer.headers.get("Retry-After"))
    return answer.status_code


def test_code_requests_are_limited_per_jid_and_address(limited: Service) -> None:
    def ask(jid: str, address: str) -> int:
        return post(limited, "xmpp_code_request", address, jid=jid)

    assert [ask("one@example.org", f"192.0.2.{n}") for n in range(3)] == [201, 201, 429]
    assert [ask(f"{n}@example.org", "198.51.100.7") for n in range(6)] == [201] * 5 + [429]
    assert ask("other@example.org", "198.51.100.8") == 201


def test_code_tries_are_limited_per_jid_and_address(limited: Service) -> None:
    def attempt(jid: str, address: str) -> int:
        return post(limited, "xmpp_auth", address, jid=jid, code="000000")

    assert [attempt("two@example.org", f"192.0.2.{n}") for n in range(4)] == [404] * 3 + [429]
    assert [attempt(f"t{n}@example.org", "198.51.100.9") for n in range(7)] == [404] * 6 + [429]


def test_an_address_that_no_trusted_proxy_forwards_is_not_believed(start_service: Callable[..., Service]) -> None:
    service = start_service(RATE_CODE_REQUEST_ADDRESS="2/day", TRUSTED_PROXIES="10.0.0.1")
    asked = [post(service, "xmpp_code_request", f"192.0.2.{n}", jid=f"{n}@example.org") for n in range(3)]
    assert asked == [201, 201, 429]


def test_the_addresses_of_an_ipv6_network_count_as_one(limited: Service) -> None:
    asked = [post(limited, "xmpp_code_request", f"2001:db8:0:7::{n}", jid=f"six{n}@example.org") for n in range(6)]
    assert asked == [201] * 5 + [429]
    assert post(limited, "xmpp_code_request", "2001:db8:0:8::1", jid="six@example.org") == 201


def test_forwarded_tells_the_address_too(limited: Service) -> None:
    def ask(n: int, told: str) -> int:
        body = {"jid": f"forwarded{n}@example.org"}
        headers = {"Forwarded": f'for="[2001:db8:1::{n}]:80", {told};proto=https'}
        return limited.http.post("/api/v1/account/xmpp_code_request/", json=body, headers=headers).status_code

    assert [ask(n, "for=198.51.100.77") for n in range(6)] == [201] * 5 + [429]
    assert ask(7, "for=198.51.100.78") == 201


# --- Who may come ---


def test_allow_and_deny_lists(start_service: Callable[..., Service]) -> None:
    service = start_service(
        ALLOWED_DOMAINS="good.example, mixed.example",
        DENIED_DOMAINS="mixed.example",
        ALLOWED_JIDS="friend@bad.example",
        DENIED_JIDS="foe@good.example",
    )
    expected = {"a@good.example": 201, "A@GOOD.example": 201, "foe@good.example": 403, "friend@bad.example": 201,
                "a@bad.example": 403, "a@mixed.example": 403, "good.example": 403}  # fmt: skip
    assert {jid: post(service, "xmpp_code_request", "192.0.2.1", jid=jid) for jid in expected} == expected


def test_development_mode_writes_the_code_into_the_log(service: Service) -> None:
    jid = "developer@example.org"
    assert post(service, "xmpp_code_request", "192.0.2.2", jid=jid) == 201
    assert any("DEVELOPMENT MODE" in line["event"] for line in service.log_lines())
    [code] = [line["code"] for line in service.log_lines() if line.get("jid") == jid]
    assert post(service, "xmpp_auth", "192.0.2.2", jid=jid, code=code) == 201
