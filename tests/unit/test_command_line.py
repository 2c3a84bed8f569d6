"""What the command line takes and tells, in this process."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from media_gallery import cli, settings

Typed = Callable[..., str]


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Typed:
    """Run a command in an empty directory that also stands for /etc; check its status and return what it printed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(settings, "PLACES", (tmp_path / "etc.toml", Path("gallery.toml")))

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

    return run


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
