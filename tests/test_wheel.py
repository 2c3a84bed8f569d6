"""The release: the wheel installs into an empty environment, and runs there with all files of the package."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from media_gallery.http.media import PLACEHOLDER
from tests import samples
from tests.service import Service, environment

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.same_everywhere


def tracked(*paths: str) -> list[str]:
    return subprocess.check_output(["git", "ls-files", *paths], cwd=ROOT, text=True).splitlines()


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the sdist, made from a copy of the tracked files, and with the wheel made from the sdist."""
    copy = tmp_path_factory.mktemp("source")
    for name in tracked():
        if (ROOT / name).exists():  # a tracked file may just have been removed
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, copy / name)
    subprocess.run([sys.executable, "-m", "build", "--no-isolation"], cwd=copy, check=True, stdout=subprocess.DEVNULL)
    return copy / "dist"


@pytest.fixture(scope="module")
def programs(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of a new environment with only the wheel in it. Its dependencies come from our environment."""
    place = tmp_path_factory.mktemp("installed")
    venv.create(place, symlinks=True)
    [wheel] = built.glob("*.whl")
    install = ["install", "-q", "--no-index", "--no-deps", str(wheel)]
    subprocess.run([sys.executable, "-m", "pip", "--python", str(place / "bin/python"), *install], check=True)
    [packages] = place.glob("lib/python*/site-packages")
    # Python searches a folder that a .pth file names, but ignores .pth files in it: the checkout is not found.
    (packages / "borrowed.pth").write_text(sysconfig.get_path("purelib"))
    return place / "bin"


@pytest.fixture(scope="module")
def installed(programs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    program = programs / "media-gallery"
    service = Service(tmp_path_factory.mktemp("gallery"), [str(program), "serve"])
    subprocess.run([program, "db", "upgrade"], env=environment(**service.settings), check=True)
    yield service.start()
    service.stop()


def test_every_file_of_the_package_is_released(built: Path) -> None:
    [wheel], [source] = built.glob("*.whl"), built.glob("*.tar.gz")
    files = {name for name in tracked("media_gallery") if (ROOT / name).exists()}
    assert {"media_gallery/py.typed", "media_gallery/http/placeholder.webp"} < files
    with zipfile.ZipFile(wheel) as archive:
        assert {name for name in archive.namelist() if ".dist-info/" not in name} == files
    with tarfile.open(source) as archive:
        assert files <= {name.partition("/")[2] for name in archive.getnames()}


def test_it_is_the_wheel_that_runs(programs: Path, tmp_path: Path) -> None:
    code = "import media_gallery, sys; print(media_gallery.__file__, *sys.path, sep='\\n')"
    output = subprocess.check_output([programs / "python", "-c", code], cwd=tmp_path, env=environment(), text=True)
    place, *searched = output.splitlines()
    assert Path(place).is_relative_to(programs.parent) and str(ROOT) not in searched


def test_the_wheel_serves(installed: Service) -> None:
    user = installed.user()
    avatar = user.avatar(samples.picture("png", 64, 64))
    [*_, largest] = avatar["thumbnails"]
    assert user.http.get(largest["url"]).headers["Content-Type"] == "image/png"
    broken = user.upload(b"no picture", "broken.png")
    assert user.http.get(broken["file"]).content == b"no picture"
    assert user.http.get(broken["thumbnail"]["url"]).content == PLACEHOLDER
    for page in (
        "/",
        "/web/now/texts/ru.json",
        "/web/now/desk/desk.js",
        "/api/docs",
        "/api/docs/reference.js",
        "/api/docs/reference.css",
        "/api/v1/openapi.json",
        "/metrics",
        "/readyz",
    ):
        assert installed.http.get(page).is_success, page
