"""Gajim 1.7 on a display of its own (Xvfb). Its actions are called over D-Bus, as its menus call them."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import subprocess
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, closing
from pathlib import Path

from tests.clients.conftest import Person
from tests.clients.terminal import Send
from tests.waiting import DEADLINE, wait_until

_TRUSTING = """
mount --bind "$0" /etc/ssl/certs/ca-certificates.crt
exec unshare --user --map-user=1000 --map-group=1000 -- "$@"
"""
"""Runs a command that trusts the authority `$0`, as all programs of a machine do whose operator has added it, and that
is not root, since Gajim refuses to be. This takes namespaces, so the machine itself stays as it is.
"""


class Desktop:
    """A display with a session bus, on which one person's programs run until it is closed."""

    def __init__(self, person: Person) -> None:
        self.person, self._stack = person, ExitStack()
        self._bus = person.home / "bus"
        self._environment = person.environment(DBUS_SESSION_BUS_ADDRESS=f"unix:path={self._bus}", NO_AT_BRIDGE="1")

    def begin(self) -> None:
        reading, writing = os.pipe()
        self.start("Xvfb", "-displayfd", str(writing), "-nolisten", "tcp", pass_fds=[writing])
        os.close(writing)
        with os.fdopen(reading) as told:
            self._environment["DISPLAY"] = f":{told.readline().strip()}"
        self.start("dbus-daemon", "--session", "--nofork", f"--address=unix:path={self._bus}")
        wait_until(self._bus.exists, self.log.read_text)

    def start(self, *command: str, pass_fds: list[int] | None = None) -> None:
        with self.log.open("ab") as log:
            process = subprocess.Popen(self._as_person(command), env=self._environment, pass_fds=pass_fds or [],
                                       stdout=log, stderr=log)  # fmt: skip
        self._stack.callback(process.wait, DEADLINE)
        self._stack.callback(process.terminate)

    def run(self, *command: str) -> str:
        """What a command prints that ends by itself. It may fail."""
        return subprocess.run(self._as_person(command), env=self._environment, capture_output=True, text=True,
                              timeout=DEADLINE).stdout  # fmt: skip

    def _as_person(self, command: tuple[str, ...]) -> list[str]:
        trusting = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-euc", _TRUSTING]
        return [*trusting, str(self.person.network.authority), *command]

    @property
    def log(self) -> Path:
        return self.person.home / "log"

    def close(self) -> None:
        self._stack.close()


@asynccontextmanager
async def gajim(person: Person, to: str) -> AsyncIterator[Send]:
    _set_up_gajim(person)
    with closing(Desktop(person)) as desktop:
        done = "Upload completed successfully"

        def window(method: str, *words: str) -> str:
            return desktop.run("gdbus", "call", "--session", "-d", "org.gajim.Gajim", "-o", "/org/gajim/Gajim/window/1",
                               "-m", f"org.gtk.Actions.{method}", *words)  # fmt: skip

        def start() -> None:
            desktop.begin()
            desktop.start("gajim", "--loglevel", "gajim=INFO")
            wait_until(lambda: "add-chat" in window("List"), desktop.log.read_text)
            chat = f"{{'account': <'{person.name}'>, 'jid': <'{to}'>, 'type': <'contact'>, 'select': <true>}}"
            window("Activate", "add-chat", f"[<{chat}>]", "{}")
            wait_until(lambda: "(true" in window("Describe", "send-file-httpupload"), desktop.log.read_text)

        def send(file: Path) -> None:
            before = desktop.log.read_text().count(done)
            window("Activate", "send-file-httpupload", f"[<['{file.as_uri()}']>]", "{}")

            def confirmed() -> bool:
                """Press the button `Send Files`. Enter does nothing before it is there and when it is gone."""
                desktop.run("xdotool", "mousemove", "500", "400", "key", "Return")
                return desktop.log.read_text().count(done) > before

            wait_until(confirmed, desktop.log.read_text, pause=0.5)

        await asyncio.to_thread(start)
        yield lambda file: asyncio.to_thread(send, file)


def _set_up_gajim(person: Person) -> None:
    """The person's account, as if it had been typed in."""
    account = {"name": person.name, "hostname": person.jid.partition("@")[2], "password": person.name, "active": True,
               "use_custom_host": True, "custom_host": "127.0.0.1", "custom_port": person.network.prosody.c2s_port,
               "custom_type": "START TLS"}  # fmt: skip
    settings: dict[str, object] = {
        "app": {"use_keyring": False, "check_for_update": False},
        "workspaces": {"0": {"name": "", "chats": []}},
        **{kind: {} for kind in ("soundevents", "status_presets", "proxies", "plugins")},
    }
    place = person.home / ".config" / "gajim"
    place.mkdir(parents=True)
    with closing(sqlite3.connect(place / "settings.sqlite")) as database, database:
        database.execute("PRAGMA user_version = 5")
        database.execute("CREATE TABLE settings (name TEXT UNIQUE, settings TEXT)")
        database.execute("CREATE TABLE account_settings (account TEXT UNIQUE, settings TEXT)")
        rows = [(name, json.dumps(value)) for name, value in settings.items()]
        database.executemany("INSERT INTO settings VALUES (?, ?)", rows)
        about = json.dumps({"account": account, "contact": {}, "group_chat": {}})
        database.execute("INSERT INTO account_settings VALUES (?, ?)", (person.name, about))
