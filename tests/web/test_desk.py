"""The desk of administrators, and what people see of each other: nothing."""

from __future__ import annotations

import pytest

from tests import samples
from tests.service import MIB, Service, assert_error
from tests.web.conftest import Visit, count
from tests.xmpp.prosody import HOST

pytestmark = pytest.mark.same_everywhere


async def test_an_administrator_sets_quotas_and_deletes_an_account(visit: Visit, gallery: Service) -> None:
    admin, anna = gallery.user(jid=f"admin@{HOST}"), gallery.user("anna")
    anna.upload(bytes(3 * MIB), "three.bin")
    page = await visit.open(admin, "/#desk")
    await page.wait_for_selector("text=Decoders works")
    await page.fill("input[placeholder=Search]", anna.jid.upper())
    await count(page, "tbody tr", 1)
    await page.click(f"text={anna.jid}")
    await page.wait_for_selector("dialog >> text=1 file")
    await page.click("dialog >> text=See the files")
    link = page.locator("dialog .sessions a")
    assert await link.get_attribute("href") == anna.items()[0]["file"] and await link.text_content() == "three.bin"
    await page.fill("dialog input[type=number]", "7")
    await page.click("dialog >> text=Save")
    await page.wait_for_selector("text=The quota is 7 MB.")
    assert anna.get("account/quota/").json() == {"quota": 7 * MIB, "used": 3 * MIB}
    await page.click("dialog >> text=Default")
    await page.wait_for_selector("text=The quota is 50 MB.")
    await page.click("dialog >> text=Delete account")
    confirm = page.locator("dialog").last
    assert await confirm.locator("button.danger").is_disabled()
    await confirm.locator("input").fill(anna.jid)
    await confirm.locator("button.danger").click()
    await page.wait_for_selector("text=Nothing was found.")
    assert_error(anna.get("account/"), 401)


async def test_other_people_have_no_desk(visit: Visit, gallery: Service) -> None:
    page = await visit.open(gallery.user("anna"), "/#desk")
    await page.wait_for_selector("text=There is nothing here yet.")
    assert await page.locator("text=Desk").count() == 0


async def test_two_people_in_one_browser_never_see_each_others_files(visit: Visit, gallery: Service) -> None:
    anna, boris = gallery.user("anna"), gallery.user("boris")
    anna.upload(samples.picture("png", 64, 64), "of anna.png")
    page = await visit.open(anna)
    await count(page, ".tile", 1)
    await page.click("text=Account")
    await page.click("text=Sign out")
    await page.wait_for_selector("text=Send me a code")
    session = {"token": boris.token, "jid": boris.jid}
    await page.evaluate("session => sessionStorage.setItem('gallery-session', JSON.stringify(session))", session)
    await page.reload()
    await page.wait_for_selector("text=There is nothing here yet.")
    assert "anna" not in await page.content()


async def test_a_session_that_is_revoked_elsewhere_ends_here(visit: Visit, gallery: Service) -> None:
    anna = gallery.user("anna")
    other = gallery.user(jid=anna.jid)
    page = await visit.open(anna, "/#account")
    await page.wait_for_selector("text=This one")
    await count(page, ".sessions li", 2)
    await page.click("text=Sign out there")
    await count(page, ".sessions li", 1)
    assert_error(other.get("files/"), 401)
    token = anna.get("account/tokens/").json()["items"][0]["token_id"]
    anna.delete("account/tokens/", token_id=token)
    await page.click("text=Photos")
    await page.wait_for_selector("text=You are signed out: sign in again.")
    assert await page.evaluate("sessionStorage.getItem('gallery-session')") is None


async def test_my_account_is_deleted_once_its_address_is_typed(visit: Visit, gallery: Service) -> None:
    anna = gallery.user("anna")
    page = await visit.open(anna, "/#account")
    await page.click("main >> text=Delete account >> nth=1")
    await page.fill("dialog input", anna.jid)
    await page.click("dialog button.danger")
    await page.wait_for_selector("text=Your account is deleted.")
    assert_error(anna.get("account/"), 401)


async def test_what_waits_to_be_deleted_is_sent_when_the_page_is_left(visit: Visit, gallery: Service) -> None:
    anna = gallery.user("anna")
    anna.upload(samples.picture("png", 64, 64), "one.png")
    page = await visit.open(anna)
    await page.locator(".tick").check()
    await page.click(".selection .danger")
    await page.wait_for_selector("text=Undo")
    assert anna.get("files/").json()["total_objects"] == 1
    await page.goto(f"{gallery.url}/healthz")
    gallery.wait_until(lambda: anna.get("files/").json()["total_objects"] == 0)
