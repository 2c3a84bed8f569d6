"""The command line, `media-gallery`."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
from cyclopts import App, Parameter
from pydantic import SecretStr, ValidationError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from media_gallery import __version__
from media_gallery.app import Gallery, assemble, hold
from media_gallery.db import accounts as account_queries
from media_gallery.db import migrate, open_database, upkeep
from media_gallery.db.move import copy_database
from media_gallery.errors import GalleryError
from media_gallery.models import Filter, Jid, iso
from media_gallery.settings import Settings, load_settings, parse_bytes, parse_seconds

T = TypeVar("T")
app = App(name="media-gallery", version=__version__, help="File sharing and media gallery for XMPP chat.")
tokens = App(name="token", help="Bearer tokens.")
accounts = App(name="account", help="Accounts and their quotas.")
database = App(name="db", help="The database.")
for _group in (tokens, accounts, database):
    app.command(_group)

Config = Annotated[
    Path | None, Parameter(name="--config", env_var="MEDIA_GALLERY_CONFIG", help="Settings file (TOML).")
]
AsJson = Annotated[bool, Parameter(name="--json", negative=(), help="Print JSON, for programs.")]
out, err = Console(), Console(stderr=True)


class Complaint(Exception):
    """Something the person at the terminal can mend; ends the command with status 1."""


# --- Common ground -----------------------------------------------------------------------------------------------


def _load(config: Path | None) -> Settings:
    try:
        return load_settings(config)
    except ValidationError as error:
        raise Complaint("The settings are wrong:\n" + "\n".join(complaints(error))) from None
    except (OSError, ValueError) as error:
        raise Complaint(f"The settings cannot be read: {error}") from None


def complaints(error: ValidationError) -> Iterator[str]:
    """One line for each setting that is wrong."""
    for wrong in error.errors():
        name = ".".join(str(part) for part in wrong["loc"][:1])
        where = f"MEDIA_GALLERY_{name.upper()}: " if name else ""
        message = wrong["msg"].removeprefix("Value error, ")
        yield f"  {where}{'is not a setting' if wrong['type'] == 'extra_forbidden' else message}"


def _offline(config: Path | None, work: Callable[[Gallery], Awaitable[T]]) -> T:
    """Do `work` with the database and the store of the settings, whether the service runs or not."""
    settings = _load(config)
    current = migrate.current(settings)
    if current is None:
        migrate.upgrade(settings)
    elif current != migrate.newest():
        raise Complaint(
            f"The database has schema {current}, this version needs {migrate.newest()}: run `media-gallery db upgrade`"
        )

    async def main() -> T:
        async with _started(assemble(settings)) as gallery:
            return await work(gallery)

    return asyncio.run(main())


@asynccontextmanager
async def _started(gallery: Gallery) -> AsyncIterator[Gallery]:
    await gallery.db.start()
    await gallery.store.start()
    try:
        yield gallery
    finally:
        await gallery.store.close()
        await gallery.db.close()


def _size(size: int) -> str:
    value, unit = float(size), "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024 or unit == "TiB":
            break
        value /= 1024
    return f"{size} B" if unit == "B" else f"{value:.1f} {unit}"


def _print_json(value: Any) -> None:
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(value)).decode() + "\n")


def _show(rows: list[dict[str, Any]], as_json: bool, sizes: tuple[str, ...] = ()) -> None:
    """Rows as a table for people or as JSON for programs."""
    if as_json:
        _print_json(rows)
        return
    table = Table(box=None, header_style="bold")
    for name in rows[0] if rows else ():
        table.add_column(name.replace("_", " "), justify="right" if name in sizes or name == "files" else "left")
    for row in rows:
        table.add_row(
            *(_size(v) if k in sizes and v is not None else "-" if v is None else str(v) for k, v in row.items())
        )
    out.print(table if rows else "none")


@contextmanager
def _progress() -> Iterator[Callable[[str, int], None]]:
    """A bar for each thing that a long work passes over; nothing where nobody watches."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bars:
        tasks: dict[str, Any] = {}

        def advance(what: str, more: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=None)
            bars.advance(tasks[what], more)

        yield advance


# --- The service -------------------------------------------------------------------------------------------------


@app.command
def serve(*, config: Config = None) -> None:
    """Run the service until it is told to stop (SIGTERM or Ctrl-C)."""
    settings = _load(config)
    from media_gallery import serve as server

    server.serve(settings, config)


@app.command(name="config")
def show_config(*, config: Config = None, as_json: AsJson = False) -> None:
    """Print the settings in force, secrets masked; tell what is wrong with them."""
    settings = _load(config)
    rows = []
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, SecretStr):
            value = "********" if value.get_secret_value() else ""
        elif name.endswith("_url"):
            value = re.sub(r"(//[^/@]*:)[^/@]*@", r"\1********@", value)
        rows.append({"setting": f"MEDIA_GALLERY_{name.upper()}", "value": value})
    if as_json:
        _print_json(
            {
                row["setting"]: row["value"]
                if isinstance(row["value"], int | float | list)
                else str(row["value"] or "")
                for row in rows
            }
        )
        return
    _show(
        [{**row, "value": ", ".join(row["value"]) if isinstance(row["value"], list) else row["value"]} for row in rows],
        False,
    )


# --- Tokens ------------------------------------------------------------------------------------------------------


@tokens.command(name="create")
def create_token(
    jid: str, *, admin: bool = False, device: str = "command line", config: Config = None, as_json: AsJson = False
) -> None:
    """Make a token for a JID; its account is made where it is not there yet. The last line printed is the token.

    Parameters
    ----------
    jid: Whose token, such as anna@example.org.
    admin: Let the token make the calls of administrators.
    device: What the account's owner sees it named as.
    """
    issued = _offline(
        config, lambda gallery: gallery.accounts.issue_token(Jid.parse(jid), device, "media-gallery", admin)
    )
    if as_json:
        _print_json({"token": issued.token, "expires": iso(issued.expires)})
        return
    err.print(f"A token of {Jid.parse(jid).bare}, valid until {iso(issued.expires)}:", highlight=False)
    sys.stdout.write(issued.token + "\n")


@tokens.command(name="list")
def list_tokens(jid: str, *, config: Config = None, as_json: AsJson = False) -> None:
    """List the valid tokens of an account."""

    async def work(gallery: Gallery) -> list[dict[str, Any]]:
        account = await gallery.accounts.get(Jid.parse(jid))
        page = await gallery.accounts.list_tokens(account.id, 1, 10_000)
        return [
            {
                "id": token.id,
                "device": token.device,
                "client": token.client,
                "admin": token.admin,
                "created_at": iso(token.created_at),
                "expires": iso(token.expires),
                "last_used": iso(token.last_used) if token.last_used else None,
            }
            for token in page.items
        ]

    _show(_offline(config, work), as_json)


@tokens.command(name="revoke")
def revoke_token(jid: str, token_id: int, *, config: Config = None) -> None:
    """Make a token of an account invalid, by its id in the list."""

    async def work(gallery: Gallery) -> None:
        account = await gallery.accounts.get(Jid.parse(jid))
        await gallery.accounts.revoke_token(account.id, token_id)

    _offline(config, work)


# --- Accounts ----------------------------------------------------------------------------------------------------


@accounts.command(name="list")
def list_accounts(
    *,
    vhost: str | None = None,
    order_by: str = "jid",
    limit: int = 1000,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """List accounts.

    Parameters
    ----------
    vhost: Only those of this domain.
    order_by: jid, used or quota; with - before it, the largest first.
    limit: At most so many.
    """
    order = order_by.removeprefix("-")
    if order not in account_queries.ORDERS:
        raise Complaint(f"--order-by is one of {', '.join(account_queries.ORDERS)}")

    async def work(gallery: Gallery) -> list[dict[str, Any]]:
        page = await gallery.accounts.list(vhost, order, order_by.startswith("-"), 1, limit)
        return [
            {
                "jid": a.jid,
                "quota": gallery.accounts.quota_of(a),
                "used": a.used,
                "files": a.files,
                "created_at": iso(a.created_at),
            }
            for a in page.items
        ]

    _show(_offline(config, work), as_json, sizes=("quota", "used"))


@accounts.command(name="show")
def show_account(jid: str, *, config: Config = None, as_json: AsJson = False) -> None:
    """Show what an account stores, by category."""

    async def work(gallery: Gallery) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        account = await gallery.accounts.get(Jid.parse(jid))
        usage = await gallery.files.usage(account.id, Filter())
        head = {
            "jid": account.jid,
            "quota": gallery.accounts.quota_of(account),
            "used": account.used,
            "files": account.files,
            "created_at": iso(account.created_at),
        }
        return head, [{"category": c, "files": usage.files[c], "used": usage.used[c]} for c in usage.files]

    head, rows = _offline(config, work)
    if as_json:
        _print_json({**head, "categories": rows})
        return
    _show([head], False, sizes=("quota", "used"))
    _show(rows, False, sizes=("used",))


@accounts.command(name="set-quota")
def set_quota(jid: str, quota: str, *, config: Config = None) -> None:
    """Give an account a quota of its own.

    Parameters
    ----------
    quota: Bytes, or a size such as 10GiB, or `default`.
    """
    try:
        value = None if quota == "default" else parse_bytes(quota)
    except ValueError as error:
        raise Complaint(f"The quota {error}, or `default`") from None
    account = _offline(config, lambda gallery: gallery.accounts.set_quota(Jid.parse(jid), value))
    out.print(f"{account.jid}: {_size(value) if value is not None else 'the default'}", highlight=False)


@accounts.command(name="delete")
def delete_account(jid: str, *, yes: bool = False, config: Config = None) -> None:
    """Delete an account with all it has stored.

    Parameters
    ----------
    yes: Do not ask.
    """
    if not yes and not (err.is_terminal and err.input(f"Delete {jid} with all files? [y/N] ").lower().startswith("y")):
        raise Complaint("Not deleted. Say --yes to delete without being asked.")

    async def work(gallery: Gallery) -> None:
        account = await gallery.accounts.get(Jid.parse(jid))
        await gallery.accounts.delete(account.id)

    _offline(config, work)


# --- Upkeep ------------------------------------------------------------------------------------------------------


@app.command
def stats(*, config: Config = None, as_json: AsJson = False) -> None:
    """Tell how much is stored in all."""

    async def work(gallery: Gallery) -> dict[str, int]:
        count, links, used, stored = await gallery.db.scan(account_queries.totals)
        blobs = await gallery.db.scan(upkeep.count_blobs)
        return {"accounts": count, "links": links, "used": used, "blobs": blobs, "stored": stored}

    totals = _offline(config, work)
    if as_json:
        _print_json(totals)
    else:
        _show([totals], False, sizes=("used", "stored"))


@app.command
def gc(*, older_than: str | None = None, config: Config = None, as_json: AsJson = False) -> None:
    """Remove what no link needs: unfinished uploads, bytes and links without a row, expired codes and tokens.

    Parameters
    ----------
    older_than: Only what has not been touched for so long, such as `10 min`; default: the setting GC_GRACE.
    """
    try:
        grace = None if older_than is None else float(parse_seconds(older_than))
    except ValueError as error:
        raise Complaint(f"--older-than {error}") from None
    with _progress() as progress:
        swept = _offline(config, lambda gallery: gallery.maintenance.gc(grace, progress))
    found = msgspec.to_builtins(swept)
    if as_json:
        _print_json(found)
    else:
        _show([{"removed": name.replace("_", " "), "count": count} for name, count in found.items()], False)


@app.command
def fsck(*, repair: bool = False, config: Config = None, as_json: AsJson = False) -> None:
    """Compare the database and the storage both ways; the status is 1 where something is wrong and not repaired.

    Parameters
    ----------
    repair: Publish links anew, count anew, and remove links whose bytes are lost.
    """
    with _progress() as progress:
        report = _offline(config, lambda gallery: gallery.maintenance.fsck(repair, progress))
    if as_json:
        _print_json(report)
    else:
        for finding in report.findings:
            out.print(f"{finding.kind}: {finding.what}{' (repaired)' if finding.repaired else ''}", highlight=False)
        out.print(
            f"{report.blobs} blobs, {report.links} links, {report.spare} for gc, {len(report.findings)} wrong",
            highlight=False,
        )
    if any(not finding.repaired for finding in report.findings):
        sys.exit(1)


@app.command(name="move-database")
def move_database(target: str, *, config: Config = None) -> None:
    """Copy the database into another one, which must be empty, or left by a copy that was cut short.

    The service must be stopped meanwhile. Every row is compared at the end; then set DATABASE_URL and start again.

    Parameters
    ----------
    target: Such as postgresql://user:password@host/database.
    """
    settings = _load(config)
    goal = Settings.model_validate({**settings.model_dump(), "database_url": target})

    async def work(progress: Callable[[str, int], None]) -> int:
        source, destination = open_database(settings), open_database(goal)
        await source.start()
        await destination.start()
        try:
            return await copy_database(source, destination, progress)
        finally:
            await destination.close()
            await source.close()

    with hold(settings.data_dir, alone=True), _progress() as progress:
        migrate.upgrade(settings)
        migrate.upgrade(goal)
        rows = asyncio.run(work(progress))
    out.print(f"{rows} rows copied and compared. Now set MEDIA_GALLERY_DATABASE_URL to the new database.")


@database.command(name="upgrade")
def upgrade_database(*, config: Config = None) -> None:
    """Bring the database to the schema that this version needs."""
    before, after = migrate.upgrade(_load(config))
    out.print(
        "The database is up to date." if before == after else f"Migrated from {before or 'nothing'} to {after}.",
        highlight=False,
    )


def main() -> None:
    """The entry point of `media-gallery`."""
    try:
        app()
    except (Complaint, GalleryError) as error:
        fields = error.fields if isinstance(error, GalleryError) else {}
        details = ", ".join(f"{name} {what}" for name, what in fields.items())
        text = f"{error} ({details})" if details else str(error)
        err.print(text, style="red", highlight=False, markup=False, soft_wrap=True)
        sys.exit(1)
