"""The systemd unit of contrib/ as systemd reads it."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from media_gallery.confinement import PARTS
from media_gallery.storage.tree import BOOT_ID
from tests import samples
from tests.service import PROGRAM, Service
from tests.under_unit import UNIT, allowed_calls, values

UNDER_UNIT = [sys.executable, "-m", "tests.under_unit"]
CONFINE = """
import socket
from media_gallery.confinement import confine
told = socket.socket(fileno=0)
told.send(" ".join(confine(1 << 30)).encode())
"""


def enforced(*prefix: str) -> list[str]:
    """The parts of the confinement that are enforced on a process."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        subprocess.run([*prefix, sys.executable, "-c", CONFINE], stdin=theirs.fileno(), check=True)
        return ours.recv(1000).decode().split()


def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    program = "/opt/media-gallery/.venv/bin/media-gallery"
    text = UNIT.read_text()
    assert f"ExecStart={program} serve" in text
    unit = tmp_path / UNIT.name
    unit.write_text(text.replace(program, sys.executable))
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True)
    complaints = [line for line in done.stderr.splitlines() if UNIT.name in line]
    assert (done.returncode, complaints) == (0, [])


def test_the_unit_shows_the_boot_id() -> None:
    assert BOOT_ID.is_relative_to("/proc") and not BOOT_ID.is_relative_to("/proc/self")
    assert values("ProcSubset") == []


def test_the_unit_keeps_the_files_from_others_and_waits_for_its_database() -> None:
    assert values("StateDirectoryMode") + values("UMask") == ["0700", "0077"]
    assert values("Restart") + values("StartLimitIntervalSec") == ["on-failure", "0"]
    line = UNIT.with_suffix(".sysusers").read_text().splitlines()[-1]
    assert values("User") == [line.split()[1]] and values("WorkingDirectory") == [line.split()[-1]]


def test_the_unit_is_confined() -> None:
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", UNIT], capture_output=True, text=True
    )
    level = re.search(r"Overall exposure level for .*: ([\d.]+)", done.stdout)
    assert level, done.stdout + done.stderr
    assert float(level[1]) <= 2.5


def test_the_unit_allows_every_call_that_decoders_confine_themselves_with() -> None:
    landlock = {"landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self"}
    assert {"seccomp", *landlock, "unshare", "capset", "prctl", "setrlimit", "prlimit64"} <= allowed_calls()


def test_under_the_unit_decoders_are_confined_as_without_it() -> None:
    assert enforced(*UNDER_UNIT) == enforced()


def test_under_the_unit_the_service_serves(start_service: Callable[..., Service]) -> None:
    service = start_service(command=[*UNDER_UNIT, PROGRAM, "serve"])
    user = service.user()
    picture = user.upload(samples.picture("png", 600, 400), "picture.png", "image/png")
    assert service.http.get(picture["thumbnail"]["url"]).headers["Content-Type"] == "image/webp"
    assert "ETag" in service.http.get(picture["thumbnail"]["url"]).headers  # so it is a thumbnail and not a placeholder
    film = user.upload(samples.film(), "film.mp4", "video/mp4")
    assert service.http.get(film["file"]).content == samples.film()
    assert user.delete("files/", id=film["id"]).status_code == 204
    assert ("not confined wholly" in service.log()) == (enforced() != list(PARTS))
    assert service.stop() == 0
