"""The documentation names everything that exists, and the commands that it shows work."""

from __future__ import annotations

import inspect
import re
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from docs.generate import FILE, PAGE, SIZES, UPLOADS_PAGE, in_units, settings_file, settings_page, uploads_page
from media_gallery import errors, metrics
from media_gallery.http import API, DOCUMENT, DOCUMENT_PAGE, PLAIN
from media_gallery.settings import load_settings
from tests.service import Service

ROOT = Path(__file__).parents[1]
API_PAGE, OPERATING, MAP = (ROOT / "docs" / name for name in ("api.md", "operating.md", "architecture.md"))


def test_the_table_of_settings_is_up_to_date() -> None:
    assert PAGE.read_text() == settings_page(), "run `make docs`"


def test_defaults_are_told_as_they_are() -> None:
    """An operator may type each default as the table shows it."""
    told = dict(re.findall(r"^\| `MEDIA_GALLERY_(\w+)` \| `([^`]*)` \|", PAGE.read_text(), re.MULTILINE))
    typed = load_settings(**{name.lower(): value for name, value in told.items()})
    assert typed == load_settings() and "1 GiB" in told.values()
    assert in_units(100 * 1024**2, SIZES) == "100 MiB"
    assert in_units(1536 * 1024**2, SIZES) == "1536 MiB"
    assert in_units(1000, SIZES) == "1000"


def test_the_settings_file_is_up_to_date(tmp_path: Path) -> None:
    assert FILE.read_text() == settings_file(), "run `make docs`"
    filled = tmp_path / "media-gallery.toml"
    filled.write_text(re.sub(r"^#(\w+ = )", r"\1", FILE.read_text(), flags=re.MULTILINE))
    settings = load_settings(filled)
    assert settings.model_dump() == load_settings(data_dir="/var/lib/media-gallery").model_dump()
    assert set(tomllib.loads(filled.read_text())) == set(type(settings).model_fields)


def test_the_table_of_hostile_uploads_is_up_to_date() -> None:
    assert UPLOADS_PAGE.read_text() == uploads_page(), "run `make docs`"


def test_every_call_has_its_section() -> None:
    sections = set(re.findall(r"^### `(\w+) (\S+)`$", API_PAGE.read_text(), re.MULTILINE))
    assert sections == {(operation.method, f"{operation.path}/") for operation in API}
    for path in (*PLAIN, DOCUMENT, DOCUMENT_PAGE):
        assert path in API_PAGE.read_text() + OPERATING.read_text() or path.startswith("/media/")


def test_every_error_is_explained() -> None:
    rows = set(re.findall(r"^\| (\d+) \| (\w+) \|", API_PAGE.read_text(), re.MULTILINE))
    kinds = [kind for kind in vars(errors).values() if inspect.isclass(kind) and issubclass(kind, errors.GalleryError)]
    assert rows == {(str(kind.status), kind.__name__) for kind in kinds}


def test_every_metric_is_explained() -> None:
    named = set(re.findall(r"^\| `(gallery_\w+)", OPERATING.read_text(), re.MULTILINE))
    kept = metrics.registry.collect()
    assert named == {f"{one.name}_total" if one.type == "counter" else one.name for one in kept}


def test_the_map_names_files_that_exist() -> None:
    """Every file that its tables name exists, and every file and folder of the package has its row."""
    package, rows = ROOT / "media_gallery", re.findall(r"^\| .+ \|$", MAP.read_text(), re.MULTILINE)
    named = set()
    for row in rows:
        files = re.findall(r"`([\w./-]*(?:/|\.\w+))`", row)
        folder = package / files[0].rpartition("/")[0] if files else package  # the next ones are in it or beside it
        for file in files:
            found = [place / file for place in (folder, package, ROOT) if (place / file).exists()]
            assert found, file
            named.add(found[0])
    there = {path for folder in (package, package / "http") for path in folder.glob("*.py")}
    there |= {path.parent for path in package.glob("*/__init__.py")}
    covered = named | {path.parent for path in named}
    assert {path for path in there - covered if path.name != "__init__.py"} == set()


@pytest.mark.parametrize(
    "page", sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("**/*.md") if ".venv" not in str(path))
)
def test_links_between_pages_lead_somewhere(page: str) -> None:
    """So do the paths that a page names."""
    text = (ROOT / page).read_text()
    for target in re.findall(r"\]\((?!http)([^)#]+)", text):
        assert (ROOT / page).parent.joinpath(target).exists(), target
    for path in re.findall(r"`((?:media_gallery|tests|docs|contrib|bench)/[\w./-]*)", text):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("page", ["README.md", "README.ru.md"])
def test_the_tour_works_when_it_is_pasted(start_service: Callable[..., Service], tmp_path: Path, page: str) -> None:
    text = (ROOT / page).read_text().split("\n## ")[2]
    service = start_service()
    request, *rest = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    run(request, service, tmp_path)
    [code] = [line["code"] for line in service.log_lines() if "code" in line]
    script = request.splitlines()[0] + "\n" + "".join(rest).replace("CODE=123456", f"CODE={code}")
    output = run(script, service, tmp_path)
    assert '"max_file_size":' in output and output.count('"file":"') == 4, output  # upload, slot, two in the list
    assert "the same bytes" in output or "те же байты" in output
    assert '"title":"By the sea"' in output or '"title":"У моря"' in output
    assert output.count("204") >= 2 and output.rstrip().endswith('"used":0}'), output


@pytest.mark.parametrize("page", ["README.md", "README.ru.md"])
def test_the_commands_are_as_they_are_told(service: Service, page: str, tmp_path: Path) -> None:
    lines = re.findall(r"^    \.venv/bin/media-gallery ([^#\n]+)", (ROOT / page).read_text(), re.MULTILINE)
    assert len(lines) >= 8
    service.user(jid="anna@example.org")
    for line in lines:
        service.cli(*line.replace("/backup/gallery", str(tmp_path / "backup")).split())


@pytest.mark.parametrize("page", ["README.md", "README.ru.md"])
def test_the_settings_of_the_set_up_are_settings(page: str, tmp_path: Path) -> None:
    examples = re.findall(r"```toml\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    for number, example in enumerate(examples):
        file = tmp_path / f"{number}.toml"
        file.write_text(example)
        assert number or load_settings(file).warnings() == []
    assert len(examples) >= 2


def run(script: str, service: Service, directory: Path) -> str:
    script = script.replace("http://127.0.0.1:8080", service.url)
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", script], cwd=directory, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout
