"""Commands that count what is stored, remove what is spare, and check all of it."""

from __future__ import annotations

import sys
from contextlib import ExitStack

import msgspec
from cyclopts import App

from media_gallery.app import Gallery, hold
from media_gallery.cli.common import (
    AsJson,
    Complaint,
    Config,
    existing,
    load,
    offline,
    out,
    print_json,
    progress_bars,
    show,
    tell,
)
from media_gallery.db import migrate
from media_gallery.errors import Unavailable
from media_gallery.maintenance import LEAST_GRACE, Finding
from media_gallery.quantities import parse_seconds

database = App(name="db", help="The database.")
_FINDINGS = '{\n  "findings": ['


def stats(*, config: Config = None, as_json: AsJson = False) -> None:
    """Tell how much is stored in all."""

    async def work(gallery: Gallery) -> dict[str, int]:
        found = await gallery.accounts.totals()
        return {
            "accounts": found.accounts, "links": found.files, "used": found.used, "blobs": found.blobs,
            "stored": found.stored,
        }  # fmt: skip

    totals = offline(config, work)
    if as_json:
        print_json(totals)
    else:
        show([totals], False, sizes=("used", "stored"))


def gc(
    *, older_than: str | None = None, all_lost: bool = False, config: Config = None, as_json: AsJson = False
) -> None:
    """Remove what no link needs: unfinished uploads, bytes and links without a row, expired codes, tokens and links.

    Parameters
    ----------
    older_than
        Only what has not been touched for so long, such as `2 h`; default: the setting GC_GRACE. For less
        than an hour the service must be stopped: what an upload has brought is on disk before the database knows it.
    all_lost
        Remove even if storage and database seem to belong to two galleries.
    """
    settings = existing(config)
    try:
        grace = settings.gc_grace if older_than is None else float(parse_seconds(older_than))
    except ValueError as error:
        raise Complaint(f"--older-than {error}") from None
    with ExitStack() as stack, progress_bars() as progress:
        if grace < LEAST_GRACE:
            try:
                stack.enter_context(hold(settings.data_dir, alone=True))
            except Unavailable:
                raise Complaint("The service is running: stop it first, or leave what is not an hour old") from None
        swept = offline(config, lambda gallery: gallery.maintenance.gc(grace, progress, all_lost))
    found = msgspec.to_builtins(swept)
    if as_json:
        print_json(found)
    else:
        show([{"removed": name.replace("_", " "), "count": count} for name, count in found.items()], False)


def fsck(*, repair: bool = False, all_lost: bool = False, config: Config = None, as_json: AsJson = False) -> None:
    """Compare the database and the storage in both directions; the status is 1 if something is wrong and not repaired.

    Parameters
    ----------
    repair
        Publish links anew, count anew, and remove links whose bytes are lost.
    all_lost
        Repair even if the storage has none of the oldest files, which is so if its name in the settings is wrong.
    """
    told = 0

    def told_at_once(finding: Finding) -> None:
        nonlocal told
        if as_json:
            line = (",\n    " if told else _FINDINGS + "\n    ") + msgspec.json.encode(finding).decode()
        else:
            line = f"{finding.kind}: {finding.what}{' (repaired)' if finding.repaired else ''}\n"
        sys.stdout.write(line)
        told += 1

    with progress_bars() as progress:
        report = offline(config, lambda gallery: gallery.maintenance.fsck(repair, progress, told_at_once, all_lost))
    if as_json:
        counts = {"blobs": report.blobs, "links": report.links, "spare": report.spare}
        begun = "" if told else _FINDINGS
        sys.stdout.write(begun + "],\n" + ",\n".join(f'  "{name}": {n}' for name, n in counts.items()) + "\n}\n")
    else:
        text = f"{report.blobs} blobs, {report.links} links, {report.spare} for gc, {report.wrong} wrong"
        out.print(text, highlight=False)
    if report.wrong > report.repaired:
        sys.exit(1)


@database.command(name="upgrade")
def upgrade_database(*, config: Config = None, as_json: AsJson = False) -> None:
    """Bring the database to the schema that this version needs; make a gallery if there is none."""
    settings = load(config)
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    before, after = migrate.upgrade(settings)
    text = "The database is up to date." if before == after else f"Migrated from {before or 'nothing'} to {after}."
    tell(as_json, text, before=before, after=after)
