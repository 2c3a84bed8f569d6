"""Every call of the published document, without a valid token and with another account's objects.

These tests fail if a new call, or a new path beside them, has no row here.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args
from uuid import uuid4

import httpx
import pytest

from media_gallery.app import Gallery, build, running
from media_gallery.db import Connection, migrate
from media_gallery.http import API, DOCUMENT, DOCUMENT_FILES, DOCUMENT_PAGE, PAGE, PAGE_FILES, PLAIN, parameters
from media_gallery.http.operations import Need, Operation
from media_gallery.http.request import Call
from media_gallery.models import Jid
from media_gallery.settings import Settings
from tests import samples
from tests.service import Service, User, anyone, assert_error

OPEN = {("GET", ""), ("POST", "account/xmpp_code_request"), ("POST", "account/xmpp_auth")}
"""Calls that need no token."""
ADMINISTRATORS = {
    ("PUT", "account/quota"), ("GET", "account/list"), ("DELETE", "account/list"), ("GET", "account/files"),
    ("GET", "service"),
}  # fmt: skip


class Target:
    """What Boris has. Anna must neither see nor change it."""

    def __init__(self, boris: User) -> None:
        self.user = boris
        self.data = f"secret {uuid4()}".encode()
        self.file = boris.upload(self.data, f"secret-{uuid4()}.txt", "text/plain", metadata={"s": 1})
        self.avatar = boris.avatar(samples.picture("png", 77, 77), f"secret-{uuid4()}.png")
        self.token_id = boris.get("account/tokens/").json()["items"][0]["token_id"]
        self.quota = boris.get("account/quota/").json()

    def untouched(self) -> None:
        both = self.user.items(contexts="file,voice,avatar")
        assert [item["id"] for item in both] == [self.avatar["id"], self.file["id"]]
        for item in (self.file, self.avatar):
            assert self.user.http.get(item["file"]).status_code == 200
        assert self.user.get("account/quota/").json() == self.quota

    def unseen(self, answer: httpx.Response) -> None:
        for item in (self.file, self.avatar):
            assert item["slot_id"] not in answer.text and item["name"] not in answer.text
        assert self.user.jid not in answer.text


def by_hash(target: Target) -> dict[str, Any]:
    return {"name": "x", "size": target.file["size"], "hash": target.file["hash"]}


WAYS: dict[str, Callable[[Target], dict[str, Any]]] = {
    "nothing": lambda t: {},
    "id": lambda t: {"id": t.file["id"]},
    "ids": lambda t: {"id": [t.file["id"], t.avatar["id"]], "contexts": ["file", "avatar"]},
    "avatar": lambda t: {"id": t.avatar["id"]},
    "url": lambda t: {"file": t.file["file"]},
    "avatar's url": lambda t: {"file": t.avatar["file"], "contexts": ["avatar"]},
    "slot": lambda t: {"slot_id": t.file["slot_id"]},
    "hash": by_hash,
    "sha-256": lambda t: by_hash(t) | {"hash": t.file["hashes"]["sha-256"]},
    "avatar's hash": lambda t: {"name": "x", "size": t.avatar["size"], "hash": t.avatar["hash"], "context": "avatar"},
    "name": lambda t: {"name": t.file["name"], "size": 1},
    "everything": lambda t: {"size_gte": 0, "contexts": ["file", "voice", "avatar"]},
    "jid": lambda t: {"jid": t.user.jid, "value": 1},
    "its address": lambda t: {"jid": f"{t.user.jid.upper()}/phone", "value": 1},
    "token": lambda t: {"token_id": t.token_id},
}
"""How Anna can name what Boris has."""

NAMED = ("id", "ids", "avatar", "url", "avatar's url")
NO_SUCH = dict.fromkeys(NAMED, 404)
UNFIT = dict.fromkeys(("hash", "sha-256", "avatar's hash", "name", "url", "avatar's url"), 400)
"""Refused: an upload's size and digest are those of its own bytes, and its file comes once."""
FOREIGN: dict[tuple[str, str], dict[str, int]] = {
    ("GET", "account/tokens"): {"": 200},
    ("DELETE", "account/tokens"): {"": 400, "token": 404},
    ("GET", "account"): {"": 200},
    ("DELETE", "account"): {"": 204, "jid": 403, "its address": 403},  # without a JID, Anna's own account is meant
    ("GET", "account/quota"): {"": 200, "jid": 403, "its address": 403},
    ("PUT", "account/quota"): {"": 403},
    ("GET", "account/list"): {"": 403},
    ("DELETE", "account/list"): {"": 403},
    ("GET", "account/files"): {"": 403},
    ("GET", "service"): {"": 403},
    ("GET", "files/slot"): {"": 400, "hash": 200, "sha-256": 200, "avatar's hash": 200, "name": 200},
    ("POST", "files/upload"): {"": 201, **UNFIT},
    ("GET", "files"): {"": 200},
    ("DELETE", "files"): {"": 400, "everything": 204, **NO_SUCH},
    ("GET", "files/percent"): {"": 200},
    ("DELETE", "files/percent"): {"": 400, "nothing": 204},
    ("GET", "files/stats"): {"": 200, "jid": 403, "its address": 403},
    ("POST", "avatar/upload"): {"": 201, **UNFIT},
    ("GET", "avatar"): {"": 200},
    ("DELETE", "avatar"): {"": 400, "id": 404, "avatar": 404},
}  # fmt: skip
"""The status of each call for each of these ways. `""` stands for all ways that are not listed."""
CALLS = sorted(FOREIGN)


def path_of(path: str) -> str:
    return {"files/percent": "files/percent/100"}.get(path, path) + "/"


def ask(user: User, method: str, path: str, params: dict[str, Any]) -> httpx.Response:
    """Make the call; its parameters go into the query, a body, or an upload's form."""
    if path.endswith("upload"):
        data = samples.picture("png", 50, 50) if path.startswith("avatar") else b"Anna's own"
        fields = {key: value if isinstance(value, str) else json.dumps(value) for key, value in params.items()}
        return user.http.post(path_of(path), data=fields, files={"file": ("own.png", data)})
    if method == "GET":
        return user.get(path_of(path), **{k: ",".join(map(str, v)) if isinstance(v, list) else v
                                          for k, v in params.items()})  # fmt: skip
    return user.http.request(method, path_of(path), json=params or None)


# --- The tables have every call ---


def test_every_published_call_has_a_row(service: Service) -> None:
    document = service.http.get("/api/v1/openapi.json").json()
    operations = {
        (method.upper(), path.removeprefix("/api/v1/").removesuffix("/").removesuffix("/{percent}")): described
        for path, methods in document["paths"].items()
        for method, described in methods.items()
    }
    assert set(operations) == OPEN | set(FOREIGN)
    for call, described in operations.items():
        assert ("security" in described) == (call not in OPEN)
        assert ("401" in described["responses"]) == (call not in OPEN)
    assert {(o.method, o.path.lstrip("/")) for o in API if o.needs == "admin"} == ADMINISTRATORS


def test_every_other_path_is_known(tmp_path: Any) -> None:
    app = build(Settings(data_dir=tmp_path))
    beside = {getattr(route, "path", "") for route in app.routes} - {f"/api/v1{operation.path}" for operation in API}
    assert beside == {*PLAIN, DOCUMENT, DOCUMENT_PAGE, DOCUMENT_FILES, PAGE, PAGE_FILES}
    assert beside == {
        "/media/{slot_id}/{name}", "/media/{before}/{slot_id}/{name}", "/slots/{secret}", "/healthz", "/readyz",
        "/metrics", "/api/docs", "/api/docs/{file}", "/api/v1/openapi.json", "/", "/web/{version}/{file:path}",
    }  # fmt: skip


async def test_a_new_call_is_guarded_by_its_row_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its handler checks nothing; only those whom the row admits reach it."""
    reached: list[str | None] = []

    async def handler(call: Call, _: parameters.Nothing) -> None:
        reached.append(call.token)

    needs = {need: f"/new/{number}" for number, need in enumerate(get_args(Need))}
    rows = [
        Operation("POST", path, handler, parameters.Nothing, {204: None}, needs=need) for need, path in needs.items()
    ]
    monkeypatch.setattr("media_gallery.http.API", (*API, *rows))
    settings = Settings(data_dir=tmp_path, admins=["admin@example.org"])
    migrate.upgrade(settings)
    app = build(settings)
    http = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gallery/api/v1")
    async with running(app.state.gallery) as gallery, http as client:
        user, admin = [(await gallery.accounts.issue_token(Jid.parse(f"{name}@example.org"), "", "", False)).token
                       for name in ("anna", "admin")]  # fmt: skip
        let_in: dict[Need, list[str | None]] = {
            "nothing": [None, "wrong", user, admin],
            "token": [user, admin],
            "token or code": [None, user, admin],
            "admin": [admin],
        }
        for need, allowed in let_in.items():
            for token in (None, "wrong", user, admin):
                headers = {"Authorization": f"Bearer {token}"} if token else {}
                answer = await client.post(needs[need], headers=headers)
                if token in allowed:
                    assert answer.status_code == 204
                else:
                    assert_error(answer, 403 if token == user else 401)
            assert reached == allowed
            reached.clear()
    with pytest.raises(ValueError, match="Admin"):
        Operation("POST", "/new", handler, parameters.Nothing, {204: None}, needs="Admin")  # type: ignore[arg-type]


# --- Without a valid token ---


def expire(service: Service, user: User) -> None:
    async def work(gallery: Gallery) -> None:
        caller = await gallery.accounts.authenticate(user.token)

        async def query(c: Connection) -> int:
            return await c.run("UPDATE tokens SET expires = $2 WHERE id = $1", caller.token_id, gallery.clock() - 1)

        assert await gallery.db.write(query) == 1

    service.within(work)


def second_token(service: Service, user: User) -> str:
    return str(service.within(lambda g: g.accounts.issue_token(Jid.parse(user.jid), "", "", True)).token)


@pytest.fixture(scope="module")
def useless(service: Service) -> dict[str, str | None]:
    """`Authorization` headers that are not valid."""
    anna, gone, late, closed = (service.user(admin=True) for _ in range(4))
    gone.delete("account/tokens/", token_id=gone.get("account/tokens/").json()["items"][0]["token_id"])
    expire(service, late)
    other = second_token(service, closed)
    closed.delete("account/")
    return {
        "none": None,
        "empty": "",
        "no token": "Bearer",
        "garbage": "Bearer wrong",
        "long": "Bearer " + "x" * 60_000,
        "bytes": "Bearer \xff\xfe",
        "a piece": f"Bearer {anna.token[:-1]}",
        "more": f"Bearer {anna.token}x",
        "other case": f"Bearer {anna.token.swapcase()}",
        "two": f"Bearer {anna.token}, Bearer {anna.token}",
        "quoted": f'Bearer "{anna.token}"',
        "basic": f"Basic {anna.token}",
        "no scheme": anna.token,
        "revoked": f"Bearer {gone.token}",
        "expired": f"Bearer {late.token}",
        "of a closed account": f"Bearer {closed.token}",
        "another of a closed account": f"Bearer {other}",
    }


@pytest.mark.parametrize(("method", "path"), CALLS)
def test_no_call_without_a_valid_token(
    service: Service, useless: dict[str, str | None], method: str, path: str
) -> None:
    for name, authorization in useless.items():
        headers = [(b"Authorization", authorization.encode("latin-1"))] if authorization is not None else []
        answer = service.http.request(method, f"/api/v1/{path_of(path)}", headers=headers)
        assert answer.status_code == 401, (name, answer.text)
        assert_error(answer, 401)
        assert answer.headers["WWW-Authenticate"] == "Bearer"


def test_a_token_in_the_query_or_a_cookie_opens_nothing(anna: User) -> None:
    for how in (
        {"params": {"token": anna.token, "access_token": anna.token}},
        {"headers": {"Cookie": f"token={anna.token}"}},
    ):
        assert_error(anyone.get(f"{anna.service.url}/api/v1/files/", **how), 401)  # type: ignore[arg-type]


@pytest.mark.parametrize(("method", "path"), sorted(OPEN))
def test_the_open_calls_answer_without_one(service: Service, method: str, path: str) -> None:
    answer = service.http.request(method, f"/api/v1/{path}/", json={} if method == "POST" else None)
    assert answer.status_code in (200, 400)


@pytest.mark.parametrize(("method", "path"), sorted(ADMINISTRATORS))
def test_administrators_alone(anna: User, boris: User, method: str, path: str) -> None:
    for params in ({}, {"jid": anna.jid, "value": 1}, {"jid": boris.jid, "value": None}, {"value": "nonsense"}):
        assert ask(anna, method, path, params).status_code in ((400, 403) if "nonsense" in params.values() else (403,))
    assert anna.get("account/quota/").json()["quota"] > 1


# --- Another account's objects ---


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("method", "path"), CALLS)
def test_an_object_of_another_account_is_not_found(anna: User, boris: User, method: str, path: str, way: str) -> None:
    target, row = Target(boris), FOREIGN[method, path]
    answer = ask(anna, method, path, WAYS[way](target))
    assert answer.status_code == row.get(way, row[""]), answer.text
    target.unseen(answer)
    if answer.status_code == 200:
        body = answer.json()
        assert body.get("total_objects", 0) == (1 if path == "account/tokens" else 0)
        assert body.get("used", 0) == 0 and body.get("total", {"count": 0})["count"] == 0
        assert "id" not in body
    target.untouched()


def test_of_mixed_ids_only_the_own_files_are_deleted(anna: User, boris: User) -> None:
    target, own = Target(boris), anna.upload(b"own")
    assert anna.delete("files/", id=[own["id"], target.file["id"]]).status_code == 204
    assert anna.items() == []
    target.untouched()


def test_each_account_owns_its_link_to_the_same_bytes(anna: User, boris: User) -> None:
    """They are stored once, but no account sees another's link, and a deletion leaves the other's link."""
    target = Target(boris)
    same = anna.upload(target.data, "mine.txt")
    assert same["slot_id"] != target.file["slot_id"] and same["metadata"] == {}
    wrong = same["file"].replace(same["name"], target.file["name"])  # Anna's slot, Boris's name
    assert_error(anna.http.get(wrong), 404)
    assert anna.delete("files/", file=same["file"]).status_code == 204
    target.untouched()
