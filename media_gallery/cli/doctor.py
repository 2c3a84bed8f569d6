"""`media-gallery doctor`: tries all that the service needs, and tells what to do about what is wrong."""

from __future__ import annotations

import asyncio
import ctypes
import json
import logging
import os
import shutil
import socket
import ssl
import sys
from collections.abc import Coroutine, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import ProxyHandler, Request, build_opener

import structlog

from media_gallery import __version__
from media_gallery.app import hold, make_thumbnailer, started
from media_gallery.cli.common import AsJson, Config, find_config, load, out, print_json
from media_gallery.connection import try_connection
from media_gallery.db import accounts, migrate, started_database
from media_gallery.errors import GalleryError, Unavailable
from media_gallery.quantities import readable
from media_gallery.rates import make_rates
from media_gallery.setting_types import is_loopback
from media_gallery.settings import Settings
from media_gallery.storage import make_store
from media_gallery.thumbnails import DecoderFailed

WITHIN = 60.0
"""Seconds for each thing that is tried."""
_UNSYNCHRONISED = 5
"""What adjtimex(2) returns if nothing keeps the clock right: TIME_ERROR."""
_STYLES = {"ok": "green", "warning": "yellow", "wrong": "red"}


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found about one thing, and what to do about it if anything is to be done."""

    about: str
    state: Literal["ok", "warning", "wrong"]
    found: str
    do: str = ""


def doctor(*, config: Config = None, as_json: AsJson = False) -> None:
    """Try all that the service needs: settings, data directory, disk, clock, database, storage, rates, decoders, XMPP
    server, public address. The status is 1 if something is wrong.

    The service may run or not; nothing that is stored is changed. Run it as the user that the service runs as.
    """
    settings = load(config)
    logging.disable()  # what is wrong is told here
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    findings = []
    for finding in examine(settings, config or find_config()):
        findings.append(finding)
        if not as_json:
            out.print(f"{finding.state:8}", style=_STYLES[finding.state], end="")
            text = f"{finding.about:15}{finding.found}" + (f"\n{'':23}{finding.do}" if finding.do else "")
            out.print(text, highlight=False, markup=False, soft_wrap=True)
    if as_json:
        print_json([asdict(finding) for finding in findings])
    if any(finding.state == "wrong" for finding in findings):
        sys.exit(1)


def examine(settings: Settings, file: Path | None) -> Iterator[Finding]:
    """Try one thing after the other."""
    yield from _settings(settings, file)
    place = _data_directory(settings)
    yield place
    yield _disk(settings)
    yield _clock()
    # Where there is no data directory, or it is another user's, nothing may be made in it.
    there = place.state != "wrong" and settings.data_dir.is_dir()
    running = there and _is_running(settings)
    if there or settings.database_url.startswith("postgresql"):
        yield _tried("database", _database(settings), "See that the server runs, and DATABASE_URL names it.")
    if there:
        yield _tried("storage", _storage(settings), "See that the store runs, and STORAGE_URL and S3_* name it.")
    if there or settings.rates_url:
        yield _tried("rates", _rates(settings), "See that Redis runs, and RATES_URL names it.")
    yield _tried("decoders", _decoders(settings), "See memory and limits of this user; install the packages again.")
    yield _tried("XMPP", _xmpp(settings, running), "")
    yield from _public(settings, running)


def _tried(about: str, work: Coroutine[None, None, Finding], do: str) -> Finding:
    async def within() -> Finding:
        async with asyncio.timeout(WITHIN):
            return await work

    try:
        return asyncio.run(within())
    except TimeoutError:
        return Finding(about, "wrong", f"no answer within {WITHIN:.0f} s", do)
    except (GalleryError, OSError, DecoderFailed) as error:
        return Finding(about, "wrong", str(error), do)


def _settings(settings: Settings, file: Path | None) -> Iterator[Finding]:
    for text in settings.warnings():
        yield Finding("settings", "warning", text)
    told = f"{file} and the environment" if file else "the environment alone; commands in another shell see others"
    yield Finding("settings", "ok", told)
    if file and file.is_file() and file.stat().st_mode & 0o007:
        yield Finding("settings", "warning", f"every user of this machine can read {file}", f"chmod o-rwx {file}")


def _data_directory(settings: Settings) -> Finding:
    about, place = "data directory", settings.data_dir.absolute()
    try:
        found = place.stat()
    except FileNotFoundError:
        do = "The service makes it when it starts. If it runs, name its settings file with --config."
        return Finding(about, "warning", f"{place} is not there", do)
    except OSError as error:
        return Finding(about, "wrong", f"{place}: {error.strerror}", "Run this as the service's user.")
    if found.st_uid != os.getuid():
        do = f"Run every command as the service's user: sudo -u '#{found.st_uid}' media-gallery doctor"
        return Finding(about, "wrong", f"{place} belongs to another user than the one who runs this command", do)
    if not os.access(place, os.R_OK | os.W_OK | os.X_OK):
        return Finding(about, "wrong", f"{place} cannot be written", f"chmod u+rwx {place}")
    blobs = place / "blobs"
    if settings.accel_prefix and blobs.is_dir() and blobs.stat().st_mode & 0o050 != 0o050:
        told = f"ACCEL_PREFIX is set, but its group cannot read {blobs}"
        return Finding(about, "wrong", told, f"chmod -R g+rX {place}/blobs {place}/thumbs {place}/links")
    if found.st_mode & 0o007:
        return Finding(about, "warning", f"every user of this machine can read {place}", f"chmod o-rwx {place}")
    return Finding(about, "ok", str(place))


def _is_running(settings: Settings) -> bool:
    """Whether a service has the data directory in use."""
    try:
        with hold(settings.data_dir, alone=True):
            return False
    except Unavailable:
        return True


def _disk(settings: Settings) -> Finding:
    wanted = settings.data_dir.absolute()
    place = next(path for path in (wanted, *wanted.parents) if path.exists())
    free = shutil.disk_usage(place).free
    told = f"{readable(free)} free at {place}"
    if free < settings.min_free_space:
        return Finding(
            "disk", "wrong", f"{told}: uploads are refused", "Make room, or give the directory a larger disk."
        )
    if free < settings.min_free_space + settings.max_file_size:
        return Finding("disk", "warning", f"{told}: no room for a file of MAX_FILE_SIZE", "Make room, or lower it.")
    return Finding("disk", "ok", told)


def _clock() -> Finding:
    """Ask the kernel whether a program keeps the clock right, as NTP's do (adjtimex, without changing anything)."""
    if ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(512)) != _UNSYNCHRONISED:
        return Finding("clock", "ok", "kept right by NTP")
    return Finding("clock", "warning", "nothing keeps it right", "apt install systemd-timesyncd, or chrony.")


async def _database(settings: Settings) -> Finding:
    kind = (
        "PostgreSQL"
        if settings.database_url.startswith("postgresql")
        else f"SQLite, {settings.database_path.absolute()}"
    )
    schema = await asyncio.to_thread(migrate.current, settings)
    if schema is None:
        return Finding("database", "warning", f"{kind}: empty", "The service fills it when it starts.")
    if schema != migrate.newest():
        told = f"{kind}: schema {schema}, this version needs {migrate.newest()}"
        return Finding("database", "wrong", told, "Restart the service, or run `media-gallery db upgrade`.")
    async with started_database(settings) as db:
        await db.write(accounts.list_closed)  # as /readyz does: it changes nothing
    return Finding("database", "ok", f"{kind}: schema {schema}, can be written")


async def _storage(settings: Settings) -> Finding:
    store = make_store(settings)
    async with started(store):
        await store.check()
    return Finding("storage", "ok", f"{settings.storage_url or 'the data directory'} can be written")


async def _rates(settings: Settings) -> Finding:
    rates = make_rates(settings)
    try:
        await rates.check()
    finally:
        await rates.close()
    return Finding("rates", "ok", f"counted in {'Redis' if settings.rates_url else 'the data directory'}")


async def _decoders(settings: Settings) -> Finding:
    thumbnailer = make_thumbnailer(settings)
    async with started(thumbnailer):
        await thumbnailer.check()
    if missing := thumbnailer.missing:
        told = f"an image was decoded, but this machine does not confine decoders in: {', '.join(missing)}"
        return Finding("decoders", "warning", told, "docs/security.md tells what each part needs.")
    return Finding("decoders", "ok", "an image was decoded, in confinement")


async def _xmpp(settings: Settings, running: bool) -> Finding:
    from media_gallery.serve import xmpp_config

    if not settings.xmpp_jid:
        return Finding(
            "XMPP", "warning", "development mode: codes are written to the log", "Set XMPP_JID and its secret."
        )
    config = xmpp_config(settings)
    if running and config.component_secret:  # a second connection could take stanzas from the first
        where = f"{config.component_host} port {config.component_port}"
        try:
            _, writer = await asyncio.open_connection(config.component_host, config.component_port)
            writer.close()
        except OSError as error:
            return Finding("XMPP", "wrong", f"nothing answers at {where}: {error.strerror}", "Start the XMPP server.")
        return Finding("XMPP", "ok", f"a server listens at {where}; the service's log tells whether it has taken us")
    if reason := await try_connection(config):
        return Finding(
            "XMPP", "wrong", f"the server did not take us: {reason}", "Compare XMPP_* with its configuration."
        )
    return Finding("XMPP", "ok", f"{settings.xmpp_jid} was taken")


def _public(settings: Settings, running: bool) -> Iterator[Finding]:
    """Ask at PUBLIC_URL, as a client does."""
    about, url = "public address", settings.public_url
    if not running:
        yield Finding(about, "warning", f"{url} was not tried, since the service does not run here", "Start it first.")
        return
    status, body = _asked(f"{url}/api/v1/")
    try:
        said = json.loads(body)
        name, version = said["name"], said["version"]
    except (ValueError, LookupError, TypeError):
        name = version = ""
    if status is None:
        yield Finding(about, "wrong", f"{url}: {body}", "See DNS, the firewall, and the web server in front.")
    elif name != "media-gallery":
        told = f"{url} answers {status}, but it is not this service that answers"
        yield Finding(about, "wrong", told, f"Let the web server in front hand requests to {settings.listen}.")
    elif version != __version__:
        yield Finding(about, "warning", f"{url} answers with version {version}, this is {__version__}", "Restart it.")
    else:
        yield Finding(about, "ok", f"{url} answers with version {version}")
    public = name == "media-gallery" and not is_loopback(urlsplit(url).hostname or "")
    if public and _asked(f"{url}/metrics")[0] == 200:
        yield Finding(about, "warning", f"everybody can read {url}/metrics", "Close it in the web server in front.")


def _asked(url: str) -> tuple[int | None, str]:
    """Status and beginning of the body; None and the reason if there was no answer."""
    opener = build_opener(ProxyHandler({}))
    try:
        with opener.open(Request(url, headers={"Accept": "application/json"}), timeout=10) as answer:  # noqa: S310
            return answer.status, answer.read(65536).decode(errors="replace")
    except HTTPError as error:
        return error.code, ""
    except (OSError, ValueError) as error:
        reason = error.reason if isinstance(error, URLError) else error
        if isinstance(reason, ssl.SSLCertVerificationError):
            return None, f"its certificate is not trusted: {reason.verify_message}"
        if isinstance(reason, socket.gaierror):
            return None, "its name is not found in DNS"
        return None, f"nothing answers: {getattr(reason, 'strerror', None) or reason}"
