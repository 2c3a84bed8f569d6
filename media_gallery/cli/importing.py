"""Commands that take over the files of other services."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated
from urllib.parse import unquote, urlsplit

import msgspec
from cyclopts import App, Parameter

from media_gallery.app import Gallery
from media_gallery.cli.common import AsJson, Complaint, Config, offline, out, print_json, progress_bars, show
from media_gallery.http import BASE, PAGE_FILES, PLAIN
from media_gallery.importing import Importer, OldFile, Report, django, ejabberd, in_batches, prosody
from media_gallery.models import Jid
from media_gallery.quantities import readable

imports = App(name="import", help="Take over the files of another service, and keep their addresses alive.")
_SHARED = "/media"
"""The first part of paths of ours where those of other services are looked for, too."""


@Parameter(name="*")
@dataclass
class How:
    """What all sorts of import have in common."""

    address: Annotated[
        str, Parameter(help="Below which address the files were: a URL, or its path. The service will answer there.")
    ] = ""
    ownerless: Annotated[
        str | None, Parameter(help="Whose account gets the files without a known owner; else they stay behind.")
    ] = None
    dry_run: Annotated[bool, Parameter(negative=(), help="Only tell what would be done.")] = False
    deleted: Annotated[
        bool, Parameter(negative=(), help="Also take what was taken over before and has been deleted here since.")
    ] = False
    verify: Annotated[bool, Parameter(negative=(), help="Compare the content of what was taken over before.")] = False


@imports.command(name="prosody")
def import_prosody(
    data: Annotated[Path, Parameter(help="Prosody's data directory, such as /var/lib/prosody.")],
    *,
    host: Annotated[
        list[str] | None,
        Parameter(negative=(), help="Only the files of this component or host of Prosody; may be given several times."),
    ] = None,
    how: How | None = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Take over the files of Prosody's mod_http_file_share; both services may run."""
    known = prosody.hosts(data)
    for wanted in host or []:
        if wanted not in known:
            raise Complaint(f"{data} has no index of shared files of {wanted}; it has those of: {', '.join(known)}")
    if not known:
        raise Complaint(f"{data} has no index of shared files; Prosody must keep it in its internal storage")
    _take_over(in_batches(prosody.files(data, host or known)), prosody.ADDRESS, how or How(), config, as_json)


@imports.command(name="ejabberd")
def import_ejabberd(
    docroot: Annotated[Path, Parameter(help="The module's `docroot`, with @HOST@ replaced.")],
    *,
    host: Annotated[
        str | None,
        Parameter(help="The domain of the users, which the addresses do not tell with `jid_in_url: node`."),
    ] = None,
    users: Annotated[
        Path | None,
        Parameter(help="A file with a bare JID or a name on each line, as `ejabberdctl registered_users` prints them."),
    ] = None,
    how: How | None = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Take over the files of ejabberd's mod_http_upload; both services may run."""
    jids = []
    for line in users.read_text().split() if users else ():
        if "@" not in line and host is None:
            raise Complaint("--users has names without a domain: say it with --host")
        jids.append(line if "@" in line else f"{line}@{host}")
    owners = ejabberd.Owners(jids, host)
    _take_over(in_batches(ejabberd.files(docroot, owners)), ejabberd.ADDRESS, how or How(), config, as_json)


@imports.command(name="django")
def import_django(
    media: Annotated[Path, Parameter(help="Its media folder (MEDIA_ROOT).")],
    *,
    database: Annotated[
        str,
        Parameter(help="Its database: the path of an SQLite file, or postgresql://user:password@host/database."),
    ],
    how: How | None = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Take over the files of the Django gallery of Xabber; both services may run."""
    _take_over(django.files(media, database), django.ADDRESS, how or How(), config, as_json)


def _take_over(files: AsyncIterator[list[OldFile]], address: str, how: How, config: Path | None, as_json: bool) -> None:
    base = unquote(urlsplit(how.address or address).path).rstrip("/")
    ours = {f"/{path.split('/')[1]}" for path in (*PLAIN, BASE, PAGE_FILES)} - {_SHARED}
    if f"/{base.split('/')[1] if base else ''}" in ours:
        raise Complaint(f"Addresses that begin with {base} are this service's own")
    ownerless, told = Jid.parse(how.ownerless) if how.ownerless else None, list[str]()

    def tell(text: str) -> None:
        told.append(text)
        if not as_json:
            out.print(text, markup=False, highlight=False)

    async def work(gallery: Gallery) -> Report:
        importer = Importer(
            db=gallery.db,
            store=gallery.store,
            accounts=gallery.accounts,
            uploads=gallery.uploads,
            base=base,
            ownerless=ownerless,
            dry=how.dry_run,
            again=how.deleted,
            verify=how.verify,
            tell=tell,
            progress=progress,
        )
        return await importer.run(files)

    with progress_bars() as progress:
        report = offline(config, work)
    found = msgspec.to_builtins(report)
    if as_json:
        print_json({**found, "told": told})
    else:
        _show(report, how.dry_run)
    if report.damaged:
        sys.exit(1)


def _show(report: Report, dry: bool) -> None:
    found = msgspec.to_builtins(report)
    over = found.pop("over_quota")
    show([{k: v for k, v in found.items() if v or k in ("taken", "bytes")}], False, sizes=("bytes",))
    for jid, quota in over.items():
        text = f"{jid} {'would have' if dry else 'has'} more than its quota: {readable(quota['used'])} of "
        out.print(f"{text}{readable(quota['limit'])}", markup=False, highlight=False)
