"""The page about the API for people: what the OpenAPI document says, and a form for each call to try it."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from media_gallery.errors import NotFound
from media_gallery.http.openapi import document
from media_gallery.http.operations import Operation
from media_gallery.http.pages import TYPES, Asset, content_security_policy, without_comments

FILES = tuple(Path(__file__).with_name(name) for name in ("reference.css", "reference.js"))
_HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": content_security_policy(),
    "X-Frame-Options": "DENY",
}


class Reference:
    """The document, made once: for programs, and as a page, which loads its style and its script from here alone."""

    def __init__(self, operations: Sequence[Operation], public_url: str) -> None:
        described = document(operations, public_url)
        self._body = msgspec.json.encode(described)
        self._page = Asset.of(TYPES[".html"], page(described).encode())
        self._files = {path.name: Asset.of(TYPES[path.suffix], without_comments(path).encode()) for path in FILES}

    async def document(self, request: Request) -> Response:
        return Response(self._body, media_type="application/json")

    async def page(self, request: Request) -> Response:
        return self._page.answer(request, _HEADERS)

    async def file(self, request: Request) -> Response:
        """The page's style or script. Raises NotFound."""
        asset = self._files.get(request.path_params["file"])
        if asset is None:
            raise NotFound("There is no such address")
        return asset.answer(request, _HEADERS)


def page(described: dict[str, Any]) -> str:
    """The whole page in HTML. Its addresses begin with the path of the public address, if that has one."""
    [server] = described["servers"]
    calls = [(method, path, call) for path, methods in described["paths"].items() for method, call in methods.items()]
    groups = {group: [call for call in calls if call[2]["tags"] == [group]] for _, _, c in calls for group in c["tags"]}
    index = "".join(
        f"<li>{group}<ul>" + "".join(_entry(method, path, call) for method, path, call in members) + "</ul>"
        for group, members in groups.items()
    )
    sections = "".join(
        f"<section><h2>{group}</h2>" + "".join(_call(server["url"], *member) for member in members) + "</section>"
        for group, members in groups.items()
    )
    schemas = described["components"]["schemas"]
    return _PAGE.format(
        base=escape(urlsplit(server["url"]).path.rstrip("/")),
        index=index,
        sections=sections,
        sign_in=_paragraphs(described["components"]["securitySchemes"]["bearer"]["description"]),
        shapes="".join(_shape(name, schema) for name, schema in sorted(schemas.items())),
    )


def _entry(method: str, path: str, call: dict[str, Any]) -> str:
    return f'<li><a href="#{call["operationId"]}"><b>{method.upper()}</b> {escape(path.removeprefix("/api/v1"))}</a>'


def _call(server: str, method: str, path: str, call: dict[str, Any]) -> str:
    parameters = _parameters(call)
    table = _table([(p["name"], p["required"], p["schema"]) for p in parameters])
    answers = "".join(_answer(status, answer) for status, answer in call["responses"].items() if status < "300")
    refusals = " · ".join(
        f"<b>{status}</b> {escape(answer['description'])}"
        for status, answer in call["responses"].items()
        if status >= "300"
    )
    security = call.get("security")
    needs = (
        "No token is needed."
        if not security
        else "Needs a token."
        if {} not in security
        else "Needs a token or a code."
    )
    return f"""<article id="{call["operationId"]}"><h3><b>{method.upper()}</b> {escape(path)}</h3>
<p>{_marked(call["summary"])} <span class="dim">{needs}</span></p>{table}
<h4>Request</h4>{_code(_curl(server, method, path, parameters, bool(security)))}
{answers}<p class="dim">Refusals: {refusals}</p>{_form(method, path, call["operationId"], parameters)}</article>
"""


def _parameters(call: dict[str, Any]) -> list[dict[str, Any]]:
    """All parameters of a call, wherever they go: `in` is `path`, `query`, `body` or `form`."""
    parameters: list[dict[str, Any]] = list(call["parameters"])
    for kind, body in call.get("requestBody", {}).get("content", {}).items():
        for name, schema in body["schema"]["properties"].items():
            shown = {"example": body["example"][name]} if name in body["example"] else {}
            where, required = "form" if "form" in kind else "body", name in body["schema"]["required"]
            parameters.append({"name": name, "in": where, "required": required, "schema": schema, **shown})
    return parameters


def _curl(server: str, method: str, path: str, parameters: list[dict[str, Any]], needs_token: bool) -> str:
    """The example of a request as a command for a shell."""
    given = {p["name"]: p["example"] for p in parameters if "example" in p and p["in"] != "path"}
    for parameter in parameters:
        if parameter["in"] == "path":
            path = path.replace(f"{{{parameter['name']}}}", str(parameter["example"]))
    words = ["curl"] + ([f"-X {method.upper()}"] if method in ("put", "delete") else [])
    words += ['-H "Authorization: Bearer $TOKEN"'] if needs_token else []
    query = ""
    if any(p["in"] == "form" for p in parameters):
        fields = {**given, "file": "@file.jpg"}
        words += [f"-F {shlex.quote(f'{name}={_text(value)}')}" for name, value in fields.items()]
    elif method == "get":
        query = f"?{urlencode({name: _text(value) for name, value in given.items()})}" if given else ""
    elif given:
        words.append(f"--json {shlex.quote(json.dumps(given))}")
    return " ".join([*words, shlex.quote(f"{server}{path}{query}")])


def _text(value: Any) -> str:
    """A value as it stands in a query or a form."""
    return value if isinstance(value, str) else json.dumps(value)


def _answer(status: str, answer: dict[str, Any]) -> str:
    if "content" not in answer:
        return f"<h4>Answer</h4><p><b>{status}</b>, without a body</p>"
    body = answer["content"]["application/json"]
    shown = "".join(_code(json.dumps(e["value"], indent=2, ensure_ascii=False)) for e in body["examples"].values())
    return f"<h4>Answer</h4><p><b>{status}</b> {_type(body['schema'])}</p>{shown}"


def _form(method: str, path: str, name: str, parameters: list[dict[str, Any]]) -> str:
    """What the script sends; without it, the form stays closed to use, since the policy lets no form be sent."""
    fields = "".join(_field(name, parameter) for parameter in parameters)
    return (
        f'<details><summary>Try it</summary><form data-method="{method.upper()}" data-path="{escape(path)}" '
        f'aria-label="{method.upper()} {escape(path)}">{fields}<button>Send</button>'
        '<div class="answer" role="status"></div></form></details>'
    )


def _field(call: str, parameter: dict[str, Any]) -> str:
    name, schema = parameter["name"], parameter["schema"]
    options = schema.get("enum") or (["true", "false"] if schema.get("type") == "boolean" else [])
    attributes = f'name="{escape(name)}" data-in="{parameter["in"]}"' + " required" * parameter["required"]
    if options:
        choice = "".join(f"<option>{escape(str(option))}" for option in ["", *options])
        control = f"<select {attributes}>{choice}</select>"
    else:
        kind = "file" if schema.get("format") == "binary" else "text"
        many = " data-list" if schema.get("type") == "array" else ""
        empty = " data-null" if {"type": "null"} in schema.get("anyOf", []) else ""
        hint = (
            f' placeholder="{escape(_text(parameter["example"]))}"' if "example" in parameter and kind == "text" else ""
        )
        control = f'<input type="{kind}" {attributes}{many}{empty}{hint} autocomplete="off">'
    return f"<label><span>{escape(name)}{' *' if parameter['required'] else ''}</span>{control}</label>"


def _shape(name: str, schema: dict[str, Any]) -> str:
    required = schema.get("required", [])
    rows = [(key, key in required, value) for key, value in schema.get("properties", {}).items()]
    return f'<article id="shape-{escape(name)}"><h3>{escape(_plain(name))}</h3>{_table(rows)}</article>'


def _table(rows: list[tuple[str, bool, dict[str, Any]]]) -> str:
    if not rows:
        return ""
    lines = "".join(
        f'<tr><th scope="row"><code>{escape(name)}</code>{" *" if required else ""}</th><td>{_type(schema)}</td>'
        f"<td>{_marked(schema.get('description', ''))}</td></tr>"
        for name, required, schema in rows
    )
    return f'<div class="wide" tabindex="0"><table>{lines}</table></div>'


def _type(schema: dict[str, Any]) -> str:
    """A type in HTML: a link, if it is a shape."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f'<a href="#shape-{escape(name)}">{escape(_plain(name))}</a>'
    if "enum" in schema:
        return " | ".join(f"<code>{escape(str(value))}</code>" for value in schema["enum"])
    if "anyOf" in schema:
        return " | ".join(_type(option) for option in schema["anyOf"])
    if schema.get("type") == "array":
        return f"list of {_type(schema['items'])}"
    kind, form = str(schema.get("type", "any")), schema.get("format")
    return escape(f"{kind} ({form})" if form else kind)


def _plain(name: str) -> str:
    """`PageOf_FileObject_`, as components are called, in words."""
    return name.strip("_").replace("_", " ").replace("PageOf", "Page of")


def _marked(text: str) -> str:
    """HTML of a text; what is between backticks becomes code."""
    return re.sub("`([^`]+)`", r"<code>\1</code>", escape(text))


def _paragraphs(text: str) -> str:
    """HTML of a text with paragraphs and numbered steps."""
    parts = []
    for part in text.strip().split("\n\n"):
        steps = re.split(r"^\d+\. ", part, flags=re.MULTILINE)[1:]
        parts.append(
            f"<ol>{''.join(f'<li>{_marked(step)}' for step in steps)}</ol>" if steps else f"<p>{_marked(part)}</p>"
        )
    return "".join(parts)


def _code(text: str) -> str:
    return f'<pre tabindex="0"><code>{escape(text)}</code></pre>'


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark"><title>Media gallery API</title>
<link rel="stylesheet" href="{base}/api/docs/reference.css">
<script type="module" src="{base}/api/docs/reference.js"></script></head>
<body><main><h1>Media gallery API</h1>
<p>This service keeps files that people send in XMPP chats: an app uploads a file, the recipient gets a link.
Bodies are JSON unless said otherwise, sizes are bytes, times are ISO 8601 in UTC. A star marks what is required.
Every path answers with and without its last slash.
For programs, the same as an OpenAPI document: <a href="{base}/api/v1/openapi.json">openapi.json</a>.</p>
<section id="token"><h2>Authentication</h2>{sign_in}
<label><span>Your token, for trying calls. It stays in this page and is forgotten when you leave it.</span>
<input type="password" id="bearer" autocomplete="off" spellcheck="false"></label>
<noscript><p>To try calls, the page needs JavaScript.</p></noscript></section>
<nav aria-label="Calls"><ul>{index}<li><a href="#shapes">Shapes of answers</a></ul></nav>
{sections}<section id="shapes"><h2>Shapes of answers</h2>{shapes}</section></main></body></html>
"""
