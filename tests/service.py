"""The real service as its own process, and users that call it over HTTP."""

from __future__ import annotations

import asyncio
import atexit
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import httpx
import pytest

from media_gallery.app import Gallery, assemble, running
from media_gallery.db import migrate
from media_gallery.models import Jid
from media_gallery.settings import Settings
from tests import s3, warm
from tests.ports import free_port, is_free
from tests.waiting import DEADLINE, wait_until

PROGRAM = str(Path(sys.executable).with_name("media-gallery"))
MIB = 1024 * 1024
T = TypeVar("T")
PATIENCE = 2 * DEADLINE
"""Seconds for one answer or command. It is long, since what they wait for has its own deadline."""
UNUSED = 0.5
"""Seconds after which a client gives up a connection that it does not use. Some services close theirs after a second: a
request that is sent in that moment gets no answer.
"""
RATES = (
    "UPLOAD",
    "SLOT",
    "CODE_REQUEST_JID",
    "CODE_REQUEST_JID_ADDRESS",
    "CODE_REQUEST_ADDRESS",
    "CODE_TRY_JID",
    "CODE_TRY_ADDRESS",
)
SMALL = int(Settings.model_fields["small_file_size"].default)
"""Bytes up to which a service keeps a file in the database by default. Services of tests keep all files in the store,
where many tests look for them, unless they are started with this.
"""
FREE_RATES = {f"RATE_{name}": "100000/minute" for name in RATES}
DEFAULTS = {"WORKERS": "1", "DEFAULT_QUOTA": str(50 * MIB), "MAX_FILE_SIZE": str(20 * MIB), "LOG_FORMAT": "json",
            "ADMINS": "admin@example.org", "STOP_TIMEOUT": "10", "DECODER_TIMEOUT": "60",
            "THUMBNAIL_WAIT": "60", "CODE_PAUSE": "0", "SMALL_FILE_SIZE": "0", **FREE_RATES}  # fmt: skip


def environment(**settings: Any) -> dict[str, str]:
    """The environment of this process, with only these settings of the service, and without a settings file of the
    machine.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MEDIA_GALLERY_")}
    settings = {"CONFIG": os.devnull, **settings}
    return kept | {f"MEDIA_GALLERY_{name}": str(value) for name, value in settings.items()}


async def tidied(gallery: Gallery) -> None:
    """Wait for the turn of upkeep, which the processes of a service have, too, and do it."""
    async with asyncio.timeout(DEADLINE):
        while not await gallery.maintenance.tidy():  # noqa: ASYNC110, another process has the turn
            await asyncio.sleep(0.05)


def in_a_loop(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in a new event loop, even if the test runs in one."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()


@cache
def empty_database() -> Path:
    """A SQLite file with its tables. They are made once, since that takes as long as to start the service."""
    directory = Path(tempfile.mkdtemp(prefix="gallery-empty-"))
    atexit.register(shutil.rmtree, directory)
    migrate.upgrade(settings := Settings.model_validate({"data_dir": directory}))
    return settings.database_path


def http_client(base_url: str = "", headers: dict[str, str] | None = None) -> httpx.Client:
    """A client with long timeouts. It does not load the certificates of public authorities, which takes longer than a
    request.
    """
    limits = httpx.Limits(max_connections=100, max_keepalive_connections=20, keepalive_expiry=UNUSED)
    return httpx.Client(base_url=base_url, headers=headers, timeout=PATIENCE, limits=limits, verify=False)


anyone = http_client()
"""A client without a token."""


class Service:
    """`media-gallery serve` on a free port, with its own data directory."""

    def __init__(self, directory: Path, command: Sequence[str] = (), **settings: Any) -> None:
        """`command`: how to start it, for tests of that. By default, a fork of a process that has loaded it."""
        self.command = command
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.data_dir = directory / "data"
        self.settings = {"DATA_DIR": self.data_dir, "LISTEN": f"127.0.0.1:{self.port}", "PUBLIC_URL": self.url,
                         **DEFAULTS, **settings}  # fmt: skip
        self.log_path = directory / "log"
        self.http = http_client(self.url)
        self.process: subprocess.Popen[bytes] | warm.Running | None = None

    def launch(self) -> None:
        """Start it and do not wait. If there is no database yet, it gets one with its tables."""
        if not self.data_dir.exists() and not self.settings.get("DATABASE_URL"):
            self.data_dir.mkdir(parents=True)
            shutil.copy(empty_database(), self.data_dir)
        if self.process:  # a worker that was killed may take a while to end
            wait_until(lambda: is_free(self.port))
        settings = environment(**self.settings)
        if not self.command:
            self.process = warm.Running(["serve"], settings, self.log_path, self.log_path)
            return
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(self.command, env=settings, stderr=log, start_new_session=True)

    def start(self) -> Service:
        self.launch()
        self.wait_until(lambda: self.http.get("/healthz").is_success)
        return self

    def stop(self) -> int:
        """Ask it to stop; return its exit status."""
        assert self.process
        self.process.terminate()
        return self.process.wait(PATIENCE)

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """During the block the service accepts connections and answers nothing."""
        assert self.process
        os.killpg(self.process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.killpg(self.process.pid, signal.SIGCONT)

    def wait_until(self, condition: Callable[[], Any]) -> None:
        """`wait_until` for a service that may not listen yet. Fails if the service ends."""

        def reached() -> Any:
            assert not self.process or self.process.poll() is None, self.log()
            try:
                return condition()
            except httpx.TransportError:
                return False

        wait_until(reached, self.log)

    def log(self) -> str:
        return self.log_path.read_text()

    def log_lines(self) -> list[dict[str, Any]]:
        """The lines that are whole: who reads while the service writes may find the beginning of one."""
        whole, _, _ = self.log().rpartition("\n")
        return [json.loads(line) for line in whole.splitlines() if line.startswith("{")]

    def cli(self, *words: str, code: int = 0, **settings: Any) -> str:
        """Run a command of `media-gallery`, check its exit status, and return what it prints."""
        done = warm.run(words, environment(**self.settings | settings), PATIENCE)
        assert done.status == code, (done.output, done.errors)
        return done.output if code == 0 else done.output + done.errors

    def tidy(self) -> None:
        """Do the upkeep of the service now, after what the service itself may be doing of it."""
        self.within(tidied)

    def within(self, work: Callable[[Gallery], Coroutine[Any, Any, Any]]) -> Any:
        """Use the database and the store of the running service from this process."""

        async def main() -> Any:
            async with running(self._assembled()) as gallery:
                return await work(gallery)

        return in_a_loop(main())

    def _assembled(self) -> Gallery:
        return assemble(Settings(**{name.lower(): value for name, value in self.settings.items()}))

    def user(self, name: str = "anna", *, jid: str | None = None, admin: bool = False) -> User:
        """A signed-in account that no other test knows."""
        jid = jid or f"{name}-{uuid4().hex[:12]}@example.org"
        issued = self._with_database(lambda g: g.accounts.issue_token(Jid.parse(jid), "test", "pytest", admin))
        return User(self, jid, issued.token)

    def _with_database(self, work: Callable[[Gallery], Coroutine[Any, Any, T]]) -> T:
        """Use the database alone from this process: it starts sooner than all of `within`."""

        async def main() -> T:
            gallery = self._assembled()
            await gallery.db.start()
            try:
                return await work(gallery)
            finally:
                await gallery.rates.close()
                await gallery.db.close()

        return in_a_loop(main())

    def stored(self, *kinds: str) -> set[str]:
        """Files in these of the directories `blobs`, `thumbs`, `links` and `staging`, on disk and in the bucket."""
        walks = (os.walk(self.data_dir / kind) for kind in kinds)  # it passes over what the service removes meanwhile
        places = (Path(folder, name) for walk in walks for folder, folders, files in walk for name in folders + files)
        found = {str(path.relative_to(self.data_dir)) for path in places if path.is_file() or path.is_symlink()}
        if self.settings.get("STORAGE_URL"):
            found |= {name for name in s3.objects(self.settings) if name.partition("/")[0] in kinds}
        return found

    def stored_bytes(self) -> int:
        """The number of files, stored and still arriving, and of those that the database keeps."""

        async def rows(gallery: Gallery) -> int:
            [[count]] = await gallery.db.scan(lambda c: c.all("SELECT COUNT(*) FROM contents"))
            return int(count)

        return len(self.stored("blobs", "staging")) + int(self._with_database(rows))

    @property
    def tree(self) -> Path:
        """The data directory, for tests of its content. The test is skipped if files are in a bucket."""
        if self.settings.get("STORAGE_URL"):
            pytest.skip("files are in a bucket")
        return self.data_dir


class User:
    """A client of one account: it makes requests under `/api/v1/` with the account's token."""

    def __init__(self, service: Service, jid: str, token: str) -> None:
        self.service, self.jid, self.token = service, jid, token
        self.http = http_client(f"{service.url}/api/v1/", {"Authorization": f"Bearer {token}"})

    def get(self, path: str, **params: Any) -> httpx.Response:
        return self.http.get(path, params=params or None)

    def post(self, path: str, **body: Any) -> httpx.Response:
        return self.http.post(path, json=body)

    def put(self, path: str, **body: Any) -> httpx.Response:
        return self.http.put(path, json=body)

    def delete(self, path: str, **body: Any) -> httpx.Response:
        return self.http.request("DELETE", path, json=body or None)

    def send(self, data: bytes, name: str = "photo.bin", part_type: str | None = None, path: str = "files/upload/",
             **fields: Any) -> httpx.Response:  # fmt: skip
        """Upload; return the answer, whatever it is."""
        fields = {key: value if isinstance(value, str) else json.dumps(value) for key, value in fields.items()}
        return self.http.post(path, data=fields, files={"file": (name, data, part_type)})

    def upload(
        self, data: bytes, name: str = "photo.bin", part_type: str | None = None, **fields: Any
    ) -> dict[str, Any]:
        """Upload, which must succeed; return the file object."""
        answer = self.send(data, name, part_type, **fields)
        assert answer.status_code == 201, answer.text
        return dict(answer.json())

    def avatar(self, data: bytes, name: str = "selfie.png", **fields: Any) -> dict[str, Any]:
        return self.upload(data, name, path="avatar/upload/", **fields)

    def used(self) -> int:
        return int(self.get("account/quota/").json()["used"])

    def everything(self) -> list[dict[str, Any]]:
        """All file objects of the account except avatars."""
        pages = self.get("files/", obj_per_page=500).json()["total_pages"]
        return [item for page in range(1, pages + 1) for item in self.items(obj_per_page=500, page=page)]

    def items(self, path: str = "files/", **params: Any) -> list[dict[str, Any]]:
        answer = self.get(path, **params)
        assert answer.status_code == 200, answer.text
        return list(answer.json()["items"])


def assert_error(answer: httpx.Response, status: int, *fields: str) -> dict[str, Any]:
    """Check that the answer is an error of the contract; return its body."""
    assert answer.status_code == status, answer.text
    body: dict[str, Any] = answer.json()
    assert body["status"] == status
    assert isinstance(body["error"], str) and body["error"]
    for field in fields:
        assert field in body.get("fields", {}), body
    return body
