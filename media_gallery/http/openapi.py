"""The OpenAPI document, made from the route table, and a page that shows it."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from html import escape
from types import UnionType
from typing import Any, get_args

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from media_gallery import __version__, errors
from media_gallery.http import parameters, shapes
from media_gallery.http.operations import Operation

_REF = "#/components/schemas/{name}"
_PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
}
SENTENCES = {
    refusal.status: refusal.sentence
    for refusal in reversed(list(vars(errors).values()))
    if inspect.isclass(refusal) and issubclass(refusal, errors.GalleryError)
}


def document(operations: Sequence[Operation], public_url: str) -> dict[str, Any]:
    """The API in OpenAPI 3.1."""
    members = {
        member for operation in operations for answer in operation.answers.values() for member in _members(answer)
    }
    _, components = msgspec.json.schema_components([*members, shapes.Error], ref_template=_REF)
    paths: dict[str, Any] = {}
    for operation in operations:
        path = paths.setdefault(f"/api/v1{operation.path}/", {})
        path[operation.method.lower()] = _operation(operation)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Media gallery", "version": __version__, "description": "File sharing for XMPP chat"},
        "servers": [{"url": public_url}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(operation: Operation) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": operation.handler.__name__,
        "summary": _summary(operation),
        "responses": {
            **{str(status): _response(answer) for status, answer in operation.answers.items()},
            **{str(status): _refusal(status) for status in _refusals(operation)},
        },
        "parameters": [
            {"name": name, "in": "path", "required": True, "schema": {"type": "integer", "minimum": 1, "maximum": 100}}
            for name in re.findall(r"{(\w+)}", operation.path)
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
        described["requestBody"] = {"required": True, "content": {"multipart/form-data": {"schema": schema}}}
    elif operation.method in ("POST", "PUT"):
        content = {"application/json": {"schema": schema}}
        described["requestBody"] = {"required": bool(schema["required"]), "content": content}
    else:
        described["parameters"] += _query(schema)
    return described


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


def _query(schema: dict[str, Any]) -> list[dict[str, Any]]:
    required = schema["required"]
    parameters = []
    for name, described in schema["properties"].items():
        described = _without_null(described)
        parameter = {"name": name, "in": "query", "required": name in required, "schema": described}
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


def _response(answer: Any) -> dict[str, Any]:
    if answer is None:
        return {"description": "Done"}
    schemas, _ = msgspec.json.schema_components(_members(answer), ref_template=_REF)
    schema = schemas[0] if len(schemas) == 1 else {"anyOf": list(schemas)}
    return {"description": "Done", "content": {"application/json": {"schema": schema}}}


def _members(answer: Any) -> tuple[Any, ...]:
    """The types that an answer may have."""
    if isinstance(answer, UnionType):
        return get_args(answer)
    return () if answer is None else (answer,)


def _refusal(status: int) -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": _REF.format(name="Error")}}}
    return {"description": SENTENCES.get(status, "Refused"), "content": content}


class Document:
    """The document, made once: for programs, and as a page for people, without scripts and without other files."""

    def __init__(self, operations: Sequence[Operation], public_url: str) -> None:
        described = document(operations, public_url)
        sections = "".join(
            _section(method, path, operation)
            for path, methods in described["paths"].items()
            for method, operation in methods.items()
        )
        self._body, self._page = msgspec.json.encode(described), _PAGE.format(sections=sections)

    async def answer(self, request: Request) -> Response:
        return Response(self._body, media_type="application/json")

    async def page(self, request: Request) -> Response:
        return Response(self._page, media_type="text/html; charset=utf-8", headers=_PAGE_HEADERS)


def _section(method: str, path: str, operation: dict[str, Any]) -> str:
    parameters = [(p["name"], p["schema"], p["required"]) for p in operation["parameters"]]
    for body in operation.get("requestBody", {}).get("content", {}).values():
        parameters += [
            (name, schema, name in body["schema"]["required"]) for name, schema in body["schema"]["properties"].items()
        ]
    rows = "".join(
        f"<tr><td><code>{escape(name)}</code>{' *' if required else ''}<td>{escape(_type(schema))}"
        f"<td>{_marked(schema.get('description', ''))}"
        for name, schema, required in parameters
    )
    answers = " · ".join(f"<b>{status}</b> {escape(a['description'])}" for status, a in operation["responses"].items())
    table = f"<table>{rows}</table>" if rows else ""
    return (
        f"<section><h2><span>{method.upper()}</span> {escape(path)}</h2><p>{_marked(operation['summary'])}</p>"
        f"{table}<p class=answers>{answers}</p></section>"
    )


def _marked(text: str) -> str:
    """HTML of a text; what is between backticks becomes code."""
    return re.sub("`([^`]+)`", r"<code>\1</code>", escape(text))


def _type(schema: dict[str, Any]) -> str:
    if "enum" in schema:
        return " | ".join(str(value) for value in schema["enum"] if value is not None)
    if "anyOf" in schema:
        return " | ".join(_type(option) for option in schema["anyOf"] if option.get("type") != "null")
    if schema.get("type") == "array":
        return f"list of {_type(schema['items'])}"
    return str(schema.get("type", "any"))


_PAGE = """<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content="width=device-width">
<title>Media gallery API</title><style>
body{{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222;background:#fff}}
section{{border-top:1px solid #ddd;padding:.5rem 0}}h2{{font-size:1.1rem;font-family:monospace}}
h2 span{{display:inline-block;min-width:4.5rem;color:#06c}}table{{border-collapse:collapse;width:100%}}
td{{padding:.15rem .5rem;vertical-align:top;border-bottom:1px solid #eee}}.answers{{color:#666;font-size:.85rem}}
@media(prefers-color-scheme:dark){{
body{{background:#181818;color:#ddd}}h2 span{{color:#6af}}td,section{{border-color:#333}}}}
</style><h1>Media gallery API</h1>
<p>The same as a document for programs: <a href="/api/v1/openapi.json">openapi.json</a>. A star marks what is required.
Every path answers with and without its last slash.</p>
{sections}</html>
"""
