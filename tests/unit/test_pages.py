"""The page for people: what is served, how, and what its files must and must not hold."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from media_gallery.app import build
from media_gallery.http import PAGE, PAGE_FILES
from media_gallery.http.pages import FOLDER, TYPES, Pages, content_security_policy, without_comments
from media_gallery.settings import Settings

SCRIPTS = {path.relative_to(FOLDER).as_posix(): path.read_text() for path in sorted(FOLDER.rglob("*.js"))}
TEXTS = {path.stem: json.loads(path.read_text()) for path in sorted(FOLDER.glob("texts/*.json"))}


@pytest.fixture
async def http(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(build(Settings(data_dir=tmp_path)))
    async with httpx.AsyncClient(transport=transport, base_url="http://gallery") as http:
        yield http


async def test_the_page_names_its_files_and_they_are_there(http: httpx.AsyncClient) -> None:
    page = await http.get("/")
    assert page.status_code == 200 and page.headers["Content-Type"] == TYPES[".html"]
    assert page.headers["Cache-Control"] == "no-cache" and "VERSION" not in page.text
    named = re.findall(r'(?:href|src)="([^"]+)"', page.text)
    assert len(named) > 10
    for name in named:
        file = await http.get(f"/{name}")
        assert file.status_code == 200 and file.headers["Content-Type"] == TYPES[Path(name).suffix]
        assert file.headers["Cache-Control"] == "public, max-age=31536000, immutable"
        assert file.headers["X-Content-Type-Options"] == "nosniff"
    assert (await http.get("/", headers={"Accept-Encoding": "identity"})).content == page.content


async def test_a_browser_that_has_a_file_gets_it_not_again(http: httpx.AsyncClient) -> None:
    for path in ("/", "/web/x/main.js"):
        tags = set()
        for encoding in ("gzip", "identity"):
            file = await http.get(path, headers={"Accept-Encoding": encoding})
            assert (
                file.headers.get("Content-Encoding", "identity") == encoding
                and "Accept-Encoding" in file.headers["Vary"]
            )
            again = {"Accept-Encoding": encoding, "If-None-Match": f'"other", W/{file.headers["ETag"]}'}
            assert (await http.get(path, headers=again)).status_code == 304
            dated = {"If-Modified-Since": "Fri, 01 Jan 2100 00:00:00 GMT"}  # the page does not tell its date
            assert (await http.get(path, headers=dated)).status_code == 200
            tags.add(file.headers["ETag"])
        assert len(tags) == 2


async def test_files_of_another_version_are_asked_for_each_time(http: httpx.AsyncClient) -> None:
    assert (await http.get("/web/0123456789abcdef/main.js")).headers["Cache-Control"] == "no-cache"
    for path in ("/web/x/nothing.js", "/web/x/..%2f..%2fapp.py", "/web/x/index.html"):
        assert (await http.get(path)).status_code == 404


async def test_a_setting_turns_it_off(tmp_path: Path) -> None:
    """Then the page about the API stands in its place, and tells what this is."""
    app = build(Settings(data_dir=tmp_path, web_page=False))
    assert PAGE_FILES not in {getattr(route, "path", "") for route in app.routes}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gallery") as http:
        page = await http.get(PAGE)
        assert page.status_code == 200 and page.text == (await http.get("/api/docs/")).text
        assert "keeps files that people send in XMPP chats" in page.text


async def test_nothing_is_loaded_from_elsewhere_and_no_text_becomes_markup(http: httpx.AsyncClient) -> None:
    policy = (await http.get("/")).headers["Content-Security-Policy"]
    rules = {name: rest for name, _, rest in (rule.strip().partition(" ") for rule in policy.split(";"))}
    assert rules["default-src"] == rules["form-action"] == rules["base-uri"] == rules["frame-ancestors"] == "'none'"
    assert rules["script-src"] == rules["style-src"] == rules["connect-src"] == rules["media-src"] == "'self'"
    assert rules["img-src"] == "'self' blob:"
    assert rules["require-trusted-types-for"] == "'script'" and rules["trusted-types"] == "'none'"
    page = without_comments(FOLDER / "index.html")
    assert "style=" not in page and not re.search(r"<script(?! type=\"module\" src=)| on\w+=", page)
    for name, script in SCRIPTS.items():
        found = re.findall(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|https?://", script
        )
        assert found == [], name


def test_a_store_to_which_downloads_are_redirected_may_show_its_pictures() -> None:
    store = {"storage_url": "s3://bucket", "s3_delivery": "redirect"}
    for more, host in (
        (
            {"s3_endpoint": "https://s3.example.org/x", "s3_public_endpoint": "https://media.example.org:8443"},
            "https://media.example.org:8443",
        ),
        ({"s3_endpoint": "https://s3.example.org"}, "https://s3.example.org"),
        ({"s3_region": "eu-north-1"}, "https://s3.eu-north-1.amazonaws.com"),
    ):
        policy = Pages(Settings(**store, **more)).policy  # type: ignore[arg-type]
        assert (
            policy == content_security_policy(host)
            and f"img-src 'self' {host} blob:; media-src 'self' {host};" in policy
        )
    assert Pages(Settings(storage_url="s3://bucket")).policy == content_security_policy()


def test_readers_get_no_comments() -> None:
    for path in FOLDER.rglob("*.js"):
        served = without_comments(path)
        assert "/*" not in served and not re.search(r"^\s|^//|\n\n", served)
        for string in re.findall(r'"[^"\n]*"|`[^`]*`', re.sub(r"/\*.*?\*/", "", path.read_text(), flags=re.DOTALL)):
            assert "/*" not in string and "\n" not in string, (path, string)


def test_every_language_has_the_same_texts_and_all_are_used() -> None:
    assert set(TEXTS) >= {"en", "ru"}
    code = "\n".join(SCRIPTS.values())
    for language, table in TEXTS.items():
        assert list(table) == list(TEXTS["en"]), language
        assert f'  {language}: "' in SCRIPTS["language.js"] or f' {language}: "' in SCRIPTS["language.js"]
        for key, words in table.items():
            values = [
                set(re.findall(r"{(\w+)}", text)) for text in (words.values() if isinstance(words, dict) else [words])
            ]
            assert all(value == set(re.findall(r"{(\w+)}", str(TEXTS["en"][key]))) for value in values), (language, key)
    assert [key for key in TEXTS["en"] if f'"{key}"' not in code] == []
    assert {form for words in TEXTS["ru"].values() if isinstance(words, dict) for form in words} == {
        "one",
        "few",
        "many",
        "other",
    }


def test_the_page_is_small() -> None:
    """What a person loads in all, in the larger language: bytes as they are, and as they are sent."""
    pages = Pages(Settings())
    loaded = [a for name, a in pages.assets.items() if not name.startswith(("desk/", "texts/en"))]
    loaded.append(pages.index)
    assert sum(len(asset.body) for asset in loaded) < 67 * 1024
    assert sum(len(asset.compressed) for asset in loaded) < 25.5 * 1024
