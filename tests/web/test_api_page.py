"""The page about the API: its calls are tried by keyboard, with a token that it keeps nowhere."""

from __future__ import annotations

import re

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Page, expect

from tests.service import Service
from tests.web.conftest import Visit

pytestmark = pytest.mark.same_everywhere


async def tried(page: Page, call: str, status: str, **fields: str) -> str:
    """Open the form of a call, fill it, send it by the Enter key; the body that is shown."""
    call = f"#{call}"
    if not await page.locator(f"{call} details[open]").count():
        await page.locator(f"{call} summary").focus()
        await page.keyboard.press("Enter")
    for name, value in fields.items():
        await page.fill(f"{call} [name={name}]", value)
    await page.locator(f"{call} form button").focus()
    await page.keyboard.press("Enter")
    await expect(page.locator(f"{call} .answer")).to_contain_text(f"→ {status}")
    return str(await page.locator(f"{call} .answer").inner_text())


async def test_calls_are_tried_with_a_token(visit: Visit, gallery: Service) -> None:
    user = gallery.user()
    page = await visit.open()
    await page.click("footer >> text=API")
    await expect(page).to_have_url(f"{gallery.url}/api/docs")
    assert "A valid token is required" in await tried(page, "list_files", "401")
    await page.fill("#bearer", user.token)

    await page.locator("#upload summary").click()
    given = {"name": "<b>sea.txt", "mimeType": "text/plain", "buffer": b"by the sea"}
    await page.set_input_files("#upload input[type=file]", given)
    assert '"title": "<i>"' in await tried(page, "upload", "201", metadata='{"title": "<i>"}')
    [file] = user.items()
    assert file["name"] == "<b>sea.txt" and await page.locator("#upload .answer :is(b, i)").count() == 0

    await page.locator("#list_percent summary").click()
    assert file["slot_id"] in await tried(page, "list_percent", "200", percent="100")
    assert file["slot_id"] in await tried(page, "list_files", "200", id=f"{file['id']}, 1", name="SEA")
    assert '"total_objects": 0' in await tried(page, "list_files", "200", name="no such")

    asked: list[str] = []

    def once(answer: bool) -> None:
        async def handle(dialog: object) -> None:
            asked.append(dialog.message)  # type: ignore[attr-defined]
            await (dialog.accept() if answer else dialog.dismiss())  # type: ignore[attr-defined]

        page.once("dialog", handle)

    once(False)
    await page.locator("#delete_files summary").click()
    await page.fill("#delete_files [name=id]", f"{file['id']}, 0")
    await page.locator("#delete_files form button").click()
    assert len(asked) == 1 and user.items() == [file]
    once(True)
    await tried(page, "delete_files", "204")
    assert user.items() == [] and re.search("DELETE /api/v1/files/", asked[1])

    kept = "JSON.stringify([localStorage, sessionStorage]) + document.cookie + location.href"
    assert user.token not in await page.evaluate(kept)
    await page.reload()
    assert await page.input_value("#bearer") == ""


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_the_page_is_for_everybody(visit: Visit, scheme: str) -> None:
    size = {"width": 320, "height": 800}
    page = await visit.open(path="/api/docs", color_scheme=scheme, viewport=size, bypass_csp=True)
    await page.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true })")
    found = await Axe().run(page, options={"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]})
    assert found.violations_count == 0, found.generate_report()
    assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
