"""Files that came through the upload modules of a real XMPP server, and are taken over with their addresses."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from typing import Any
from urllib.parse import urlsplit
from xml.etree import ElementTree as ET

import pytest

from tests import samples
from tests.service import Service, anyone
from tests.test_import import aged
from tests.xmpp.conftest import ChatClient, signed_in
from tests.xmpp.prosody import HOST, OLD_UPLOADS, Prosody
from tests.xmpp.test_slots import NOW, asked, put, wanted

CONTENTS = {
    "photo.jpg": samples.picture("jpeg"),
    "Мой файл (1) 100%?#.txt": b"a text",
    "again.txt": b"a text",
    "quotes \"' and &.bin": b"\0\1\2" * 1000,
}


async def uploaded(client: ChatClient, name: str, data: bytes, to: str = OLD_UPLOADS) -> str:
    """Upload as a chat client does; return the address."""
    iq = await asked(client, wanted(name, len(data), "content-type='application/octet-stream'"), to)
    there, back = iq.find(f"{{{NOW}}}slot/{{{NOW}}}put"), iq.find(f"{{{NOW}}}slot/{{{NOW}}}get")
    assert there is not None and back is not None, ET.tostring(iq)
    token = "".join(str(header.text) for header in there).removeprefix("Bearer ")
    assert await put(there.get("url", ""), data, token) == 201
    return back.get("url", "")


def imported(service: Service, *words: object, code: int = 0) -> dict[str, Any]:
    """Run `media-gallery import`; return its report."""
    return dict(json.loads(service.cli("import", *map(str, words), "--json", code=code)))


def check_addresses(service: Service, addresses: Mapping[str, bytes]) -> None:
    """Each old address has the same bytes here, as a whole, in part, and for `HEAD`."""
    for address, data in addresses.items():
        here = service.url + urlsplit(address).path
        assert anyone.get(here).content == data, address
        part = anyone.get(here, headers={"Range": "bytes=1-3"})
        assert (part.status_code, part.content) == (206, data[1:4])
        head = anyone.head(here)
        assert head.headers["Content-Length"] == str(len(data)) and "immutable" in head.headers["Cache-Control"]


@pytest.fixture
async def juliet(prosody: Prosody) -> AsyncIterator[ChatClient]:
    async with signed_in(f"juliet@{HOST}", prosody) as client:
        yield client


async def test_files_of_prosody_come_with_owners_times_and_addresses(
    service: Service, prosody: Prosody, romeo: ChatClient, juliet: ChatClient
) -> None:
    addresses = {await uploaded(juliet, name, data): data for name, data in CONTENTS.items()}
    his = await uploaded(romeo, "his.txt", b"a text")
    await asked(romeo, wanted("never sent.txt", 10), OLD_UPLOADS)
    data = prosody.directory / "data"
    source = ("prosody", data, "--host", OLD_UPLOADS)
    assert imported(service, *source)["still_arriving"] == 5
    aged(data)
    user = service.user(jid=f"juliet@{HOST}")
    service.cli("account", "set-quota", user.jid, "100")
    dry = imported(service, *source, "--dry-run")
    assert user.used() == 0 and anyone.get(service.url + urlsplit(his).path).status_code == 404
    report = imported(service, *source)
    assert dry == report
    assert (report["taken"], report["never_came"], list(report["over_quota"])) == (5, 1, [user.jid])
    check_addresses(service, addresses | {his: b"a text"})
    items = {item["name"]: item for item in user.items()}
    assert {name: item["size"] for name, item in items.items()} == {n: len(d) for n, d in CONTENTS.items()}
    assert user.used() == sum(map(len, CONTENTS.values())) > 100
    assert items["photo.jpg"]["media_type"] == "image/jpeg" and items["photo.jpg"]["width"]
    thumbnail = user.http.get(items["photo.jpg"]["thumbnail"]["url"])
    assert thumbnail.headers["Content-Type"] == "image/webp" and "immutable" in thumbnail.headers["Cache-Control"]
    [index] = data.glob("old*/uploads.list")
    assert items["photo.jpg"]["created_at"][:19] in index.read_text()

    again = imported(service, *source, "--verify")
    assert (again["taken"], again["known"], again["damaged"]) == (0, 5, 0)
    assert user.delete("files/", id=items["again.txt"]["id"]).status_code == 204
    gone = next(address for address in addresses if address.endswith("again.txt"))
    assert anyone.get(service.url + urlsplit(gone).path).status_code == 404
    again = imported(service, *source)
    assert (again["taken"], again["known"], again["deleted"]) == (0, 4, 1)
    assert imported(service, *source, "--deleted")["taken"] == 1
    check_addresses(service, addresses)
    assert "0 wrong" in service.cli("fsck")
