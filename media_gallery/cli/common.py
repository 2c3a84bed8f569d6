"""What all commands share: settings, a running gallery, tables, JSON and progress bars."""

from __future__ import annotations

import asyncio
import os
import re
import sys
import tomllib
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, TextIO, TypeVar

import msgspec
from cyclopts import Parameter
from pydantic import ValidationError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from media_gallery.app import Gallery, assemble, running
from media_gallery.db import migrate
from media_gallery.quantities import readable
from media_gallery.settings import PREFIX, Settings, load_settings

T = TypeVar("T")
PLACES = (Path("/etc/media-gallery.toml"), Path("gallery.toml"))
"""Where a settings file is looked for if none is named: the first one that is there is taken."""

Config = Annotated[
    Path | None,
    Parameter(
        name="--config",
        env_var="MEDIA_GALLERY_CONFIG",
        help=f"Settings file (TOML); if none is named, {' or '.join(map(str, PLACES))}.",
    ),
]
AsJson = Annotated[bool, Parameter(name="--json", negative=(), help="Print JSON, for programs.")]
out = Console(width=None if sys.stdout.isatty() else 100_000)  # to a pipe, a row is one line, however long
err = Console(stderr=True)


def find_config() -> Path | None:
    """The settings file to take if none is named; None if there is none."""
    return next((place.absolute() for place in PLACES if place.exists()), None)


def origins(config: Path | None) -> dict[str, str]:
    """Where the value of each setting comes from: `environment`, the path of the settings file, or `default`."""
    filed = tomllib.loads(config.read_text()) if config else {}
    given = {name.upper() for name, value in os.environ.items() if value}

    def origin(name: str) -> str:
        if PREFIX + name.upper() in given:
            return "environment"
        return str(config) if name in filed else "default"

    return {name: origin(name) for name in Settings.model_fields}


class Complaint(Exception):
    """A mistake that the person at the terminal can correct; it ends the command with status 1."""


def load(config: Path | None) -> Settings:
    """The settings of the environment and of the settings file, which is looked for if `config` names none.

    What this process makes from now on has the mode that the settings ask for.
    """
    try:
        settings = load_settings(config or find_config())
    except ValidationError as error:
        raise Complaint("The settings are wrong:\n" + "\n".join(complaints(error))) from None
    except (OSError, ValueError) as error:
        raise Complaint(f"The settings cannot be read: {error}") from None
    os.umask(settings.umask)
    return settings


def changed(settings: Settings, **changes: str) -> Settings:
    """The settings with some of them changed."""
    try:
        return Settings.model_validate({**settings.model_dump(), **changes})
    except ValidationError as error:
        raise Complaint("\n".join(complaints(error)).strip()) from None


def complaints(error: ValidationError) -> Iterator[str]:
    """One line for each setting that is wrong."""
    for wrong in error.errors():
        name = ".".join(str(part) for part in wrong["loc"][:1])
        where = f"MEDIA_GALLERY_{name.upper()}: " if name else ""
        message = wrong["msg"].removeprefix("Value error, ")
        if wrong["type"] == "extra_forbidden":
            near = get_close_matches(name.lower(), Settings.model_fields, 1)
            message = "is not a setting" + (f"; is MEDIA_GALLERY_{near[0].upper()} meant?" if near else "")
        yield f"  {where}{message}"


def existing(config: Path | None) -> Settings:
    """The settings of a gallery that is there. Raises Complaint if there is none: a new one in a wrong place would look
    as if everything were lost.
    """
    settings = load(config)
    current = migrate.current(settings)
    if current is None or not settings.data_dir.is_dir():
        database, file = without_secrets(settings.database_url) or "in it", config or find_config() or "none"
        raise Complaint(
            f"There is no gallery here: data directory {settings.data_dir.absolute()}, database {database}, settings"
            f" file {file}.\n"
            "Name the settings file of the service with --config, or make a gallery with `media-gallery db upgrade`."
        )
    if current != migrate.newest():
        raise Complaint(
            f"The database has schema {current}, this version needs {migrate.newest()}: run `media-gallery db upgrade`"
        )
    return settings


def without_secrets(address: str) -> str:
    """An address without the password it may carry, before its host or in its query."""
    hidden = re.sub(r"(://[^:@/?#]*:).*@", r"\1********@", address)
    return re.sub(r"([?&]password=)[^&]*", r"\1********", hidden)


def offline(config: Path | None, work: Callable[[Gallery], Awaitable[T]]) -> T:
    """Do `work` with the database and the store of the settings; the service may run or not."""
    settings = existing(config)

    async def main() -> T:
        async with running(assemble(settings)) as gallery:
            return await work(gallery)

    return asyncio.run(main())


def print_json(value: Any, file: TextIO | None = None) -> None:
    (file or sys.stdout).write(msgspec.json.format(msgspec.json.encode(value)).decode() + "\n")


def tell(as_json: bool, text: str, **found: Any) -> None:
    """Tell what was done, as a sentence for people or as JSON for programs."""
    if as_json:
        print_json(found)
    else:
        out.print(text, highlight=False, markup=False)


def show(rows: list[dict[str, Any]], as_json: bool, sizes: tuple[str, ...] = ()) -> None:
    """Show rows as a table for people or as JSON for programs."""
    if as_json:
        print_json(rows)
        return
    table = Table(box=None, header_style="bold")
    for name in rows[0] if rows else ():
        side: Literal["left", "right"] = "right" if name in sizes or name == "files" else "left"
        table.add_column(name.replace("_", " "), justify=side, overflow="fold")
    for row in rows:
        table.add_row(
            *(readable(v) if k in sizes and v is not None else "-" if v is None else str(v) for k, v in row.items())
        )
    out.print(table if rows else "none")


@contextmanager
def progress_bars() -> Iterator[Callable[[str, int], None]]:
    """A bar for each sort of thing that a long command looks at; none if standard error is no terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    # Lines printed meanwhile go above the bars, if both are on the terminal.
    bars = Progress(*columns, console=err, transient=True, disable=not err.is_terminal, redirect_stdout=out.is_terminal)
    tasks: dict[str, Any] = {}

    def advance(what: str, count: int) -> None:
        if what not in tasks:
            tasks[what] = bars.add_task(what, total=None)
        bars.advance(tasks[what], count)

    try:
        with bars:
            yield advance
    finally:
        err.show_cursor()  # Ctrl-C may come while the bars begin, before they know that they have hidden it
