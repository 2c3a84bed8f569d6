"""Selecting, filtering, ordering, and the ways in which files come, beyond the short form."""

from __future__ import annotations

import pytest
from playwright.async_api import Page, Route, expect

from tests import samples
from tests.service import Service, User
from tests.web.conftest import Visit, count, drop

pytestmark = pytest.mark.same_everywhere


@pytest.fixture
def anna(gallery: Service) -> User:
    """She has five pictures, of which picture 4 is the newest."""
    user = gallery.user("anna")
    for number in range(5):
        user.upload(samples.picture("png", 64 + number, 64), f"picture {number}.png")
    return user


async def says(page: Page, number: int) -> None:
    """Wait until so many are selected."""
    told = f"{number} selected" if number else ""
    await expect(page.locator(".selection [role=status]")).to_contain_text(told, use_inner_text=False)
    await count(page, ".chosen", number)


async def test_items_are_selected_by_mouse_keyboard_and_finger(visit: Visit, anna: User) -> None:
    page = await visit.open(anna)
    await count(page, ".tile", 5)
    await page.locator(".tick").nth(0).click()
    await page.locator(".tile").nth(3).click(modifiers=["Shift"])
    await says(page, 4)
    await page.locator(".tile").nth(1).click()
    await says(page, 3)
    await page.keyboard.press("Escape")
    await says(page, 0)
    await page.locator(".tile").nth(2).click(modifiers=["Control"])
    await says(page, 1)
    await page.keyboard.press("Control+a")
    await says(page, 5)
    await page.click("text=Select none")
    await page.locator(".tile").nth(1).focus()
    await page.keyboard.press("Space")
    await page.keyboard.press("Shift+ArrowRight")
    await says(page, 2)
    await page.keyboard.press("Escape")
    await page.dispatch_event(".tile", "pointerdown", {"pointerType": "touch"})
    await says(page, 1)


async def test_filters_and_orders_choose_what_is_shown(visit: Visit, anna: User) -> None:
    page = await visit.open(anna)
    await count(page, ".tile", 5)
    await page.select_option(".filters > select", "name")
    await page.wait_for_selector("li:first-child .tile[aria-label^='picture 0']")
    await page.click("summary")
    for label, value, found in (("From", "2099-01-01", 0), ("From", "2020-01-01", 5), ("To", "2020-01-01", 0)):
        await page.get_by_label(label, exact=True).fill(value)
        await count(page, ".tile", found)
    await page.click("text=Clear")
    await count(page, ".tile", 5)
    await page.locator(".fields select").nth(0).select_option(index=1)
    await page.wait_for_selector("text=Nothing was found.")
    await page.click("text=Clear")
    await page.locator(".fields select").nth(1).select_option("jpeg")
    await page.wait_for_selector("text=Nothing was found.")
    await page.locator(".fields select").nth(1).select_option("png")
    await count(page, ".tile", 5)


async def test_a_pasted_file_that_is_known_is_linked_and_not_sent(visit: Visit, anna: User) -> None:
    page = await visit.open(anna)
    await count(page, ".tile", 5)
    sent: list[str] = []
    page.on("request", lambda request: sent.append(f"{request.method} {request.url}"))
    await page.evaluate(
        """data => { const clipboardData = new DataTransfer();
        clipboardData.items.add(new File([new Uint8Array(data)], "again.png", {type: "image/png"}));
        dispatchEvent(new ClipboardEvent("paste", {clipboardData, cancelable: true})); }""",
        list(samples.picture("png", 64, 64)),
    )
    await count(page, ".tile", 6)
    assert [line for line in sent if "files/slot/" in line] and not [line for line in sent if line.startswith("POST")]


async def test_an_upload_is_stopped(visit: Visit, anna: User) -> None:
    page = await visit.open(anna)
    held: list[Route] = []
    await page.route("**/files/upload/", lambda route: held.append(route))
    await drop(page, ("slow.bin", b"x" * 1000, ""))
    await page.wait_for_selector(".uploads progress")
    await page.click(".uploads >> text=Cancel")
    await page.wait_for_selector(".uploads", state="hidden")
    assert held and anna.get("files/").json()["total_objects"] == 5


async def test_the_viewer_is_swiped(visit: Visit, anna: User) -> None:
    page = await visit.open(anna)
    await page.locator(".tile").first.click()
    for start, end, shown in ((300, 100, 3), (300, 100, 2), (100, 300, 3)):
        await page.evaluate(
            """([from, to]) => { const target = document.querySelector(".stage");
            const touch = clientX => [new Touch({identifier: 1, target, clientX, clientY: 9})];
            target.dispatchEvent(new TouchEvent("touchstart", {touches: touch(from)}));
            target.dispatchEvent(new TouchEvent("touchend", {changedTouches: touch(to)})); }""",
            [start, end],
        )
        await page.wait_for_selector(f".viewer h2 >> text=picture {shown}.png")
