"""The processes of one host: web workers, and the courier that holds the XMPP connection."""

from __future__ import annotations

import asyncio
import fcntl
import multiprocessing
import os
import resource
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import structlog
from granian.constants import HTTPModes, Interfaces, Loops
from granian.http import HTTP1Settings
from granian.server import Server
from starlette.applications import Starlette

from media_gallery import logs
from media_gallery.app import COURIER_SOCKET, answering, build, hold
from media_gallery.connection import XmppConfig, run_courier
from media_gallery.db import migrate, started_database
from media_gallery.errors import NoSpace, Unavailable
from media_gallery.metrics import MULTIPROCESS
from media_gallery.rates import make_rates
from media_gallery.settings import Settings, load_settings

log = structlog.get_logger()
CONFIG = "MEDIA_GALLERY_CONFIG"
"""Environment variable that tells the settings file to the processes started here."""
RUNTIME = "media-gallery."
"""How the name of a directory begins that holds a running service's socket and counts, in the temporary folder."""
HEAD = 512 * 1024
"""Bytes of a request's head, at most, and of a body read at once: fewer make large uploads slower."""
DESCRIPTORS = 65_536
"""Files and connections that a process may have open, at most, if the system allows so many."""
_MALLOC = {  # without these, glibc gives the memory of large bodies back and takes it again, piece by piece
    "MALLOC_TRIM_THRESHOLD_": str(64 << 20),
    "MALLOC_MMAP_THRESHOLD_": str(64 << 20),
    "MALLOC_TOP_PAD_": str(16 << 20),
    "MALLOC_ARENA_MAX": "2",
}


def _settings() -> Settings:
    config = os.environ.get(CONFIG)
    return load_settings(Path(config) if config else None)


def _end_with_parent() -> None:
    """End this process when the one that started it has ended, in whatever way."""
    parent = multiprocessing.parent_process()
    assert parent

    def watch() -> None:
        parent.join()
        shutil.rmtree(os.environ[MULTIPROCESS], ignore_errors=True)  # if the parent was killed, it has not done that
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def worker() -> Starlette:
    """The application of one web worker; the server calls this in each of its processes."""
    _end_with_parent()
    settings = _settings()
    logs.set_up(settings)
    return build(settings)


def xmpp_config(settings: Settings) -> XmppConfig:
    """The settings that the courier needs."""
    return XmppConfig(
        jid=settings.xmpp_jid,
        password=settings.xmpp_password.get_secret_value(),
        host=settings.xmpp_host,
        port=settings.xmpp_port,
        tls=settings.xmpp_tls,
        ca_file=settings.xmpp_ca_file,
        component_host=settings.xmpp_component_host,
        component_port=settings.xmpp_component_port,
        component_secret=settings.xmpp_component_secret.get_secret_value(),
    )


def courier(path: str) -> None:
    """The courier's process."""
    _end_with_parent()
    settings = _settings()
    logs.set_up(settings)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C reaches all processes; the parent ends us

    async def run() -> None:
        async with answering(settings) as room:
            await run_courier(xmpp_config(settings), Path(path), room)

    async def main() -> None:
        task = asyncio.create_task(run())
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        with suppress(asyncio.CancelledError):
            await task

    asyncio.run(main())


class _CourierKeeper:
    """Keeps the courier running beside the web workers."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.stopping = threading.Event()
        self._process = self._start()
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()

    def _start(self) -> multiprocessing.process.BaseProcess:
        process = multiprocessing.get_context("spawn").Process(
            target=courier, args=(str(self.path),), name="courier", daemon=True
        )
        process.start()
        return process

    def _watch(self) -> None:
        while not self.stopping.wait(1):
            if not self._process.is_alive():
                log.error("the courier ended unexpectedly and is started again", exitcode=self._process.exitcode)
                self._process = self._start()

    def stop(self) -> None:
        self.stopping.set()
        self._watcher.join()
        self._process.terminate()
        self._process.join(10)


def serve(settings: Settings, config: Path | None) -> None:
    """Run the service until a stop signal; running requests may finish within `stop_timeout`.

    Raises Unavailable if the address is taken or is not one of this machine, if another command has the data directory
    to itself, or if the database cannot be opened.
    """
    logs.set_up(settings)
    _check_address(settings)
    for text in settings.warnings():
        log.warning(text)
    with hold(settings.data_dir, alone=False):
        before, after = migrate.upgrade(settings)
        if before != after:
            log.info("database migrated", before=before, after=after)
        asyncio.run(_try_out(settings))
        _close_to_others(settings)
        _serve(settings, config)


def _close_to_others(settings: Settings) -> None:
    """Let others read nothing of the data directory, whoever has made it: a web server's group may read the files if it
    sends them, but never the databases.
    """
    with suppress(PermissionError):  # another user owns it, and answers for its mode
        settings.data_dir.chmod(0o777 & ~settings.umask)
        for database in settings.data_dir.glob("*.sqlite*"):
            with suppress(FileNotFoundError):  # the log of a database that the last process has closed
                database.chmod(0o600)


async def _try_out(settings: Settings) -> None:
    """Open once what each worker will open: a worker that cannot start would be started again and again, silently."""
    async with started_database(settings):
        rates = make_rates(settings)
        with suppress(Unavailable, NoSpace):  # not counted now: it is in the log
            await rates.check()
        await rates.close()


def _let_children_begin_clean() -> None:
    """Spawn children, so that they have no threads and connections of ours. Hide the main module, the command line,
    which each child would load again.
    """
    multiprocessing.set_start_method("spawn", force=True)
    ours = vars(sys.modules["__main__"])
    ours["__spec__"] = None
    ours.pop("__file__", None)


def _serve(settings: Settings, config: Path | None) -> None:
    _let_children_begin_clean()
    _remove_left()
    runtime = Path(tempfile.mkdtemp(prefix=RUNTIME))
    held = os.open(runtime, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(held, fcntl.LOCK_EX)
    os.environ |= {MULTIPROCESS: str(runtime), **_MALLOC}
    if config is not None:
        os.environ[CONFIG] = str(config.absolute())
    keeper = None
    try:
        if settings.xmpp_jid:
            os.environ[COURIER_SOCKET] = str(runtime / "courier")
            keeper = _CourierKeeper(runtime / "courier")
        else:
            log.warning("DEVELOPMENT MODE: no XMPP is configured, one-time codes are written to this log")
        log.info(
            "listening",
            address=settings.listen,
            url=settings.public_url,
            workers=settings.worker_count,
            data=str(settings.data_dir.absolute()),
            settings=str(config or "environment"),
        )
        _server(settings).serve()
    finally:
        if keeper is not None:
            keeper.stop()
        shutil.rmtree(runtime, ignore_errors=True)
        os.close(held)


def _remove_left() -> None:
    """Remove what services of this user have left in the temporary folder that were killed with all their processes.
    A living one holds a lock on its directory, from the moment after it has made it.
    """
    for path in Path(tempfile.gettempdir()).glob(f"{RUNTIME}*"):
        with suppress(OSError):
            held = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                made = os.fstat(held)
                if made.st_uid == os.getuid() and made.st_mtime < time.time() - 60:
                    fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(held)


def _check_address(settings: Settings) -> None:
    """Raise Unavailable if the port is taken. Workers share it (SO_REUSEPORT), so a second service would not fail."""
    host, port = settings.address
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise Unavailable(
                f"{settings.listen} cannot be listened on: {error.strerror}. MEDIA_GALLERY_LISTEN names another address"
            ) from error


def _connections() -> int:
    """How many connections a worker may hold: half of its descriptors, the rest is for the files that requests open.
    Idle connections cost little, and a lower limit would let a few thousand of them keep everybody else out.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    return limit // 2


class _Waking(threading.Event):
    """An event whose waiter wakes each second. Only the first thread runs Python's signal handlers, and if another one
    gets the stop signal, as it may after the process was stopped and goes on, nothing else would wake the first.
    """

    def wait(self, timeout: float | None = None) -> bool:
        if timeout is not None:
            return super().wait(timeout)
        while not super().wait(1):
            pass
        return True


def _server(settings: Settings) -> Any:
    host, port = settings.address
    server = Server(
        "media_gallery.serve:worker",
        factory=True,
        address=host,
        port=port,
        interface=Interfaces.ASGI,
        workers=settings.worker_count,
        loop=Loops.uvloop,
        http=HTTPModes.http1,
        http1_settings=HTTP1Settings(header_read_timeout=int(settings.idle_timeout * 1000), max_buffer_size=HEAD),
        websockets=False,
        backlog=2048,
        backpressure=_connections(),
        log_enabled=False,
        respawn_failed_workers=True,
        workers_kill_timeout=max(1, int(settings.stop_timeout)),
    )
    server.main_loop_interrupt = _Waking()
    return server
