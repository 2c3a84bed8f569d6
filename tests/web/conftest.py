"""A browser on the page of a real service, whose codes a real Prosody delivers."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.async_api import Browser, ConsoleMessage, Page, Request, async_playwright, expect

from tests.service import Service, User
from tests.waiting import DEADLINE
from tests.xmpp.conftest import component_settings
from tests.xmpp.prosody import HOST, Prosody

expect.set_options(timeout=DEADLINE * 1000)
CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
LONG = ("test_screens.py", "test_many_items.py", "test_desk.py", "test_items.py")
"""The long form, which `make browser` runs."""
TELL_VIOLATIONS = (
    "addEventListener('securitypolicyviolation', e => console.error('policy:', e.violatedDirective, e.blockedURI))"
)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    return True if collection_path.name in LONG and not config.getoption("--browser") else None


@pytest.fixture(scope="session")
def prosody(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prosody]:
    server = Prosody(tmp_path_factory.mktemp("prosody"))
    server.register("romeo")
    yield server.start()
    server.stop()


@pytest.fixture(scope="session")
def gallery(start_service: Callable[..., Service], prosody: Prosody) -> Service:
    """A service whose codes reach people through Prosody."""
    service = start_service(
        kept=True, **component_settings(prosody) | {"ADMINS": f"admin@{HOST}", "ADMINS_SEE_FILES": "true"}
    )
    service.wait_until(lambda: "connected to the XMPP server" in service.log())
    return service


@pytest.fixture(scope="session")
async def chromium() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        # Chromium has no sandbox for root, as whom the tests run in a container.
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, chromium_sandbox=os.geteuid() != 0)
        yield browser
        await browser.close()


class Visit:
    """Pages that somebody opens. At its end, `check` tells what they did that they must not do."""

    def __init__(self, browser: Browser, service: Service) -> None:
        self.browser, self.service = browser, service
        self.hosts: set[str] = set()
        self.complaints: list[str] = []

    async def open(self, user: User | None = None, path: str = "/", origin: str = "", **options: Any) -> Page:
        """A page in a new browser profile, where `user` is signed in."""
        context = await self.browser.new_context(locale=options.pop("locale", "en-GB"), **options)
        context.set_default_timeout(DEADLINE * 1000)
        await context.add_init_script(TELL_VIOLATIONS)
        if user:
            session = json.dumps(json.dumps({"token": user.token, "jid": user.jid}))
            kept = f"sessionStorage.getItem('seen') || sessionStorage.setItem('gallery-session', {session});"
            await context.add_init_script(f"{kept} sessionStorage.setItem('seen', '1')")
        page = await context.new_page()
        page.on("request", self._note_request)
        page.on("console", self._note_console)
        page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        await page.goto((origin or self.service.url) + path)
        return page

    def _note_request(self, request: Request) -> None:
        if not request.url.startswith(("blob:", "data:")):
            self.hosts.add(urlsplit(request.url).netloc)

    def _note_console(self, message: ConsoleMessage) -> None:
        if message.type == "error" and "Failed to load resource" not in message.text:  # a refusal of the API
            self.complaints.append(message.text)

    def check(self, *hosts: str) -> None:
        assert self.hosts <= {urlsplit(self.service.url).netloc, *hosts}
        assert self.complaints == []


@pytest.fixture
async def visit(chromium: Browser, gallery: Service) -> AsyncIterator[Visit]:
    """Pages of the service, of which none may complain, or ask another host."""
    visit = Visit(chromium, gallery)
    yield visit
    for context in chromium.contexts:
        await context.close()
    visit.check()


async def drop(page: Page, *files: tuple[str, bytes, str]) -> None:
    """Drop files (name, bytes, type) onto the page."""
    given = [{"name": name, "data": list(data), "type": kind} for name, data, kind in files]
    carried = await page.evaluate_handle(
        """files => { const carried = new DataTransfer();
        for (const {name, data, type} of files) carried.items.add(new File([new Uint8Array(data)], name, {type}));
        return carried; }""",
        given,
    )
    await page.dispatch_event("main", "drop", {"dataTransfer": carried})


async def count(page: Page, selector: str, number: int) -> None:
    """Wait until so many elements match."""
    await expect(page.locator(selector)).to_have_count(number)


async def stop_clock(page: Page) -> None:
    """From now on no time passes for the page: notices stay that go after some seconds, with their ways to undo."""
    await page.clock.install()
    await page.clock.pause_at(datetime.now(UTC) + timedelta(hours=1))


async def until(page: Page, condition: str) -> None:
    """Wait until an expression is true. Playwright's own way to wait for one would be stopped by the page's policy."""
    async with asyncio.timeout(DEADLINE):
        while not await page.evaluate(condition):
            await page.wait_for_timeout(50)
