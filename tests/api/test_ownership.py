"""Whose is it: every call of the route table, without a token and with another account's objects.

A new call without a row here fails.
"""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import httpx
import pytest

from media_gallery.http import API, PLAIN, Operation
from tests import samples
from tests.service import Service, User, assert_error

OPEN = {("GET", ""), ("POST", "/account/xmpp_code_request"), ("POST", "/account/xmpp_auth")}
"""Calls that need no token."""
ADMINISTRATORS = {("PUT", "/account/quota"), ("GET", "/account/list")}
WITH_TOKEN = [operation for operation in API if (operation.method, operation.path) not in OPEN]


def name_of(operation: Operation) -> str:
    return f"{operation.method} {operation.path}"


def path_of(operation: Operation) -> str:
    return operation.path.format(percent=100).lstrip("/") + "/"


# --- Without a valid token ---


@pytest.mark.parametrize("operation", WITH_TOKEN, ids=name_of)
def test_no_call_without_a_valid_token(service: Service, operation: Operation) -> None:
    gone = service.user()
    token_id = gone.get("account/tokens/").json()["items"][0]["token_id"]
    gone.delete("account/tokens/", token_id=token_id)
    for authorization in (
        None,
        "Bearer",
        "Bearer wrong",
        f"Bearer {gone.token}",
        f"Basic {gone.token}",
        gone.token,
    ):
        headers = {"Authorization": authorization} if authorization else {}
        answer = service.http.request(operation.method, f"/api/v1/{path_of(operation)}", headers=headers)
        assert_error(answer, 401)
        assert answer.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize(("method", "path"), sorted(OPEN))
def test_the_open_calls_answer_without_one(service: Service, method: str, path: str) -> None:
    answer = service.http.request(method, f"/api/v1{path}/", json={} if method == "POST" else None)
    assert answer.status_code in (200, 400)


@pytest.mark.parametrize("operation", [o for o in API if (o.method, o.path) in ADMINISTRATORS], ids=name_of)
def test_administrators_alone(anna: User, operation: Operation) -> None:
    assert operation.needs == "admin"
    assert_error(anna.http.request(operation.method, path_of(operation)), 403)


def test_the_table_marks_who_may_call() -> None:
    assert {(o.method, o.path) for o in API if o.needs == "nothing"} == OPEN
    assert {(o.method, o.path) for o in API if o.needs == "admin"} == ADMINISTRATORS
    assert set(PLAIN) == {"/media/{slot_id}/{name}", "/healthz", "/readyz", "/metrics", "/api/docs"}


# --- Another account's objects ---


class Target:
    """What Boris has; Anna must neither see nor touch it."""

    def __init__(self, boris: User) -> None:
        self.user = boris
        self.file = boris.upload(f"secret {uuid4()}".encode(), f"secret-{uuid4()}.txt", "text/plain", metadata={"s": 1})
        self.avatar = boris.avatar(samples.picture("png", 77, 77), f"secret-{uuid4()}.png")
        self.token_id = boris.get("account/tokens/").json()["items"][0]["token_id"]

    def untouched(self) -> None:
        both = self.user.items(contexts="file,voice,avatar")
        assert [item["id"] for item in both] == [self.avatar["id"], self.file["id"]]
        for item in (self.file, self.avatar):
            assert self.user.http.get(item["file"]).status_code == 200

    def unseen(self, answer: httpx.Response) -> None:
        for secret in (
            self.file["slot_id"],
            self.file["name"],
            self.avatar["slot_id"],
            self.avatar["name"],
            self.user.jid,
        ):
            assert secret not in answer.text


FOREIGN: dict[tuple[str, str], Any] = {
    ("GET", "/account/tokens"): (200, lambda t: {}),
    ("DELETE", "/account/tokens"): (404, lambda t: {"token_id": t.token_id}),
    ("DELETE", "/account"): (403, lambda t: {"jid": t.user.jid}),
    ("GET", "/account/quota"): (403, lambda t: {"jid": t.user.jid}),
    ("PUT", "/account/quota"): (403, lambda t: {"jid": t.user.jid, "value": 1}),
    ("GET", "/account/list"): (403, lambda t: {}),
    ("GET", "/files/slot"): (200, lambda t: {"name": "x", "size": t.file["size"], "hash": t.file["hash"]}),
    ("POST", "/files/upload"): (400, lambda t: {"id": t.file["id"], "slot_id": t.file["slot_id"]}),
    ("GET", "/files"): (200, lambda t: {"id": t.file["id"]}),
    ("DELETE", "/files"): (404, lambda t: {"id": t.file["id"]}),
    ("GET", "/files/percent/{percent}"): (200, lambda t: {}),
    ("DELETE", "/files/percent/{percent}"): (204, lambda t: {}),
    ("GET", "/files/stats"): (200, lambda t: {"id": t.file["id"]}),
    ("POST", "/avatar/upload"): (400, lambda t: {"id": t.avatar["id"]}),
    ("GET", "/avatar"): (200, lambda t: {"id": t.avatar["id"]}),
    ("DELETE", "/avatar"): (404, lambda t: {"id": t.avatar["id"]}),
}


@pytest.mark.parametrize("operation", WITH_TOKEN, ids=name_of)
def test_anothers_object_is_not_there(anna: User, boris: User, operation: Operation) -> None:
    target = Target(boris)
    status, parameters = FOREIGN[operation.method, operation.path]
    if operation.method == "GET":
        answer = anna.get(path_of(operation), **parameters(target))
    else:
        answer = anna.http.request(operation.method, path_of(operation), json=parameters(target) or None)
    assert answer.status_code == status, answer.text
    target.unseen(answer)
    if status == 200 and operation.answers.get(200) and "items" in answer.text:
        assert answer.json()["total_objects"] == (1 if operation.path == "/account/tokens" else 0)
    target.untouched()


@pytest.mark.parametrize(
    "selector",
    [
        lambda t: {"id": [t.file["id"], t.avatar["id"]]},
        lambda t: {"file": t.file["file"]},
        lambda t: {"file": t.avatar["file"], "contexts": ["avatar"]},
        lambda t: {"id": t.avatar["id"], "contexts": ["avatar"]},
    ],
)
def test_naming_it_in_another_way_does_not_help(anna: User, boris: User, selector: Any) -> None:
    target = Target(boris)
    assert_error(anna.delete("files/", **selector(target)), 404)
    target.untouched()


def test_filters_reach_the_own_account_alone(anna: User, boris: User) -> None:
    target = Target(boris)
    for wanted in (
        {"date_gte": "2000-01-01"},
        {"name": "secret"},
        {"contexts": ["file", "voice", "avatar"]},
        {"size_gte": 0},
    ):
        assert anna.delete("files/", **wanted).status_code == 204
        assert anna.items(**{k: ",".join(v) if isinstance(v, list) else v for k, v in wanted.items()}) == []
    target.untouched()


def test_ids_mixed_with_anothers_delete_the_own_alone(anna: User, boris: User) -> None:
    target, own = Target(boris), anna.upload(b"own")
    assert anna.delete("files/", id=[own["id"], target.file["id"]]).status_code == 204
    assert anna.items() == []
    target.untouched()
