from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

import httpx
import pytest
from slixmpp import ClientXMPP

from tests.service import Service
from tests.waiting import DEADLINE
from tests.xmpp.prosody import COMPONENT, HOST, SECRET, Prosody


@pytest.fixture(scope="session")
def prosody(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prosody]:
    server = Prosody(tmp_path_factory.mktemp("prosody"))
    for name in ("gallery", "romeo", "juliet"):
        server.register(name)
    server.register("tybalt", "denied.test")
    yield server.start()
    server.stop()


class ChatServer(Protocol):
    """A running XMPP server. `directory` has HOST.crt for each host; `ca_file` is the one of the first host."""

    directory: Path
    c2s_port: int
    component_port: int
    ca_file: Path


def component_settings(server: ChatServer, jid: str = COMPONENT) -> dict[str, Any]:
    return {"XMPP_JID": jid, "XMPP_COMPONENT_HOST": "127.0.0.1",
            "XMPP_COMPONENT_PORT": server.component_port, "XMPP_COMPONENT_SECRET": SECRET}  # fmt: skip


def client_settings(server: ChatServer) -> dict[str, Any]:
    return {"XMPP_JID": f"gallery@{HOST}", "XMPP_PASSWORD": "gallery", "XMPP_HOST": "127.0.0.1",
            "XMPP_PORT": server.c2s_port, "XMPP_CA_FILE": server.ca_file}  # fmt: skip


@pytest.fixture(scope="session")
def connected(start_service: Callable[..., Service]) -> Callable[..., Service]:
    """Start a service and wait until its courier is connected."""

    def start(*, kept: bool = False, **settings: Any) -> Service:
        service = start_service(kept=kept, **settings)
        service.wait_until(lambda: "connected to the XMPP server" in service.log())
        return service

    return start


@pytest.fixture(scope="session")
def component(connected: Callable[..., Service], prosody: Prosody) -> Service:
    denied = {"DENIED_DOMAINS": "denied.test", "DENIED_JIDS": f"paris@{HOST}"}
    return connected(kept=True, **component_settings(prosody), **denied)


class ChatClient(ClientXMPP):
    """A person's client. It keeps every message, and every IQ with a one-time code."""

    def __init__(self, jid: str, server: ChatServer) -> None:
        super().__init__(jid, jid.partition("@")[0])
        self.ca_certs = server.directory / f"{self.boundjid.host}.crt"
        self.received: asyncio.Queue[Any] = asyncio.Queue()
        for plugin in ("xep_0030", "xep_0070", "xep_0092", "xep_0199", "xep_0280"):
            self.register_plugin(plugin)
        self.add_event_handler("session_start", lambda _: self.send_presence())
        self.add_event_handler("message", self.received.put_nowait)
        self.add_event_handler("http_confirm_iq", self.received.put_nowait)

    async def next(self) -> Any:
        """The next message, or IQ with a code."""
        return await asyncio.wait_for(self.received.get(), DEADLINE)

    async def code(self, asked: httpx.Response) -> Any:
        """The stanza with the code that this answer promises. Earlier ones, which a server may keep for a person who is
        away, are left out.
        """
        assert asked.status_code == 201, asked.text
        while (stanza := await self.next())["id"] != asked.json()["request_id"]:
            pass
        return stanza


@asynccontextmanager
async def signed_in(jid: str, server: ChatServer) -> AsyncIterator[ChatClient]:
    client = ChatClient(jid, server)
    started = asyncio.Event()
    client.add_event_handler("session_start", lambda _: started.set())
    client.enable_direct_tls = False
    client.connect("127.0.0.1", server.c2s_port)
    await asyncio.wait_for(started.wait(), DEADLINE)
    yield client
    await client.disconnect()


@pytest.fixture
async def romeo(prosody: Prosody) -> AsyncIterator[ChatClient]:
    async with signed_in(f"romeo@{HOST}", prosody) as client:
        yield client


async def call(service: Service, path: str, **body: Any) -> httpx.Response:
    """A `POST` under `/api/v1/account/`, in a thread, since the chat client needs the event loop."""
    headers = body.pop("headers", {})
    return await asyncio.to_thread(service.http.post, f"/api/v1/account/{path}/", json=body, headers=headers)


async def request_code(service: Service, **body: Any) -> httpx.Response:
    """Ask for a code, again and again until the XMPP server takes it: it is waited for some seconds only, and a busy
    machine may pause for longer.
    """
    async with asyncio.timeout(DEADLINE):
        while (answer := await call(service, "xmpp_code_request", **body)).status_code == 503:  # noqa: ASYNC110, a server
            await asyncio.sleep(0.1)
    return answer
