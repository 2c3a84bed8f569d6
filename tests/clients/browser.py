"""Converse.js in Chromium, on a page of the XMPP server, which it speaks to over WebSocket."""

from __future__ import annotations

import json
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from playwright.async_api import async_playwright

from tests.clients.conftest import Person
from tests.clients.terminal import Send
from tests.waiting import DEADLINE
from tests.web.conftest import CHROMIUM

_PAGE = """<!doctype html><meta charset="utf-8"><title>Chat</title>
<link rel="stylesheet" href="converse/converse.min.css"><script src="converse/converse.min.js"></script>
<body><script>converse.initialize({settings})</script>
"""
_NO_OTHER_HOST = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"


@asynccontextmanager
async def converse(person: Person, to: str) -> AsyncIterator[Send]:
    _trust(person)
    url = person.network.prosody.web_url
    settings = {"jid": person.jid, "password": person.name, "auto_login": True, "discover_connection_methods": False,
                "websocket_url": f"{url.replace('https', 'wss')}/xmpp-websocket", "view_mode": "fullscreen",
                "assets_path": f"{url}/files/converse/"}  # fmt: skip
    page = person.network.pages / f"{person.name}.html"
    page.write_text(_PAGE.format(settings=json.dumps(settings)))
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=CHROMIUM, env=person.environment(), args=[_NO_OTHER_HOST]
        )
        tab = await browser.new_page()
        tab.set_default_timeout(DEADLINE * 1000)
        await tab.goto(f"{url}/files/{page.name}#converse/chat?jid={to}")

        async def send(file: Path) -> None:
            await tab.locator("input.fileupload").set_input_files(file)

        yield send
        await browser.close()


def _trust(person: Person) -> None:
    """Make Chromium trust the authority. It has a database of its own for that."""
    trusted = person.home / ".pki" / "nssdb"
    trusted.mkdir(parents=True)
    certutil = ["certutil", "-d", f"sql:{trusted}"]
    subprocess.run([*certutil, "-N", "--empty-password"], check=True)
    subprocess.run([*certutil, "-A", "-t", "C,,", "-n", "tests", "-i", person.network.authority], check=True)
