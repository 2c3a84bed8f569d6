"""The OpenAPI document is valid, its examples and the answers of the service have the shapes and formats that it tells,
and the page about it is whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import httpx
import jsonschema_rs
import pytest
import schemathesis

from media_gallery.http import API
from media_gallery.http.openapi import document
from tests import samples
from tests.service import Service, User, assert_error

pytestmark = pytest.mark.same_everywhere
DOCUMENT = document(API, "https://gallery.example.org")
OPERATIONS = {
    f"{method.upper()} {path.removeprefix('/api/v1/')}": operation
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
}


def check(schema: dict[str, Any], value: Any) -> None:
    """The value fits the schema, with its formats; raises ValidationError."""
    whole = {**schema, "components": DOCUMENT["components"]}
    jsonschema_rs.Draft202012Validator(whole, validate_formats=True).validate(value)


def bodies(operation: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What a call takes and answers: each has a `schema`, and `example` or `examples`."""
    yield from operation.get("requestBody", {}).get("content", {}).values()
    for answer in operation["responses"].values():
        yield from answer.get("content", {}).values()


def test_the_document_is_valid_and_has_every_call() -> None:
    schemathesis.openapi.from_dict(DOCUMENT).validate()
    assert {(operation.method, f"/api/v1{operation.path}/") for operation in API} == {
        (method.upper(), path) for path, methods in DOCUMENT["paths"].items() for method in methods
    }
    names = [operation["operationId"] for operation in OPERATIONS.values()]
    assert len(names) == len(set(names)) and all(operation["summary"] for operation in OPERATIONS.values())
    upload = OPERATIONS["POST files/upload/"]["requestBody"]["content"]["multipart/form-data"]["schema"]["properties"]
    assert {"file", "media_type", "context", "metadata", "size", "hash", "create_thumbnails"} <= set(upload)
    assert "xmpp_auth" in DOCUMENT["components"]["securitySchemes"]["bearer"]["description"]


def test_every_call_has_examples_that_fit_its_shapes() -> None:
    for name, operation in OPERATIONS.items():
        shown = [body.get("examples", {"": {"value": body.get("example")}}) for body in bodies(operation)]
        for body, examples in zip(bodies(operation), shown, strict=True):
            assert examples, name
            for example in examples.values():
                check(body["schema"], example["value"])
        for parameter in operation["parameters"]:
            if "example" in parameter:
                check(parameter["schema"], parameter["example"])
        asked = [p for p in operation["parameters"] if "example" in p] or "requestBody" in operation
        assert asked or not operation["parameters"], name
        for status, answer in operation["responses"].items():
            if status >= "400":
                [example] = answer["content"]["application/json"]["examples"].values()
                assert example["value"]["status"] == int(status)


def formats(schema: dict[str, Any]) -> set[str]:
    return {option["format"] for option in [schema, *schema.get("anyOf", [])] if "format" in option}


def test_shapes_tell_formats() -> None:
    shapes = DOCUMENT["components"]["schemas"]
    for name, shape in shapes.items():
        for key, schema in shape.get("properties", {}).items():
            if key in ("created_at", "expires", "last_used"):
                assert formats(schema) == {"date-time"}, (name, key)
            if key in ("id", "token_id", "size", "used", "quota", "stored", "required", "max_file_size"):
                assert formats(schema) == {"int64"}, (name, key)
            if key in ("file", "url", "documentation"):
                assert formats(schema) == {"uri"}, (name, key)
            if "jid" in key:
                assert formats(schema) == set(), (name, key)
    parameters = {p["name"]: p["schema"] for p in OPERATIONS["GET files/"]["parameters"]}
    assert formats(parameters["size_gte"]) == formats(parameters["id"]["items"]) == {"int64"}


def test_answers_are_as_the_document_tells(service: Service, anna: User, admin: User) -> None:
    assert service.http.get("/api/v1/openapi.json").json() == document(API, service.url)
    seen: dict[str, set[str]] = {}

    def see(answer: httpx.Response, call: str, *statuses: int) -> None:
        assert answer.status_code in statuses, (call, answer.text)
        told = OPERATIONS[call]["responses"][str(answer.status_code)]
        if "content" in told:
            check(told["content"]["application/json"]["schema"], answer.json())
        else:
            assert answer.content == b""
        assert set(told.get("headers", {})) <= {"WWW-Authenticate", "Retry-After"}
        assert all(header in answer.headers for header in told.get("headers", {})), call
        seen.setdefault(call, set()).add(str(answer.status_code))

    picture = samples.picture("png", 64, 64)
    for path in ("files/upload/", "avatar/upload/"):
        see(anna.send(picture, "кот & <b>.png", path=path, metadata={"a": 1}), f"POST {path}", 201)
        see(anna.http.post(path, data={"size": "1"}), f"POST {path}", 400)
    [file] = anna.items()
    for query in ({"name": "a", "size": 1}, {"name": "a", "size": file["size"], "hash": file["hash"]}):
        see(anna.get("files/slot/", **query), "GET files/slot/", 200)
    see(anna.get("files/slot/", name="a", size=2**40), "GET files/slot/", 403, 413)
    see(anna.get("files/slot/", name="a", size="many"), "GET files/slot/", 400)
    see(anna.get("files/percent/100/"), "GET files/percent/{percent}/", 200)
    for path in ("", "files/", "files/stats/", "avatar/", "account/", "account/quota/", "account/tokens/"):
        see(anna.get(path), f"GET {path}", 200)
    for user in (anna, admin):  # a setting opens this one; it answers as the list of one's own files
        see(user.get("account/files/", jid=anna.jid), "GET account/files/", 403)
    assert OPERATIONS["GET account/files/"]["responses"]["200"] == OPERATIONS["GET files/"]["responses"]["200"]
    seen["GET account/files/"] |= seen["GET files/"]
    for path in ("account/list/", "service/"):
        see(anna.get(path), f"GET {path}", 403)
        see(admin.get(path), f"GET {path}", 200)
    see(admin.put("account/quota/", jid=anna.jid, value=10**9), "PUT account/quota/", 200)
    see(anna.delete("files/", id=0), "DELETE files/", 404)
    see(anna.delete("files/", id=file["id"]), "DELETE files/", 204)
    see(service.http.get("/api/v1/files/"), "GET files/", 401)
    asked = service.http.post("/api/v1/account/xmpp_code_request/", json={"jid": anna.jid})
    see(asked, "POST account/xmpp_code_request/", 201)
    [code] = [row["code"] for row in service.log_lines() if row.get("jid") == anna.jid and "code" in row]
    wrong = {"jid": anna.jid, "code": str((int(code) + 1) % 10**6).zfill(6)}
    see(service.http.post("/api/v1/account/xmpp_auth/", json=wrong), "POST account/xmpp_auth/", 404)
    issued = service.http.post("/api/v1/account/xmpp_auth/", json={"jid": anna.jid, "code": code})
    see(issued, "POST account/xmpp_auth/", 201)
    with_body = {
        name
        for name, call in OPERATIONS.items()
        if any("content" in call["responses"].get(s, {}) for s in ("200", "201"))
    }
    assert with_body - {name for name, statuses in seen.items() if statuses & {"200", "201"}} == set()


def test_the_page_has_every_call_and_shape_and_runs_nothing_of_others(service: Service) -> None:
    page = service.http.get("/api/docs")
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "script-src 'self'" in policy
    for operation in OPERATIONS.values():
        assert f'<article id="{operation["operationId"]}">' in page.text
    for name in DOCUMENT["components"]["schemas"]:
        assert f'id="shape-{name}"' in page.text
    targets = set(re.findall(r'href="#([^"]+)"', page.text))
    assert targets <= set(re.findall(r'id="([^"]+)"', page.text))
    loaded = re.findall(r'(?:src|href)="([^#"]+)"', page.text)
    assert set(loaded) == {"/api/docs/reference.css", "/api/docs/reference.js", "/api/v1/openapi.json"}
    for address in loaded:
        assert service.http.get(address).status_code == 200
    assert " style=" not in page.text and "<style" not in page.text and " on" + "click" not in page.text
    assert re.findall(r"<script[^>]*>(.)", page.text) == ["<"]
    for other in ("nothing.js", "..%2freference.py", "reference.py"):
        assert_error(service.http.get(f"/api/docs/{other}"), 404)
