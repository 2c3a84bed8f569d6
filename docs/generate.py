"""Writes `settings.md`, `hostile-uploads.md` and `contrib/media-gallery.toml` from the code: `make docs`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from textwrap import wrap
from typing import Any

from pydantic import BeforeValidator, SecretStr
from pydantic.fields import FieldInfo

from media_gallery.quantities import parse_bytes, parse_seconds
from media_gallery.settings import Settings
from tests.attack.corpus import CASES

PAGE = Path(__file__).with_name("settings.md")
UPLOADS_PAGE = PAGE.with_name("hostile-uploads.md")
FILE = PAGE.parents[1] / "contrib" / "media-gallery.toml"
_HEAD = """# Settings

<!-- Made by `make docs` from media_gallery/settings.py; change it there. -->

Every setting is an environment variable, or a key of the settings file: there without the prefix and in small letters
(`max_file_size = "200 MiB"`). The environment wins over the file. `media-gallery config` prints the values that are in
force and where each comes from, and tells what is wrong with them.

The settings file (TOML) is the one that `--config` names, else `MEDIA_GALLERY_CONFIG`, else `/etc/media-gallery.toml`,
else `gallery.toml` in the current directory; at most one is read. `MEDIA_GALLERY_CONFIG=/dev/null` means none. Commands
read the same settings as the service only if they are in a file that both find. A relative path is taken from the
current directory, so name `data_dir` in full. Only `serve`, `db upgrade` and `restore` make a gallery where none is;
every other command says where it has looked.

Sizes are bytes or such as `100 MiB`, `2 GB`; times are seconds or such as `10 min`, `12 h`, `30 days`; lists are
separated by commas, in the file they are lists; rates are such as `10/minute` or `5/10 minute; 50/day`, or `none`.

"""
_GROUPS = {
    "The service": "data_dir",
    "XMPP": "xmpp_jid",
    "Rates": "rates_url",
    "Processes and limits": "workers",
}
"""Headings, each with the first setting below it."""
SIZES = {"GiB": 1024**3, "MiB": 1024**2, "KiB": 1024}
_TIMES = {"days": 86400, "h": 3600, "min": 60, "s": 1}


def settings_page() -> str:
    """The whole page, in Markdown."""
    firsts = {first: heading for heading, first in _GROUPS.items()}
    lines = [_HEAD.rstrip("\n"), ""]
    for name, field in Settings.model_fields.items():
        if name in firsts:
            lines += [f"\n## {firsts[name]}\n", "| variable | default | |", "|---|---|---|"]
        lines.append(f"| `MEDIA_GALLERY_{name.upper()}` | {_default(field)} | {field.description} |")
    return "\n".join(lines).replace("\n\n\n", "\n\n") + "\n"


_FILE_HEAD = """\
# /etc/media-gallery.toml: the settings of the media gallery, each with its default. It holds
# secrets, so only root may write it and only the service may read it. `media-gallery config` shows
# what is in force, `media-gallery doctor` tries it. Texts name other settings in capitals.

data_dir = "/var/lib/media-gallery"
"""


def settings_file() -> str:
    """A settings file for an operator to fill in: every setting in a comment, with its default."""
    firsts, lines = {first: heading for heading, first in _GROUPS.items()}, [_FILE_HEAD.rstrip("\n")]
    for name, field in Settings.model_fields.items():
        if name in firsts:
            lines.append(f"\n# --- {firsts[name]} ---")
        if name != "data_dir":
            lines += ["", *wrap(field.description or "", 100, initial_indent="# ", subsequent_indent="# ")]
            lines.append(f"#{name} = {_toml(field)}")
    return "\n".join(lines) + "\n"


def _toml(field: FieldInfo) -> str:
    value = field.default
    if isinstance(value, (bool, int, list)) and not _has_unit(field):
        return json.dumps(value)
    return json.dumps(_default(field).strip("`"))


def _has_unit(field: FieldInfo) -> bool:
    return _is(field, parse_bytes) or _is(field, parse_seconds)


def _is(field: FieldInfo, parse: Callable[[Any], Any]) -> bool:
    return any(isinstance(note, BeforeValidator) and note.func is parse for note in field.metadata)


def in_units(value: int, units: dict[str, int]) -> str:
    """In the largest unit of which it is a whole number."""
    return next((f"{value // size} {unit}" for unit, size in units.items() if value and value % size == 0), str(value))


def _default(field: FieldInfo) -> str:
    value = field.default
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if _is(field, parse_bytes):
        value = in_units(value, SIZES)
    elif _is(field, parse_seconds):
        value = in_units(value, _TIMES)
    elif isinstance(value, list):
        value = ", ".join(value)
    return "" if value in ("", None) else f"`{value}`"


_UPLOADS_HEAD = """# Hostile uploads

<!-- Made by `make docs` from tests/attack/corpus.py; change it there. -->

How the service treats files that are not what they seem to be. An upload is never refused for its content: an encrypted
file (XEP-0454) looks like random bytes, too. All of these get `201`, keep every byte, and are served with `nosniff`
and `Content-Security-Policy: default-src 'none'; sandbox; frame-ancestors 'none'`. If no thumbnail can be made, its
address answers with a placeholder. `tests/attack` uploads each of them, as a file and as an avatar, and checks that the
decoder still works afterwards.

| file | sent as | served as | | thumbnail | as an avatar |
|---|---|---|---|---|---|"""


def uploads_page() -> str:
    """The table of hostile files, in Markdown."""
    lines = [_UPLOADS_HEAD]
    for case in CASES:
        sent = f"`{case.name}`, {f'`{case.said}`' if case.said else 'no type'}"
        avatar = ", ".join(f"`{status}`" for status in case.avatar)
        thumbnail = "yes" if case.thumbnail else "no"
        lines.append(f"| {case.what} | {sent} | `{case.stored}` | {case.shown} | {thumbnail} | {avatar} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(settings_page())
    UPLOADS_PAGE.write_text(uploads_page())
    FILE.write_text(settings_file())
