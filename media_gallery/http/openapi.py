"""The OpenAPI document (version 3.1), made from the route table."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from types import UnionType
from typing import Any, get_args

import msgspec

from media_gallery import __version__, errors
from media_gallery.http import examples, parameters, shapes
from media_gallery.http.operations import Operation

_REF = "#/components/schemas/{name}"
_SIGN_IN = """A token, in the header `Authorization: Bearer TOKEN`. It is shown once, and can be revoked. To get one:

1. `POST /api/v1/account/xmpp_code_request/` with your `jid`: a code of six digits comes to you over XMPP.
2. `POST /api/v1/account/xmpp_auth/` with `jid` and `code`: the answer has the `token`.

Whoever runs the service can also make one, for a program: `media-gallery token create JID`.
"""
SENTENCES = {
    refusal.status: refusal.sentence
    for refusal in reversed(list(vars(errors).values()))
    if inspect.isclass(refusal) and issubclass(refusal, errors.GalleryError)
}

_RETRY = {"Retry-After": {"description": "Seconds until one may come again", "schema": {"type": "integer"}}}
_HEADERS = {
    401: {"WWW-Authenticate": {"description": "`Bearer`", "schema": {"type": "string"}}},
    429: _RETRY,
    503: _RETRY,
}
"""Headers of refusals that a client should read."""


def document(operations: Sequence[Operation], public_url: str) -> dict[str, Any]:
    """The API in OpenAPI 3.1."""
    members = {
        member for operation in operations for answer in operation.answers.values() for member in _members(answer)
    }
    _, components = msgspec.json.schema_components([*members, shapes.Error], ref_template=_REF)
    paths: dict[str, Any] = {}
    for operation in operations:
        path = paths.setdefault(f"/api/v1{operation.path}/", {})
        path[operation.method.lower()] = _operation(operation, public_url)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Media gallery", "version": __version__, "description": "File sharing for XMPP chat"},
        "servers": [{"url": public_url}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer", "description": _SIGN_IN}},
        },
    }


def _operation(operation: Operation, public_url: str) -> dict[str, Any]:
    name = operation.handler.__name__
    told, asked = examples.ANSWERS.get(name, _nothing)(public_url), examples.REQUESTS.get(name, {})
    of_file = operation.path in ("/files/slot", "/files/upload", "/avatar/upload")
    described: dict[str, Any] = {
        "operationId": name,
        "tags": [operation.path.split("/")[1] if operation.path else "service"],
        "summary": _summary(operation),
        "responses": {
            **{str(status): _response(answer, told) for status, answer in operation.answers.items()},
            **{str(status): _refusal(status, of_file) for status in _refusals(operation)},
        },
        "parameters": [
            {
                "name": part,
                "in": "path",
                "required": True,
                "schema": {"type": "integer", "minimum": 1, "maximum": 100},
                "example": examples.PATH[part],
            }
            for part in re.findall(r"{(\w+)}", operation.path)
        ],
    }
    if operation.needs != "nothing":
        described["security"] = [{"bearer": []}] + ([{}] if operation.needs == "token or code" else [])
    schema = _inline(operation.form or operation.params)
    if operation.form is not None:
        schema["properties"] = {name: _without_null(field) for name, field in schema["properties"].items()}
        schema["properties"]["file"] = {"type": "string", "format": "binary"}
        described_metadata = schema["properties"]["metadata"]["description"]
        schema["properties"]["metadata"] = {"type": "string", "description": described_metadata}
        schema["required"] = ["file"]
        described["requestBody"] = {
            "required": True,
            "content": {"multipart/form-data": {"schema": schema, "example": {**asked, "file": "(the bytes)"}}},
        }
    elif operation.method in ("POST", "PUT"):
        content = {"application/json": {"schema": schema, "example": asked}}
        described["requestBody"] = {"required": bool(schema["required"]), "content": content}
    else:
        described["parameters"] += _query(schema, asked)
    return described


def _nothing(public_url: str) -> dict[str, Any]:
    return {}


def _refusals(operation: Operation) -> list[int]:
    always = {500, 503} if operation.needs == "nothing" else {401, 500, 503}
    if operation.params is not parameters.Nothing:  # they may come in a body, which may be too slow or too large
        always |= {400, 408, 413}
    return sorted(always | set(operation.refusals))


def _summary(operation: Operation) -> str:
    """The first line of the handler's docstring."""
    said = (inspect.getdoc(operation.handler) or "").partition("\n")[0]
    return f"{said} Administrators only." if operation.needs == "admin" else said


def _inline(struct: type[msgspec.Struct]) -> dict[str, Any]:
    (reference,), components = msgspec.json.schema_components([struct], ref_template=_REF)
    schema: dict[str, Any] = components[reference["$ref"].rpartition("/")[2]]
    return {"type": "object", "properties": dict(schema["properties"]), "required": schema.get("required", [])}


def _query(schema: dict[str, Any], asked: dict[str, Any]) -> list[dict[str, Any]]:
    required = schema["required"]
    parameters = []
    for name, described in schema["properties"].items():
        described = _without_null(described)
        parameter = {"name": name, "in": "query", "required": name in required, "schema": described}
        if name in asked:
            parameter["example"] = asked[name]
        if described.get("type") == "array":
            parameter |= {"style": "form", "explode": False}
        parameters.append(parameter)
    return parameters


def _without_null(described: dict[str, Any]) -> dict[str, Any]:
    """Remove null: a query or a form cannot express it, but leaves the parameter out."""
    described = {key: value for key, value in described.items() if not (key == "default" and value is None)}
    options = [option for option in described.pop("anyOf", []) if option != {"type": "null"}]
    if len(options) == 1:
        described |= options[0]
    elif options:
        described["anyOf"] = options
    if "enum" in described:
        described["enum"] = [value for value in described["enum"] if value is not None]
    return described


def _response(answer: Any, told: dict[str, Any]) -> dict[str, Any]:
    if answer is None:
        return {"description": "Done"}
    schemas, _ = msgspec.json.schema_components(_members(answer), ref_template=_REF)
    schema = schemas[0] if len(schemas) == 1 else {"anyOf": list(schemas)}
    shown = {name: {"value": msgspec.to_builtins(value)} for name, value in told.items()}
    return {"description": "Done", "content": {"application/json": {"schema": schema, "examples": shown}}}


def _members(answer: Any) -> tuple[Any, ...]:
    """The types that an answer may have."""
    if isinstance(answer, UnionType):
        return get_args(answer)
    return () if answer is None else (answer,)


def _refusal(status: int, of_file: bool) -> dict[str, Any]:
    sentence = SENTENCES.get(status, "Refused")
    body = {
        "schema": {"$ref": _REF.format(name="Error")},
        "examples": {"refusal": {"value": examples.refusal(status, sentence, of_file)}},
    }
    described: dict[str, Any] = {"description": sentence, "content": {"application/json": body}}
    if status in _HEADERS:
        described["headers"] = _HEADERS[status]
    return described
