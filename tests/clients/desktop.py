"""Gajim 1.7 and Dino 0.4 on a display of their own (Xvfb). What their menus do is called over D-Bus as far as that is
possible; the rest is typed.
"""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager, closing
from pathlib import Path
from random import randrange

from tests.clients.conftest import Person
from tests.clients.terminal import Send
from tests.tcp import Way
from tests.waiting import DEADLINE, wait_until
from tests.xmpp.prosody import HOST

_TRUSTING = """
mount --bind "$0" /etc/ssl/certs/ca-certificates.crt
mount --bind "$HOME/hosts" /etc/hosts
exec unshare --user --map-user=1000 --map-group=1000 -- "$@"
"""
"""Runs a command that trusts the authority `$0`, as all programs of a machine do whose operator has added it; that
finds the hosts of a file of its own; and that is not root, since Gajim refuses to be. The machine stays as it is.
"""


class Desktop:
    """A display with a session bus, on which one person's programs run until it is closed.

    They find HOST at `address`. `program`: the name on the bus of the one that is driven.
    """

    def __init__(self, person: Person, program: str, address: str = "127.0.0.1") -> None:
        self.person, self.program, self._stack = person, program, ExitStack()
        (person.home / "hosts").write_text(f"127.0.0.1 localhost\n{address} {HOST}\n")
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

    def start(self, *command: str, pass_fds: list[int] | None = None) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            process = subprocess.Popen(self._as_person(command), env=self._environment, pass_fds=pass_fds or [],
                                       stdout=log, stderr=log)  # fmt: skip
        self._stack.callback(process.wait, DEADLINE)
        self._stack.callback(process.terminate)
        return process

    def run(self, *command: str) -> str:
        """What a command prints that ends by itself. It may fail."""
        return subprocess.run(self._as_person(command), env=self._environment, capture_output=True, text=True,
                              timeout=DEADLINE).stdout  # fmt: skip

    def _as_person(self, command: tuple[str, ...]) -> list[str]:
        trusting = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-euc", _TRUSTING]
        return [*trusting, str(self.person.network.authority), *command]

    def call(self, method: str, *words: str, path: str = "") -> str:
        """Call a method of GTK, of the program that runs, with parameters in GVariant's text form."""
        path = f"/{self.program.replace('.', '/')}{path}"
        return self.run("gdbus", "call", "--session", "-d", self.program, "-o", path, "-m", f"org.gtk.{method}", *words)

    def type(self, window: str, *what: str) -> None:
        """Type on the window with this title: commands of xdotool, and their parameters."""
        self.run("xdotool", "search", "--onlyvisible", "--name", f"^{window}$", "windowfocus", "--sync", *what)

    def type_until(self, done: Callable[[], bool], window: str, *what: str) -> None:
        """The same again and again, since what is typed too early is lost. The answer to the call tells that the
        program has taken what was typed before, so that on a slow machine, too, it gets nothing twice.
        """

        def reached() -> bool:
            if not done():
                self.type(window, *what)
                self.call("Actions.List")
            return done()

        wait_until(reached, self.log.read_text, pause=1)

    def count(self, text: str) -> int:
        return self.log.read_text().count(text)

    @property
    def log(self) -> Path:
        return self.person.home / "log"

    def close(self) -> None:
        self._stack.close()


@asynccontextmanager
async def gajim(person: Person, to: str) -> AsyncIterator[Send]:
    _set_up_gajim(person)
    with closing(Desktop(person, "org.gajim.Gajim")) as desktop:

        def window(method: str, *words: str) -> str:
            return desktop.call(f"Actions.{method}", *words, path="/window/1")

        def start() -> None:
            desktop.begin()
            desktop.start("gajim", "--loglevel", "gajim=INFO")
            wait_until(lambda: "add-chat" in window("List"), desktop.log.read_text)
            chat = f"{{'account': <'{person.name}'>, 'jid': <'{to}'>, 'type': <'contact'>, 'select': <true>}}"
            window("Activate", "add-chat", f"[<{chat}>]", "{}")
            wait_until(lambda: "(true" in window("Describe", "send-file-httpupload"), desktop.log.read_text)

        def send(file: Path) -> None:
            asks = "Sending request for slot"
            before = desktop.count(asks)
            window("Activate", "send-file-httpupload", f"[<['{file.as_uri()}']>]", "{}")
            # The button `Send Files`.
            desktop.type_until(lambda: desktop.count(asks) > before, "Gajim", "key", "Return")

        await asyncio.to_thread(start)
        yield lambda file: asyncio.to_thread(send, file)


def _set_up_gajim(person: Person) -> None:
    """The person's account, as if it had been typed in."""
    account = {"name": person.name, "hostname": HOST, "password": person.name, "active": True,
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


@asynccontextmanager
async def dino(person: Person, to: str) -> AsyncIterator[Send]:
    """COMPAT: Dino 0.4 knows no port but 5222, so the host gets an address of its own: 5222 must not be taken on all
    addresses of the machine.
    """
    address = f"127.{randrange(1, 255)}.{randrange(1, 255)}.{randrange(1, 255)}"
    way = Way(person.network.prosody.c2s_port, (address, 5222))
    with closing(way), closing(Desktop(person, "im.dino.Dino", address)) as desktop:

        def start() -> None:
            desktop.begin()
            _set_up_dino(desktop)
            desktop.start("dino-im", "--print-xmpp=all")
            wait_until(lambda: desktop.count("urn:xmpp:http:upload:0"), desktop.log.read_text)
            desktop.call("Application.Open", f"['xmpp:{to}?message']", "", "{}")

        def send(file: Path) -> None:
            chooser, sent = "Select file", desktop.count("jabber:x:oob")

            def chooses() -> bool:
                return bool(desktop.run("xdotool", "search", "--onlyvisible", "--name", chooser))

            desktop.type_until(chooses, "Dino", "key", "ctrl+u")
            desktop.type(chooser, "type", str(file))
            desktop.type(chooser, "key", "Return")
            wait_until(lambda: not chooses(), desktop.log.read_text)
            # The button `Send`.
            desktop.type_until(lambda: desktop.count("jabber:x:oob") > sent, "Dino", "key", "Return")

        await asyncio.to_thread(start)
        yield lambda file: asyncio.to_thread(send, file)


def _set_up_dino(desktop: Desktop) -> None:
    """Let Dino make its database, and enter the person's account there."""
    path, person = desktop.person.home / ".local" / "share" / "dino" / "dino.db", desktop.person
    first = desktop.start("dino-im")
    wait_until(lambda: path.exists() and desktop.call("Actions.List"))
    first.terminate()
    first.wait(DEADLINE)
    with closing(sqlite3.connect(path)) as database, database:
        columns = "bare_jid, resourcepart, password, enabled"
        row = (person.jid, "dino", person.name, True)
        database.execute(f"INSERT INTO account ({columns}) VALUES (?, ?, ?, ?)", row)
