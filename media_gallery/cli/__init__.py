"""The command line, `media-gallery`."""

from __future__ import annotations

import sys
from typing import NoReturn

from cyclopts import App
from pydantic import SecretStr

from media_gallery import __version__
from media_gallery.cli.common import AsJson, Complaint, Config, err, load, print_json, show, without_secrets
from media_gallery.errors import GalleryError
from media_gallery.settings import find_config, origins

app = App(name="media-gallery", version=__version__, help="File sharing and media gallery for XMPP chat.")
for _name, _place, _help in (
    ("token", "accounts:tokens", "Bearer tokens: create, list, revoke."),
    ("account", "accounts:accounts", "Accounts: list, show, set a quota, delete."),
    ("db", "upkeep:database", "The database's schema."),
    ("stats", "upkeep:stats", "Count what is stored."),
    ("gc", "upkeep:gc", "Remove what no link needs."),
    ("fsck", "upkeep:fsck", "Compare the database with the stored files."),
    ("backup", "moving:backup", "Copy the database and all files into a directory."),
    ("restore", "moving:restore_backup", "Bring back what a backup holds."),
    ("move-database", "moving:move_database", "Copy the database to another one."),
    ("move-storage", "moving:move_storage", "Copy the files to another store."),
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
    try:
        app(sys.argv[1:])
    except OSError as error:
        if error.filename is None:
            raise
        _end(f"{error.filename}: {error.strerror}")
    except (Complaint, GalleryError) as error:
        fields = error.fields if isinstance(error, GalleryError) else {}
        details = ", ".join(f"{name} {what}" for name, what in fields.items())
        _end(f"{error} ({details})" if details else str(error))


def _end(text: str) -> NoReturn:
    err.print(text, style="red", highlight=False, markup=False, soft_wrap=True)
    sys.exit(1)
