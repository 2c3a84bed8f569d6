"""An account with fifty thousand pictures: scrolled to its end, in bounded memory."""

from __future__ import annotations

import pytest

from media_gallery.app import Gallery
from media_gallery.db import Connection
from tests import samples
from tests.service import Service, User
from tests.web.conftest import Visit, until

pytestmark = pytest.mark.same_everywhere
MANY, DAY = 50_000, 86_400_000_000
MOST = 400
"""Items that may be in the document at once: those of the window, and of a margin above and below."""


def multiply(service: Service, user: User, item: int) -> None:
    """Make many links of one: an hour apart, of the same bytes."""

    async def query(c: Connection) -> None:
        one = "SELECT $2::int" if c.dialect == "postgresql" else "SELECT $2"
        await c.run(
            f"WITH RECURSIVE n(i) AS ({one} UNION ALL SELECT i + 1 FROM n WHERE i + 1 < $3)"
            " INSERT INTO links (account_id, blob_id, slot_id, name, folded, size, media_type, context, category,"
            " metadata, thumbnails, created_at) SELECT account_id, blob_id, slot_id || i, 'picture ' || i || '.png',"
            " 'picture ' || i || '.png', size, media_type, context, category, metadata, thumbnails,"
            " created_at - i * 3600000000 FROM links, n WHERE links.id = $1",
            item, 1, MANY,
        )  # fmt: skip
        await c.run(
            "UPDATE usage SET files = $2 WHERE account_id = (SELECT account_id FROM links WHERE id = $1)", item, MANY
        )

    async def work(gallery: Gallery) -> None:
        await gallery.db.write(query, long=True)

    service.within(work)


async def test_fifty_thousand_items_are_scrolled_to_the_end(visit: Visit, gallery: Service) -> None:
    user = gallery.user("many")
    multiply(gallery, user, user.upload(samples.picture("png", 64, 64), "picture 0.png")["id"])
    page = await visit.open(user)
    await page.wait_for_selector(".tile")
    most, end = 0, f"document.querySelector('[aria-posinset=\"{MANY}\"]') !== null"
    while not await page.evaluate(end):
        await page.evaluate("scrollTo(0, document.documentElement.scrollHeight)")
        await page.wait_for_timeout(20)
        most = max(most, await page.locator(".tile").count())
    assert 0 < most < MOST
    assert await page.locator("h2").count() > 60  # fifty thousand hours are 68 months
    await page.evaluate("scrollTo(0, 0)")
    await until(page, "document.querySelector('[aria-posinset=\"1\"]') !== null")
    await page.locator(".tile").first.focus()
    await page.keyboard.press("End")
    await until(page, f"document.activeElement.parentElement.getAttribute('aria-posinset') === '{MANY}'")
    assert await page.locator(".tile").count() < MOST
    await page.keyboard.press("Enter")
    await page.wait_for_selector(".viewer >> text=picture 49999.png")
    await page.keyboard.press("ArrowLeft")
    await page.wait_for_selector(".viewer >> text=picture 49998.png")
