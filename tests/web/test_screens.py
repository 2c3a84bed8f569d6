"""Every screen: what axe finds, how it fits narrow windows, hostile files, refusals that are said, and another host."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Page, Route

from tests import samples
from tests.service import Service, User
from tests.web.conftest import Visit, count, drop, stop_clock, until
from tests.xmpp.prosody import HOST

pytestmark = pytest.mark.same_everywhere
HOSTILE = '<img src=x onerror="document.title=1">\u202egpj.svg'
TABS = ("image", "video", "voice", "file", "avatar", "account", "desk")


@pytest.fixture(scope="module")
def owner(gallery: Service) -> User:
    """An administrator who has something of every kind."""
    user = gallery.user(jid=f"admin@{HOST}")
    for number in range(30):
        user.upload(samples.picture("png", 64 + number, 64), f"picture {number}.png", metadata={"<b>": "</script>"})
    user.upload(samples.film("mp4", "libx264", 64, 64, 1), "film.mp4", "video/mp4")
    user.upload(samples.sound(), "voice.m4a", "audio/mp4", context="voice")
    user.upload(b"<svg xmlns='http://www.w3.org/2000/svg' onload='top.document.title=1'/>", HOSTILE, "image/svg+xml")
    user.upload(b"<script>document.title = 1</script>", "page.html", "text/html")
    user.upload(b"x", "very " * 40 + "long.txt", "text/plain")
    user.avatar(samples.picture("png", 64, 64))
    return user


async def press(page: Page, selector: str) -> None:
    await page.locator(selector).first.click()


async def see_files(page: Page) -> None:
    await press(page, f"button.link:has-text('admin@{HOST}')")
    await press(page, "dialog .sessions button")
    await page.wait_for_selector("dialog .sessions li a")


DIALOGS: dict[str, tuple[str, Callable[[Page], Awaitable[Any]]]] = {
    "viewer": ("image", lambda page: press(page, ".tile")),
    "film": ("video", lambda page: press(page, ".tile")),
    "sound": ("voice", lambda page: press(page, ".tile")),
    "selection": ("image", lambda page: page.locator(".tick").nth(1).check()),
    "filters": ("image", lambda page: press(page, "summary")),
    "space": ("image", lambda page: press(page, ".tools > .quiet")),
    "end": ("account", lambda page: press(page, "main > .danger")),
    "an account": ("desk", lambda page: press(page, "button.link")),
    "files of an account": ("desk", see_files),
}
"""What opens over a screen, and how."""


async def check(page: Page, what: str) -> None:
    """No violation of WCAG that axe knows, and no need to scroll sideways."""
    await page.wait_for_load_state("networkidle")
    found = await Axe().run(
        page, options={"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}
    )
    assert found.violations_count == 0, what + found.generate_report()
    assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth"), what


@pytest.mark.parametrize("language", ["en-GB", "ru-RU"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 1280])
async def test_every_screen_is_for_everybody(visit: Visit, owner: User, language: str, scheme: Any, width: int) -> None:
    options = {
        "locale": language,
        "color_scheme": scheme,
        "viewport": {"width": width, "height": 800},
        "bypass_csp": True,
    }
    page = await visit.open(**options)
    await page.wait_for_selector("input")
    await check(page, "sign in")
    page = await visit.open(owner, **options)
    for tab in TABS:
        await page.evaluate("tab => location.hash = tab", tab)
        await page.wait_for_selector(f"a[href='#{tab}'][aria-current]")
        await page.wait_for_selector(".skeleton", state="detached")
        await check(page, tab)
    for name, (tab, open_it) in DIALOGS.items():
        await page.evaluate("tab => location.hash = tab", tab)
        await page.wait_for_selector(f"a[href='#{tab}'][aria-current]")
        await open_it(page)
        await check(page, name)
        await page.keyboard.press("Escape")


async def test_hostile_files_and_names_do_nothing(visit: Visit, owner: User) -> None:
    page = await visit.open(owner)
    await count(page, ".tile", 31)
    await press(page, ".tile[aria-label*='onerror']")
    await page.wait_for_selector(".viewer .stage img")
    await press(page, ".viewer summary")
    await page.keyboard.press("Escape")
    await page.click("text=Files")
    await press(page, ".tile[aria-label*='html']")
    await page.wait_for_selector("text=This file cannot be shown here.")
    assert await page.title() == "Media gallery" and await page.locator("b, script:not([type=module])").count() == 0


async def test_the_page_works_under_another_host_than_the_links(visit: Visit, gallery: Service, owner: User) -> None:
    port = gallery.url.rpartition(":")[2]
    page = await visit.open(owner, origin=f"http://localhost:{port}", bypass_csp=False)
    await until(page, "[...document.querySelectorAll('.tile img')].some(image => image.naturalWidth)")
    assert visit.hosts == {f"localhost:{port}"}
    await page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    await press(page, ".tile")
    await stop_clock(page)
    await page.click("text=Copy link")
    await page.wait_for_selector("text=The link is copied.")
    assert (await page.evaluate("navigator.clipboard.readText()")).startswith(f"{gallery.url}/media/")
    visit.hosts.clear()


async def refuse(page: Page, path: str, status: int, seconds: int = 0, details: str = "") -> None:
    """Answer this path with a refusal."""

    async def answer(route: Route) -> None:
        body = f'{{"status": {status}, "error": "Refused", "details": {{{details}}}}}'
        headers = {"Retry-After": str(seconds)} if seconds else {}
        await route.fulfill(status=status, body=body, headers=headers, content_type="application/json")

    await page.route(f"**/{path}*", answer)


async def test_refusals_are_said_where_they_happen(visit: Visit, owner: User) -> None:
    page = await visit.open()
    for status, words in (
        (400, "not an XMPP address"),
        (403, "may not use"),
        (429, "in 5 minutes"),
        (503, "XMPP server cannot be reached"),
    ):
        await page.unroute_all()
        await refuse(page, "xmpp_code_request/", status, 300)
        await page.fill("input", "anna@example.org")
        await page.keyboard.press("Enter")
        await page.wait_for_selector(f"[role=alert] >> text={words}")
    page = await visit.open(owner)
    await count(page, ".tile", 31)
    for path, status, details, words in (
        ("files/slot/", 403, '"quota": 1, "used": 1, "required": 2', "There is no room left"),
        ("files/slot/", 413, '"max_file_size": 1', "larger than this service takes"),
        ("files/upload/", 507, "", "disk of the service is full"),
        ("files/upload/", 503, "", "not available right now. Try again in 5 minutes"),
    ):
        await page.unroute_all()
        await refuse(page, path, status, 300, details)
        await drop(page, ("new.txt", words.encode(), "text/plain"))
        await page.wait_for_selector(f".uploads >> text={words}")
        await page.click(".uploads .close")
    await page.unroute_all()
    await refuse(page, "files/?", 503, 300)
    await page.click("text=Voice")
    await page.wait_for_selector("main [role=alert] >> text=Try again in 5 minutes")
    await page.unroute_all()
    await page.click("main >> button:text('Try again')")
    await count(page, ".tile", 1)


async def test_a_lost_connection_is_said_and_an_upload_is_tried_again(visit: Visit, gallery: Service) -> None:
    page = await visit.open(gallery.user("anna"))
    await page.wait_for_selector("text=There is nothing here yet.")
    await page.context.set_offline(True)
    await page.wait_for_selector(".banner >> text=There is no connection")
    await drop(page, ("one.png", samples.picture("png", 64, 64), "image/png"))
    await page.wait_for_selector(".uploads >> text=There is no connection")
    await page.context.set_offline(False)
    await page.click(".uploads >> text=Try again")
    await count(page, ".tile", 1)
