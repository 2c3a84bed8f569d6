"""Each client sends a photo and a film, as a person would. `make clients` runs these tests."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import httpx
import pytest

from tests.clients.browser import converse
from tests.clients.conftest import Network, Person
from tests.clients.desktop import dino, gajim
from tests.clients.terminal import Send, go_sendxmpp, profanity
from tests.samples import film, picture
from tests.service import PATIENCE
from tests.xmpp.conftest import ChatClient

FILES = [
    ("photo.jpg", "image/jpeg", picture("jpeg")),
    ("film.mp4", "video/mp4", film(width=64, height=64, seconds=1)),
]
Client = Callable[[Person, str], AbstractAsyncContextManager[Send]]


async def link(juliet: ChatClient) -> str:
    """The next message that has a text, which is the link."""
    while not (text := str((await juliet.next())["body"])):
        pass
    return text


@pytest.mark.parametrize("client", [go_sendxmpp, profanity, converse, gajim, dino])
async def test_a_client_sends_a_photo_and_a_film(
    client: Client, network: Network, juliet: ChatClient, tmp_path: Path
) -> None:
    person = Person(client.__name__.replace("_", "-"), tmp_path / "home", network)
    person.home.mkdir()
    network.prosody.register(person.name)
    trust = ssl.create_default_context(cafile=str(network.authority))
    sent = []
    async with client(person, juliet.boundjid.bare) as send:
        for name, media_type, data in FILES:
            file = tmp_path / name
            file.write_bytes(data)
            await send(file)
            sent.append((name, await link(juliet)))
            answer = await asyncio.to_thread(httpx.get, sent[-1][1], verify=trust, timeout=PATIENCE)
            assert (answer.status_code, answer.content) == (200, data), sent
            assert answer.headers["content-type"] == media_type

    user = await asyncio.to_thread(network.gallery.user, jid=person.jid)
    items = await asyncio.to_thread(user.items)
    assert [(item["name"], item["file"]) for item in items] == sent[::-1]
    assert await asyncio.to_thread(user.used) == sum(len(data) for _, _, data in FILES)
    for item in items:
        deleted = await asyncio.to_thread(user.delete, "files/", id=item["id"])
        assert deleted.status_code == 204, deleted.text
        gone = await asyncio.to_thread(httpx.get, item["file"], verify=trust, timeout=PATIENCE)
        assert gone.status_code == 404
    assert await asyncio.to_thread(user.used) == 0
