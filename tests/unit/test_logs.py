"""Log lines of processes that share one pipe."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

# These tests are the same on every back end.
pytestmark = pytest.mark.same_everywhere

WRITERS, LINES = 3, 150
PROGRAM = f"""
import os
import structlog
from media_gallery import logs
from media_gallery.settings import Settings

logs.set_up(Settings(log_format="json"))
log = structlog.get_logger()

def deep(left):
    return 1 / 0 if not left else deep(left - 1) + len("ä" * left)

children = [os.fork() for _ in range({WRITERS - 1})]
for number in range({LINES}):
    log.info("short", number=number)
    log.info("x" * 9000, number=number, who=["ä" * 9000])
    try:
        deep(60 + number % 2)
    except ZeroDivisionError:
        log.exception("unforeseen", number=number)
if all(children):
    for child in children:
        os.wait()
"""


def test_lines_of_several_processes_never_merge() -> None:
    """Also lines that are too long for one write to a pipe. A traceback keeps its end, which tells most."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], stderr=subprocess.PIPE, check=True)
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert len(lines) >= 3 * WRITERS * LINES
    assert {line["event"].rstrip(" x…") for line in lines} == {"short", "", "unforeseen"}
    assert all(line["exception"].endswith("division by zero") for line in lines if "exception" in line)


def test_a_log_that_cannot_be_written_stops_nobody() -> None:
    with Path("/dev/full").open("w") as full:
        subprocess.run([sys.executable, "-c", PROGRAM], stderr=full, check=True)
