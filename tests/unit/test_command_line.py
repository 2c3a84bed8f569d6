"""What the command line takes and tells, in this process."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cyclopts import App

from media_gallery import cli
from media_gallery.cli import common
from media_gallery.serve import _close_to_others
from media_gallery.settings import Settings

Typed = Callable[..., str]


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Iterator[Typed]:
    """Run a command in an empty directory that also stands for /etc; check its status and return what it printed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(common, "PLACES", (tmp_path / "etc.toml", Path("gallery.toml")))

    def run(*words: str, code: int = 0, **variables: str) -> str:
        with monkeypatch.context() as patch:
            for name, value in variables.items():
                patch.setenv(f"MEDIA_GALLERY_{name}", value)
            patch.setattr(sys, "argv", ["media-gallery", *words])
            with pytest.raises(SystemExit) as ended:
                cli.main()
        printed = capsys.readouterr()
        assert (ended.value.code or 0) == code, printed
        return printed.out + printed.err

    before = os.umask(0o022)
    yield run
    os.umask(before)


def test_a_settings_file_is_found(typed: Typed, tmp_path: Path) -> None:
    own, system, named = (tmp_path / name for name in ("gallery.toml", "etc.toml", "named.toml"))
    for number, file in enumerate((own, system, named)):
        file.write_text(f'data_dir = "from-{file.stem}"\nworkers = {number}\n')
        assert f"from-{file.stem}" in typed("config", *(["--config", str(file)] if file == named else []))
    shown = typed("config", CONFIG=str(named), WORKERS="7")
    assert "from-named" in shown
    origins = {line.split()[0]: line.split()[-1] for line in shown.splitlines()}
    assert origins["MEDIA_GALLERY_DATA_DIR"] == str(named)
    assert origins["MEDIA_GALLERY_WORKERS"] == "environment"
    assert origins["MEDIA_GALLERY_LISTEN"] == "default"
    assert "from-" not in typed("config", CONFIG="/dev/null")


@pytest.mark.parametrize(
    "words", [["stats"], ["gc", "--older-than", "0"], ["token", "create", "a@example.org"],
              ["move-database", "sqlite:///other"], ["move-storage", "s3://bucket"], ["backup", "copy"]],
    ids=lambda words: words[0],
)  # fmt: skip
def test_only_what_is_meant_to_makes_a_gallery(typed: Typed, tmp_path: Path, words: list[str]) -> None:
    (tmp_path / "gallery.toml").write_text('data_dir = "mistaken"\n')
    told = typed(*words, code=1)
    assert str(tmp_path / "mistaken") in told and str(tmp_path / "gallery.toml") in told and "db upgrade" in told
    assert [path.name for path in tmp_path.iterdir()] == ["gallery.toml"]


def test_a_gallery_is_found_again(typed: Typed, tmp_path: Path) -> None:
    (tmp_path / "gallery.toml").write_text('data_dir = "right"\n')
    typed("db", "upgrade")
    assert "accounts" in typed("stats")
    assert "There is no gallery here" in typed(
        "stats", code=1, DATA_DIR="wrong", DATABASE_URL="sqlite:///right/gallery.sqlite"
    )


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("MAX_FILESIZE", "3", "MEDIA_GALLERY_MAX_FILE_SIZE meant?"),
        ("DENIED_DOMANS", "evil.test", "MEDIA_GALLERY_DENIED_DOMAINS meant?"),
        ("COLOUR", "blue", "MEDIA_GALLERY_COLOUR: is not a setting\n"),
        ("ADMINS", "example.org", "'example.org' is not the JID of an account"),
        ("DENIED_JIDS", "@evil.test", "is not a valid JID"),
        ("CORS_ORIGINS", "example.org", "is not an origin"),
        ("XMPP_CA_FILE", "none.pem", "none.pem cannot be read: No such file"),
        ("XMPP_CA_FILE", "gallery.toml", "gallery.toml holds no certificates in PEM"),
        ("PUBLIC_URL", "https://[", "must be an address such as https://"),
        ("DATABASE_URL", "banana", "must start with sqlite:/// or postgresql://"),
    ],
)
def test_a_mistaken_setting_is_told(typed: Typed, tmp_path: Path, name: str, value: str, told: str) -> None:
    (tmp_path / "gallery.toml").touch()
    assert told in typed("config", code=1, **{name: value})
    assert told.strip() in json.loads(typed("config", "--json", code=1, **{name: value}))["error"]


def test_mistakes_in_a_settings_file_are_told(typed: Typed, tmp_path: Path) -> None:
    file = tmp_path / "gallery.toml"
    file.write_text("max_filesize = 3\n")
    assert "MEDIA_GALLERY_MAX_FILE_SIZE meant?" in typed("config", code=1)
    file.write_text("max_file_size: 3\n")
    assert f"{file}: " in typed("config", code=1)


def test_words_may_have_capital_letters(typed: Typed) -> None:
    typed("config", LOG_LEVEL="INFO", LOG_FORMAT="JSON", XMPP_TLS="Required", S3_DELIVERY="Through")


def test_errors_are_json_for_programs(typed: Typed) -> None:
    typed("db", "upgrade")
    for words, status in (
        (["account", "show", "nobody@example.org"], 1),
        (["token", "create", "notajid"], 1),
        (["account", "list", "--order-by", "banana"], 1),
        (["move-storage", "banana"], 1),
        (["restore", "nothing"], 1),
        (["gc", "--older-than", "soon"], 1),
        (["gc", "--bananas"], 2),
        (["token", "create"], 2),
        (["nothing"], 2),
    ):
        assert json.loads(typed(*words, "--json", code=status))["error"]
        assert typed(*words, code=status)
    assert json.loads(typed("account", "show", "@", "--json", code=1))["fields"]["jid"]
    assert "must start with" in typed("move-database", "banana", code=1)


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({}, []),
        ({"PUBLIC_URL": "https://gallery.example.org"}, []),
        ({"PUBLIC_URL": "http://localhost:8081"}, ["PUBLIC_URL names port 8081 of this machine, LISTEN port 8080"]),
        ({"PUBLIC_URL": "http://10.0.0.1", "LISTEN": "10.0.0.1:8080"}, ["PUBLIC_URL names port 80 "]),
        ({"PUBLIC_URL": "https://gallery.example.org", "LISTEN": "[::]:443"}, ["LISTEN has no TLS"]),
        (
            {"XMPP_JID": "gallery.example.org", "XMPP_COMPONENT_SECRET": "x"},
            ["ALLOWED_DOMAINS is empty", "links work on this machine alone"],
        ),
    ],
)
def test_what_is_probably_not_meant_is_told(typed: Typed, variables: dict[str, str], told: list[str]) -> None:
    shown = typed("config", **variables)
    assert shown.count("Warning: ") == len(told) and all(text in shown for text in told)


def commands(app: App = cli.app) -> Iterator[tuple[str, ...]]:
    """The words of every command."""
    names = [name for name in app if not name.startswith("-")]
    if not names:
        yield ()
    for name in names:
        for words in commands(app[name]):
            yield (name, *words)


def test_every_option_has_its_help(typed: Typed) -> None:
    found = list(commands())
    assert len(found) >= 17
    for words in found:
        # Further lines of a long text have no name before them.
        rows = re.findall(r"^│ (?:[ *]  )?([\w-].*?)  +(.*)", typed(*words, "--help"), re.MULTILINE)
        assert rows
        for name, told in rows:
            assert re.match(r"[\w`]", told), (words, name)


def test_the_log_of_a_database_may_go_while_the_service_starts(tmp_path: Path) -> None:
    """The last process that has a database open removes its log, as a command does at its end."""
    database = tmp_path / "gallery.sqlite"
    database.touch(0o644)
    (tmp_path / "gallery.sqlite-wal").symlink_to("gone")  # listed, but not found
    _close_to_others(Settings(data_dir=tmp_path))
    assert database.stat().st_mode & 0o777 == 0o600
