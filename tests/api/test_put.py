"""`PUT /media/SLOT_ID/NAME`, with the token of a slot of XEP-0363."""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import re
import secrets
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from PIL import Image

from media_gallery.app import Gallery
from media_gallery.db import Connection, links
from media_gallery.errors import Conflict, NotFound
from media_gallery.models import NewLink, Quota
from media_gallery.offers import Offer
from media_gallery.slot_tokens import Purpose
from tests import samples
from tests.service import MIB, SMALL, Service, User, anyone, assert_error, tidied
from tests.slots import Slots


@pytest.fixture(scope="module")
def slots(service: Service) -> Slots:
    return Slots(service)


def put(url: str, token: str | None, data: bytes | Iterator[bytes], **headers: str) -> httpx.Response:
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    return anyone.put(url, content=data, headers={name.replace("_", "-"): value for name, value in headers.items()})


def kept(answer: httpx.Response) -> None:
    assert (answer.status_code, answer.content) == (201, b""), answer.text


def test_a_file_is_kept_and_shows_in_the_gallery(slots: Slots, anna: User) -> None:
    data = os.urandom(700_000)
    url, token = slots.give(anna, data, "très cool.png", filetype="image/x-icon")
    assert_error(anyone.get(url), 404)
    kept(put(url, token, data, Content_Type="image/x-icon"))
    answer = anyone.get(url)
    assert (answer.content, answer.headers["Content-Type"]) == (data, "image/vnd.microsoft.icon")
    assert anyone.head(url).headers["Content-Length"] == "700000"
    [item] = anna.items()
    assert (item["file"], item["name"], item["size"]) == (url, "très cool.png", 700_000)
    assert item["hashes"]["sha-256"] == hashlib.sha256(data).hexdigest()
    assert anna.used() == 700_000
    assert anna.delete("files/", file=url).status_code == 204
    assert_error(anyone.get(url), 404)


def test_the_token_may_come_in_the_address(slots: Slots, anna: User) -> None:
    url, token = slots.give(anna, b"small")
    kept(put(f"{url}?token={token}", None, b"small"))
    assert anyone.get(url).content == b"small"


def test_the_first_upload_makes_the_account(slots: Slots, anna: User) -> None:
    jid = f"new-{secrets.token_hex(6)}@example.org"
    url, token = slots.give(User(slots.service, jid, ""), b"first")
    kept(put(url, token, b"first"))
    again = slots.service.user(jid=jid)
    assert [item["file"] for item in again.items()] == [url]


def test_slots_of_other_issuers_are_taken(slots: Slots, anna: User) -> None:
    """Prosody's own module names slots by 144 bits in base64, and leaves file names as they are."""
    name = "a\u202eb \x07c.txt"
    url, token = slots.give(anna, b"text", name, slot="Ab-_" + secrets.token_urlsafe(15), filetype="text/plain")
    kept(put(url, token, b"text"))
    assert anyone.get(url).content == b"text"
    [item] = anna.items()
    assert item["name"] == "ab c.txt"
    assert anyone.get(item["file"]).content == b"text"
    assert anna.delete("files/", file=item["file"]).status_code == 204


@pytest.mark.parametrize(
    ("status", "said", "headers"),
    [
        (403, {"exp": 1}, {}),
        (403, {"slot": "0" * 32}, {}),
        (403, {"filename": "other.bin"}, {}),
        (413, {"filesize": 4}, {}),
        (413, {"filesize": 6}, {}),
        (413, {"filesize": 30 * MIB}, {}),
        (400, {"filetype": "image/png"}, {"Content_Type": "text/html"}),
    ],
)
def test_an_upload_that_differs_from_its_slot_is_refused(
    slots: Slots, anna: User, status: int, said: dict[str, Any], headers: dict[str, str]
) -> None:
    stored, data = slots.service.stored_bytes(), bytes(30 * MIB if said.get("filesize", 0) > MIB else 5)
    url, _ = slots.give(anna, data, slot="f" * 32)
    _, token = slots.give(anna, data, **{"slot": "f" * 32, **said})
    assert_error(put(url, token, data, **headers), status)
    assert_error(anyone.get(url), 404)
    assert (anna.items(), slots.service.stored_bytes()) == ([], stored)


def test_a_full_account_gets_no_more(slots: Slots, anna: User, admin: User) -> None:
    assert admin.put("account/quota/", jid=anna.jid, value=3).status_code == 200
    stored = slots.service.stored_bytes()
    url, token = slots.give(anna, b"bytes")
    assert assert_error(put(url, token, b"bytes"), 403)["details"] == {"quota": 3, "used": 0, "required": 5}
    assert (anna.items(), slots.service.stored_bytes()) == ([], stored)


def test_an_upload_without_a_token_is_refused(slots: Slots, anna: User) -> None:
    url, token = slots.give(anna, b"bytes")
    for wrong, status in ((None, 401), (anna.token, 403), (token[:-2], 403), (f"{token}x", 403)):
        answer = put(url, wrong, b"bytes")
        assert_error(answer, status)
        assert (answer.headers.get("WWW-Authenticate") == "Bearer") == (status == 401)
    none = f"eyJhbGciOiJub25lIn0.{token.split('.')[1]}."
    assert_error(put(url, none, b"bytes"), 403)
    kept(put(url, token, b"bytes"))


@pytest.mark.parametrize(
    ("asked", "sent"),
    [("", "text/html"), ("text/html", ""), ("application/octet-stream", "image/png"),
     ("text/plain; charset=utf-8", "text/plain"), ("image/png", "application/octet-stream")],
)  # fmt: skip
def test_a_type_without_meaning_does_not_count_as_another(slots: Slots, anna: User, asked: str, sent: str) -> None:
    url, token = slots.give(anna, b"bytes", filetype=asked)
    kept(put(url, token, b"bytes", Content_Type=sent))


@pytest.mark.parametrize(("count", "status"), [(4, 400), (6, 413), (2_000_000, 413)])
def test_a_body_in_chunks_is_counted(slots: Slots, anna: User, count: int, status: int) -> None:
    stored = slots.service.stored_bytes()
    url, token = slots.give(anna, bytes(5))
    assert_error(put(url, token, iter([bytes(count)])), status)
    assert slots.service.stored_bytes() == stored
    kept(put(url, token, iter([b"by", b"tes"])))


def test_a_slot_takes_one_file(slots: Slots, anna: User) -> None:
    url, token = slots.give(anna, b"first")
    kept(put(url, token, b"first"))
    for data in (b"other", b"first"):
        assert_error(put(url, token, data), 409)
    assert anyone.get(url).content == b"first"
    assert anna.used() == 5


def test_of_several_at_once_one_is_kept(slots: Slots, anna: User) -> None:
    files = [os.urandom(300_000) for _ in range(4)]
    url, token = slots.give(anna, files[0])
    with ThreadPoolExecutor(len(files)) as threads:
        answers = list(threads.map(lambda data: put(url, token, data), files))
    assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409]
    [winner] = [data for data, answer in zip(files, answers, strict=True) if answer.status_code == 201]
    assert anyone.get(url).content == winner
    assert anna.used() == 300_000


def test_another_host_may_be_first(slots: Slots, anna: User) -> None:
    """A host does not see the running uploads of another one, so the database decides."""
    slot, theirs = secrets.token_hex(16), os.urandom(1000)
    other = anna.upload(theirs)

    async def race(gallery: Gallery) -> None:
        account = (await gallery.accounts.get(anna.jid)).id

        async def take(c: Connection) -> None:
            known = await links.find_blob(c, hashlib.sha256(theirs).hexdigest())
            assert known and await links.link_known_blob(c, known)
            await gallery.uploads.policy.charge(c, account, known.size, "file")
            await links.insert_link(c, account, NewLink(slot, "a", "text/plain", "file", {}, False), known, 1)

        with pytest.raises(Conflict):
            async with gallery.uploads.begin(account, 4, 4, slot) as upload:
                await upload.write(os.urandom(4))
                await gallery.db.write(take)
                await upload.finish(Offer("a", 4, slot_id=slot, unchanged=True))

    before = slots.service.stored_bytes()
    slots.service.within(race)
    assert slots.service.stored_bytes() == before
    assert anyone.get(f"{slots.service.url}/media/{slot}/a").content == theirs
    assert anna.used() == 2000 and len(anna.items()) == 2
    assert anna.delete("files/", id=other["id"]).status_code == 204


def test_an_upload_that_is_late_takes_no_other_s_place(
    slots: Slots, anna: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One upload looks at the database, and another one to its slot begins and ends before it goes on."""
    tree, slot = slots.service.tree, secrets.token_hex(16)
    files, ended = [os.urandom(SMALL + 1), os.urandom(SMALL + 2)], list[BaseException | None]()

    async def race(gallery: Gallery) -> None:
        account = (await gallery.accounts.get(anna.jid)).id
        look = gallery.uploads.admit

        async def send(data: bytes) -> None:
            async with gallery.uploads.begin(account, len(data), len(data), slot) as upload:
                await upload.write(data)
                await upload.finish(Offer("a.bin", len(data), slot_id=slot, unchanged=True))

        async def look_and_wait(*args: Any, **more: Any) -> Quota:
            monkeypatch.setattr(gallery.uploads, "admit", look)
            found = await look(*args, **more)
            ended.extend(await asyncio.gather(send(files[1]), return_exceptions=True))
            return found

        monkeypatch.setattr(gallery.uploads, "admit", look_and_wait)
        ended.extend(await asyncio.gather(send(files[0]), return_exceptions=True))

    slots.service.within(race)
    assert {type(error) for error in ended} == {Conflict, type(None)}
    winner = files[1 - ended.index(None)]
    [place] = tree.glob(f"links/*/{slot}")
    assert (place / "a.bin").read_bytes() == winner == anyone.get(f"{slots.service.url}/media/{slot}/a.bin").content
    assert anna.used() == len(winner)


def test_known_bytes_are_stored_once(slots: Slots, anna: User) -> None:
    data = os.urandom(5000)
    anna.upload(data, "photo.bin")
    digest = hashlib.sha256(data).hexdigest()
    hit = anna.get("files/slot/", name="photo.bin", size=5000, hash=digest).json()  # waits for its own upload
    stored = slots.service.stored_bytes()
    url, token = slots.give(anna, data)
    kept(put(url, token, data))
    assert slots.service.stored_bytes() == stored
    assert anyone.get(url).content == data == anyone.get(hit["file"]).content
    assert len(anna.items()) == 3


def test_an_avatar_is_kept_unchanged(slots: Slots, anna: User) -> None:
    """Clients publish its digest before they upload it (XEP-0084)."""
    data = samples.picture("png", 400, 300)
    url, token = slots.give(anna, data, "face.png", filetype="image/png", purpose="profile")
    kept(put(url, token, data))
    [item] = anna.items("avatar/")
    assert (item["file"], item["context"]) == (url, "avatar")
    assert item["hashes"]["sha-1"] == hashlib.sha1(data).hexdigest()
    assert anyone.get(url).content == data
    for thumbnail in item["thumbnails"]:
        shown = Image.open(io.BytesIO(anyone.get(thumbnail["url"]).content))
        assert shown.size == (thumbnail["width"], thumbnail["height"])
    assert anna.items() == []
    assert ", 0 wrong" in slots.service.cli("fsck"), "the tree was made before anybody knew the measures"


def test_only_an_image_can_be_an_avatar(slots: Slots, anna: User) -> None:
    url, token = slots.give(anna, b"secret", "face.bin", filetype="application/octet-stream", purpose="profile")
    kept(put(url, token, b"secret"))
    assert anna.items("avatar/") == [] and [item["file"] for item in anna.items()] == [url]


def test_what_expires_is_gone_at_its_time(slots: Slots, anna: User) -> None:
    data, end = samples.noise("jpeg"), int(time.time()) + 3600
    assert len(data) > SMALL, "else the tree would not have it anyway"
    url, token = slots.give(anna, data, "photo.jpg", expires=end)
    kept(put(url, token, data))
    [item] = anna.items()
    assert not [name for name in slots.service.stored("links") if item["slot_id"] in name]
    assert anyone.get(anna.upload(data)["file"]).headers["Cache-Control"].endswith("immutable")
    for address in (url, item["thumbnail"]["url"]):
        answer = anyone.get(address, follow_redirects=True)
        told = re.search(r"max-age=(\d+)", answer.headers.get("Cache-Control", "max-age=0"))
        assert answer.status_code == 200 and told and int(told[1]) <= 3600
        assert "immutable" not in answer.headers.get("Cache-Control", "")

    async def later(gallery: Gallery) -> None:
        gallery.files.clock = gallery.maintenance.clock = lambda: (end + 1) * 1_000_000
        with pytest.raises(NotFound):
            await gallery.files.find(item["slot_id"], "photo.jpg")
        await tidied(gallery)

    slots.service.within(later)
    assert_error(anyone.get(url), 404)
    assert anna.used() == len(data)
    [left] = anna.items()
    assert anyone.get(left["file"], follow_redirects=True).content == data


@pytest.mark.parametrize(("purpose", "expires", "days"), [("ephemeral", None, 30), ("ephemeral", 86400, 1),
                                                         ("ephemeral", 100 * 86400, 30), ("message", 86400, 1),
                                                         ("permanent", None, None)])  # fmt: skip
def test_how_long_a_file_is_kept(
    slots: Slots, anna: User, purpose: Purpose, expires: int | None, days: int | None
) -> None:
    now = int(time.time())
    url, token = slots.give(anna, b"bytes", iat=now, purpose=purpose, expires=expires and now + expires)
    kept(put(url, token, b"bytes"))
    slot_id = url.split("/")[-2]
    found = slots.service.within(lambda gallery: gallery.files.find(slot_id, "photo.bin"))
    assert found.link.expires_at == (days and (now + days * 86400) * 1_000_000)


def test_web_clients_may_put(slots: Slots, anna: User) -> None:
    url, token = slots.give(anna, b"bytes")
    asked = {"Origin": "https://chat.example.org", "Access-Control-Request-Method": "PUT",
             "Access-Control-Request-Headers": "authorization,content-type"}  # fmt: skip
    answer = anyone.options(url, headers=asked)
    assert answer.status_code == 200 and "PUT" in answer.headers["Access-Control-Allow-Methods"]
    answer = put(url, "x.y.z", b"bytes", Origin="https://chat.example.org")
    assert_error(answer, 403)
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert put(url, token, b"bytes", Origin="https://chat.example.org").status_code == 201
