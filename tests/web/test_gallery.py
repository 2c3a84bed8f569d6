"""The short form of the tests in a browser: a person signs in by a real chat message, and does everything once."""

from __future__ import annotations

import asyncio
import re

import httpx
import pytest
from playwright.async_api import Page, Route

from tests import samples
from tests.service import Service, User, assert_error
from tests.waiting import DEADLINE
from tests.web.conftest import Visit, count, drop, stop_clock, until
from tests.xmpp.conftest import signed_in
from tests.xmpp.prosody import HOST, Prosody

pytestmark = pytest.mark.same_everywhere


async def asked(page: Page) -> httpx.Response:
    """Ask for a code until the XMPP server takes it: the service gives it some seconds alone for that. The answer."""
    async with asyncio.timeout(DEADLINE):
        while True:
            async with page.expect_response("**/xmpp_code_request/") as answered:
                await page.click("text=Send me a code")
            answer = await answered.value
            if answer.status != 503:
                return httpx.Response(answer.status, content=await answer.body())


async def test_a_person_signs_in_and_does_everything_once(visit: Visit, gallery: Service, prosody: Prosody) -> None:
    page = await visit.open()
    async with signed_in(f"romeo@{HOST}", prosody) as romeo:
        await page.fill("input[autocomplete=username]", f"Romeo@{HOST}")
        [code] = re.findall(r"\d{6}", (await romeo.code(await asked(page)))["body"])
        await page.fill("input.code", str((int(code) + 1) % 10**6).zfill(6))
        await page.wait_for_selector("text=You have 4 more tries")
        await page.fill("input.code", f"Code: {code}.")  # as it is when a whole message is pasted
    await page.wait_for_selector("text=There is nothing here yet.")

    pictures = [(f"<b>{n} & кот.png", samples.picture("png", 64 + n, 64), "image/png") for n in range(3)]
    await drop(page, *pictures, ("film.mp4", samples.film("mp4", "libx264", 64, 64, 1), "video/mp4"))
    await count(page, ".tile img", 3)
    await until(page, "[...document.querySelectorAll('.tile img')].every(image => image.naturalWidth === 256)")
    assert await page.locator("b").count() == 0  # a name is never markup

    await page.fill("input[type=search]", "1 & КОТ")
    await count(page, ".tile", 1)
    await page.fill("input[type=search]", "")
    await count(page, ".tile", 3)

    await page.click("text=Films")
    await page.click(".tile")
    await until(page, "document.querySelector('video')?.currentTime > 0")
    await page.keyboard.press("Escape")

    await page.click("text=Photos")
    await page.locator(".tick").first.check()
    await stop_clock(page)
    await page.click(".selection .danger")
    await count(page, ".tile", 2)
    await page.click("text=Undo")
    await count(page, ".tile", 3)
    await page.clock.resume()
    await page.locator(".tile").first.focus()
    await page.keyboard.press("Shift+ArrowRight")
    await page.keyboard.press("Delete")
    await count(page, ".tile", 1)

    session = await page.evaluate("JSON.parse(sessionStorage.getItem('gallery-session'))")
    romeos = User(gallery, session["jid"], session["token"])
    chosen = asyncio.Event()

    async def late(route: Route) -> None:
        if route.request.method == "DELETE":
            await chosen.wait()
        await route.continue_()

    await page.route("**/api/v1/files/", late)
    await page.click("text=Free up space")
    await page.click("dialog >> text=100")
    chosen.set()  # only now what was deleted before is gone: it must not be counted here
    await page.wait_for_selector("dialog >> text=2 files")
    await page.click("dialog .danger")
    await count(page, ".tile", 0)
    await page.click("text=Account")
    await page.click("text=Sign out >> visible=true")
    await page.wait_for_selector("text=Send me a code")
    assert_error(romeos.get("files/"), 401)
    assert gallery.user(jid=f"romeo@{HOST}").get("files/stats/").json()["total"]["count"] == 0
