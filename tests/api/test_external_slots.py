"""Uploads to slots that modules of Prosody and ejabberd give out, and slots for an ejabberd that asks us for them.

The modules themselves are in tests/xmpp/.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

import pytest

from tests.service import MIB, Service, User, anyone, assert_error

PROSODY, EJABBERD, ASKING = (secrets.token_urlsafe(32) for _ in range(3))


@pytest.fixture(scope="module")
def open_house(start_service: Callable[..., Service]) -> Service:
    return start_service(
        PROSODY_UPLOAD_SECRET=PROSODY, PROSODY_UPLOAD_OWNER="everybody@example.org", EJABBERD_UPLOAD_SECRET=EJABBERD,
        SLOT_SERVICE_SECRET=ASKING, DENIED_JIDS="mallory@example.org",
    )  # fmt: skip


def signed(secret: str, path: str, data: bytes, media_type: str = "", version: str = "v") -> str:
    """The parameter that signs an upload."""
    kind = media_type or "application/octet-stream"
    message = f"{path} {len(data)}" if version == "v" else f"{path}\0{len(data)}\0{kind}"
    return f"{version}={hmac.new(secret.encode(), message.encode(), hashlib.sha256).hexdigest()}"


def put(service: Service, path: str, query: str, data: bytes | Iterator[bytes], media_type: str = "") -> Any:
    headers = {"Content-Type": media_type} if media_type else {}
    return anyone.put(f"{service.url}/media/{quote(path)}?{query}", content=data, headers=headers)


def slot() -> str:
    return secrets.token_urlsafe(24)


@pytest.mark.parametrize("version", ["v", "v2"])
def test_prosody_gives_out_the_slots(open_house: Service, version: str) -> None:
    path = f"{slot()}/très cool.png"
    query = signed(PROSODY, path, b"photo", "image/png", version)
    assert put(open_house, path, query, b"photo", "image/png").status_code == 201
    assert anyone.get(f"{open_house.url}/media/{quote(path)}").content == b"photo"
    owner = open_house.user(jid="everybody@example.org")
    assert owner.items()[0]["name"] == "très cool.png"
    assert_error(put(open_house, path, query, b"photo", "image/png"), 409)


def test_ejabberd_gives_out_the_slots_and_tells_whose_they_are(open_house: Service) -> None:
    """Of somebody who has signed in, and of somebody who has not."""
    anna, late = open_house.user("anna"), f"late-{secrets.token_hex(6)}@example.org"
    for jid, data in ((anna.jid, b"anna's"), (late, b"from one who comes later"), (late, b"and more")):
        path = f"{hashlib.sha1(jid.encode()).hexdigest()}/{slot()}/photo.png"
        assert put(open_house, path, signed(EJABBERD, path, data), data, "image/png").status_code == 201
        assert anyone.get(f"{open_house.url}/media/{path}").content == data
    assert [item["size"] for item in anna.items()] == [6]
    boris = open_house.user(jid=late)
    assert [item["size"] for item in boris.items()] == [8, 24] and boris.used() == 32
    again = open_house.user(jid=late)
    assert [item["id"] for item in again.items()] == [item["id"] for item in boris.items()]
    path = f"{hashlib.sha1(late.encode()).hexdigest()}/{slot()}/b.png"
    assert put(open_house, path, signed(EJABBERD, path, b"known"), b"known").status_code == 201
    assert len(boris.items()) == 3
    assert anyone.get(boris.items()[0]["file"]).content == b"known"


def test_administrators_have_accounts_in_hand_whose_jid_is_not_known_yet(open_house: Service) -> None:
    admin, digest = open_house.user(jid="admin@example.org"), hashlib.sha1(secrets.token_bytes(8)).hexdigest()
    path, name = f"{digest}/{slot()}/a.txt", f"sha1:{digest}"
    assert put(open_house, path, signed(EJABBERD, path, b"text"), b"text").status_code == 201
    [listed] = admin.get("account/list/", search=name).json()["items"]
    assert (listed["jid"], listed["used"]) == (name, 4)
    assert admin.get("files/stats/", jid=name).json()["total"] == {"count": 1, "used": 4}
    assert admin.put("account/quota/", jid=name, value=10).json() == {"jid": name, "quota": 10, "used": 4}
    assert admin.get("account/quota/", jid=name).json() == {"quota": 10, "used": 4}
    assert name in open_house.cli("account", "show", name)
    for wrong in (name[:-1], f"{name}0", name.upper(), "sha1:"):
        assert_error(admin.get("account/quota/", jid=wrong), 400, "jid")
    for path in ("xmpp_code_request", "xmpp_auth"):  # nobody signs in by such a name
        body = {"jid": name, "type": "message", "code": "123456"}
        assert_error(open_house.http.post(f"/api/v1/account/{path}/", json=body), 400, "jid")
    assert admin.http.request("DELETE", "account/list/", json={"jid": name}).status_code == 204
    assert_error(admin.get("account/quota/", jid=name), 404)


def test_what_is_not_signed_is_not_taken(open_house: Service) -> None:
    path, user = f"{slot()}/a.txt", hashlib.sha1(b"x@example.org").hexdigest()
    good = signed(PROSODY, path, b"text")
    stored = open_house.stored_bytes()
    assert_error(put(open_house, path, good[:-1], b"text"), 403)
    assert_error(put(open_house, path, f"{good}0", b"text"), 403)
    assert_error(put(open_house, path, good, b"other size"), 403)
    assert_error(put(open_house, path, good.replace("v=", "v2="), b"text"), 403)
    assert_error(put(open_house, path, f"{good}&v2=0", b"text"), 403)  # the stronger one counts
    assert_error(put(open_house, path, "v=é", b"text"), 403)
    assert_error(put(open_house, f"{slot()}/a.txt", good, b"text"), 403)
    assert_error(put(open_house, path, signed(EJABBERD, path, b"text"), b"text"), 403)
    assert_error(put(open_house, f"{user}/{path}", signed(PROSODY, f"{user}/{path}", b"text"), b"text"), 403)
    assert_error(put(open_house, f"anna/{path}", signed(EJABBERD, f"anna/{path}", b"text"), b"text"), 403)
    assert_error(put(open_house, path, good, iter([b"text"])), 411)
    assert_error(put(open_house, path, "", b"text"), 401)
    large = bytes(21 * MIB)
    assert_error(put(open_house, path, signed(PROSODY, path, large), large), 413)
    assert open_house.stored_bytes() == stored
    assert put(open_house, path, good, b"text").status_code == 201


def test_without_a_secret_nothing_is_taken(anna: User) -> None:
    path = f"{slot()}/a.txt"
    for user in ("", f"{'0' * 40}/"):
        assert_error(put(anna.service, user + path, signed("", user + path, b"text"), b"text"), 403)
    assert_error(anyone.get(f"{anna.service.url}/slots/", params={"jid": anna.jid, "name": "a", "size": 1}), 404)
    assert_error(anyone.get(f"{anna.service.url}/slots/x", params={"jid": anna.jid, "name": "a", "size": 1}), 404)


def ask(service: Service, secret: str = ASKING, **said: Any) -> Any:
    return anyone.get(f"{service.url}/slots/{secret}", params=said)


def test_ejabberd_asks_for_a_slot(open_house: Service) -> None:
    user = open_house.user()
    answer = ask(open_house, jid=f"{user.jid}/phone", name="très cool.png", size=5, content_type="image/png")
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "text/plain; charset=utf-8")
    there, back = (quote(line, safe=":/") for line in answer.text.split("\n"))
    assert_error(anyone.put(there, content=b"other size"), 413)
    assert_error(anyone.put(there.replace(there.split("/")[-3], "x.y.z"), content=b"photo"), 403)
    assert anyone.put(there, content=b"photo", headers={"Content-Type": "image/png"}).status_code == 201
    assert_error(anyone.put(there, content=b"photo"), 409)
    assert anyone.get(back).content == b"photo"
    assert [item["file"] for item in user.items()] == [back]


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (404, {"secret": "x"}), (404, {"secret": "é"}), (400, {"size": 0}), (400, {"size": "x"}), (400, {"jid": "@"}),
        (400, {"name": ""}), (403, {"jid": "mallory@example.org"}), (403, {"jid": "example.org"}),
        (413, {"size": 2**62}), (413, {"size": 21 * MIB}),
    ],
)  # fmt: skip
def test_ejabberd_gets_no_slot(open_house: Service, status: int, said: dict[str, Any]) -> None:
    assert_error(ask(open_house, **{"jid": "anna@example.org", "name": "a.png", "size": 5, **said}), status)


def test_a_limit_has_a_status_of_its_own_for_ejabberd(open_house: Service) -> None:
    admin, user = open_house.user(jid="admin@example.org"), open_house.user()
    assert admin.put("account/quota/", jid=user.jid, value=4).status_code == 200
    assert_error(ask(open_house, jid=user.jid, name="a.png", size=5), 402)
