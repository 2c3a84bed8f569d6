"""Clients for a terminal: go-sendxmpp and Profanity."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from tests.clients.conftest import Person
from tests.waiting import DEADLINE, wait_until

Send = Callable[[Path], Awaitable[None]]
"""Send this file to the other person."""


@asynccontextmanager
async def go_sendxmpp(person: Person, to: str) -> AsyncIterator[Send]:
    server = f"127.0.0.1:{person.network.prosody.c2s_port}"

    async def send(file: Path) -> None:
        await asyncio.to_thread(
            subprocess.run,
            ["go-sendxmpp", "-u", person.jid, "-p", person.name, "-j", server, "--http-upload", str(file), to],
            env=person.environment(), check=True, timeout=DEADLINE, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    yield send


@asynccontextmanager
async def profanity(person: Person, to: str) -> AsyncIterator[Send]:
    tmux = ["tmux", "-S", str(person.home / "tmux")]

    def run(*words: str) -> str:
        return subprocess.run([*tmux, *words], env=person.environment(TERM="xterm"), check=True, capture_output=True,
                              text=True, timeout=DEADLINE).stdout  # fmt: skip

    def screen() -> str:
        return run("capture-pane", "-p")

    def enter(line: str, answer: str) -> None:
        run("send-keys", "-l", line)
        run("send-keys", "Enter")
        wait_until(lambda: answer in screen(), screen)

    def start() -> None:
        trusted = person.home / ".local/share/profanity/certs/CAfile.pem"  # for uploads: SSL_CERT_FILE does not count
        trusted.parent.mkdir(parents=True)
        trusted.write_bytes(person.network.authority.read_bytes())
        run("-f", "/dev/null", "new-session", "-d", "-x", "200", "-y", "50", "profanity")
        wait_until(lambda: "Profanity" in screen(), screen)
        port = person.network.prosody.c2s_port
        enter(f"/connect {person.jid} server 127.0.0.1 port {port} tls force", "Enter password")
        enter(person.name, "logged in successfully")
        enter(f"/msg {to}", to)

    async def send(file: Path) -> None:
        await asyncio.to_thread(enter, f'/sendfile "{file}"', file.name)

    try:
        await asyncio.to_thread(start)
        yield send
    finally:
        run("kill-server")
