"""The command line, `media-gallery`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import NoReturn

from cyclopts import App, CycloptsError
from pydantic import SecretStr

from media_gallery import __version__
from media_gallery.cli.common import (
    AsJson,
    Complaint,
    Config,
    err,
    find_config,
    load,
    origins,
    print_json,
    show,
    without_secrets,
)
from media_gallery.errors import GalleryError

app = App(name="media-gallery", version=__version__, help="File sharing and media gallery for XMPP chat.")
for _name, _place, _help in (
    ("token", "accounts:tokens", "Bearer tokens: create, list, revoke."),
    ("account", "accounts:accounts", "Accounts: list, show, set a quota, delete."),
    ("db", "upkeep:database", "The database's schema."),
    ("doctor", "doctor:doctor", "Try all that the service needs, and tell what to do."),
    ("stats", "upkeep:stats", "Count what is stored."),
    ("gc", "upkeep:gc", "Remove what no link needs."),
    ("fsck", "upkeep:fsck", "Compare the database with the stored files."),
    ("backup", "moving:backup", "Copy the database and all files into a directory."),
    ("restore", "moving:restore_backup", "Bring back what a backup holds."),
    ("move-database", "moving:move_database", "Copy the database to another one."),
    ("move-storage", "moving:move_storage", "Copy the files to another store."),
    ("import", "importing:imports", "Take over the files of another service."),
):
    app.command(f"media_gallery.cli.{_place}", name=_name, help=_help)  # loaded when it is called


@app.command
def serve(*, config: Config = None) -> None:
    """Run the service until it is told to stop (SIGTERM or Ctrl-C)."""
    settings = load(config)
    from media_gallery import serve as server

    server.serve(settings, config or find_config())


@app.command(name="config")
def show_config(*, config: Config = None, as_json: AsJson = False) -> None:
    """Print the settings in force and where each comes from, secrets masked; tell what is wrong with them."""
    settings, comes_from = load(config), origins(config or find_config())
    for text in settings.warnings():
        err.print(f"Warning: {text}", style="yellow", highlight=False, markup=False, soft_wrap=True)
    rows = []
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, SecretStr):
            value = "********" if value.get_secret_value() else ""
        elif isinstance(value, str):
            value = without_secrets(value)
        elif not isinstance(value, int | float | list):
            value = str(value or "")
        rows.append({"setting": f"MEDIA_GALLERY_{name.upper()}", "value": value, "from": comes_from[name]})
    if as_json:
        print_json({row.pop("setting"): row for row in rows})
        return
    for row in rows:
        row["value"] = ", ".join(row["value"]) if isinstance(row["value"], list) else row["value"]
    show(rows, False)


def main() -> None:
    """The entry point of `media-gallery`."""
    words = sys.argv[1:]
    as_json = any(word.partition("=")[0] == "--json" for word in words)
    try:
        app(words, exit_on_error=False, print_error=not as_json)
    except CycloptsError as error:  # a word that no command takes
        _end(str(error) if as_json else "", as_json, status=2)
    except OSError as error:
        _end(f"{error.filename}: {error.strerror}" if error.filename else str(error), as_json)
    except Complaint as error:
        _end(str(error), as_json)
    except GalleryError as error:
        _end(str(error), as_json, error.fields)


def _end(text: str, as_json: bool, fields: Mapping[str, str] | None = None, status: int = 1) -> NoReturn:
    """Tell on standard error why the command failed, and end it."""
    if as_json:
        print_json({"error": text} | ({"fields": fields} if fields else {}), sys.stderr)
    elif text:
        details = ", ".join(f"{name} {what}" for name, what in (fields or {}).items())
        text = f"{text} ({details})" if details else text
        err.print(text, style="red", highlight=False, markup=False, soft_wrap=True)
    sys.exit(status)
