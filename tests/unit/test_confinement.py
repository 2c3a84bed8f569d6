"""What a confined process cannot do. Each forbidden thing is tried, also with only one part of the confinement."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import structlog
from structlog.testing import capture_logs

from media_gallery import thumbnails
from media_gallery.confinement import PARTS
from media_gallery.thumbnails import Thumbnailer
from tests import samples
from tests.unit.decoding import LIMITS, picture

PROGRAM = """
import ctypes, json, mmap, os, resource, socket, sys, threading
from media_gallery import confinement

given = json.loads(sys.argv[1])
report = socket.socket(fileno=given["report"])
GROWSDOWN = 0x0100
libc, parent = ctypes.CDLL(None), os.getppid()
kept = os.open(given["kept"], os.O_RDWR)
outside = {"_leave_network": "network", "_close_files": "files", "_forbid_calls": "calls"}
for function, part in outside.items():
    if part not in given["parts"]:
        setattr(confinement, function, lambda *_: False)

def write():
    with open(given["target"], "wb", buffering=0) as file:
        file.write(b"y")

def connect(family, address):
    with socket.socket(family) as client:
        client.settimeout(5)
        client.connect(address)

def fork():
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)

def start():
    status = os.spawnv(os.P_WAIT, "/bin/true", ["true"])
    if status:
        raise OSError(status, "not started")

def descriptors():
    held = []
    try:
        for _ in range(200):
            held.append(os.dup(report.fileno()))
    finally:
        for number in held:
            os.close(number)

def thread():
    worker = threading.Thread(target=bytes)
    worker.start()
    worker.join()

def touched(flags):
    size = 400 << 20
    with mmap.mmap(-1, size, flags=mmap.MAP_ANONYMOUS | flags) as memory:
        for place in range(0, size, 1 << 20):
            memory[place] = 1

attempts = {
    "compute": lambda: bytearray(50 << 20),
    "thread": thread,
    "read": lambda: open(given["target"]).read(),
    "list": lambda: os.listdir("/"),
    "write": write,
    "overwrite": lambda: os.pwrite(kept, b"y", 0),
    "truncate": lambda: os.ftruncate(kept, 0),
    "remove": lambda: os.unlink(given["removed"]),
    "connect": lambda: connect(socket.AF_INET, ("127.0.0.1", given["port"])),
    "local": lambda: connect(socket.AF_UNIX, given["name"]),
    "fork": fork,
    "start": start,
    "signal": lambda: os.kill(parent, 0),
    "grow": lambda: bytearray(400 << 20),
    "share": lambda: touched(mmap.MAP_SHARED),
    "stack": lambda: touched(mmap.MAP_PRIVATE | GROWSDOWN),
    "bind": lambda: os.sched_setaffinity(parent, os.sched_getaffinity(parent)),
    "slow": lambda: os.setpriority(os.PRIO_PROCESS, parent, os.getpriority(os.PRIO_PROCESS, parent)),
    "descriptors": descriptors,
    "loosen": lambda: resource.setrlimit(resource.RLIMIT_DATA, (resource.RLIM_INFINITY, resource.RLIM_INFINITY)),
}
if given["user"]:
    os.setgroups([])
    os.setgid(given["user"])
    os.setuid(given["user"])
resource.setrlimit(resource.RLIMIT_DATA, (1 << 30, resource.RLIM_INFINITY))
told = {"enforced": [] if given["free"] else confinement.confine(300 << 20)}
told["done"] = []
for name, attempt in attempts.items():
    try:
        attempt()
    except (OSError, MemoryError, ValueError):
        continue
    told["done"].append(name)
report.send(json.dumps(told).encode())
"""
HARMLESS = {"compute", "thread"}
ANYHOW = {"overwrite", "grow", "descriptors", "loosen"}
"""What limits forbid on every machine. With them, no file can be written, either."""
EVERYTHING = ANYHOW | {"read", "list", "write", "truncate", "remove", "connect", "local", "fork", "start", "signal"}
EVERYTHING |= {"share", "stack", "bind", "slow"}


def tried(directory: Path, parts: tuple[str, ...], free: bool = False, user: int = 0) -> tuple[list[str], set[str]]:
    """Which parts were enforced, and what the process could still do. If `free`, it is not confined at all."""
    files = {name: directory / name for name in ("target", "kept", "removed")}
    for path in (directory, *files.values()):
        if path != directory:
            path.write_text("x")
        path.chmod(0o777)
    name = f"\0confinement-{uuid4().hex}"
    ours, theirs = socket.socketpair()
    with ours, theirs, socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as local:
        local.bind(name)
        local.listen()
        given: dict[str, Any] = {key: str(path) for key, path in files.items()}
        given |= {"report": theirs.fileno(), "parts": parts, "free": free, "user": user, "name": name}
        given |= {"port": server.getsockname()[1]}
        program = [sys.executable, "-I", "-c", PROGRAM, json.dumps(given)]
        done = subprocess.run(program, pass_fds=[theirs.fileno()], capture_output=True, text=True, timeout=60)
        theirs.close()
        answer = ours.recv(65536)
    assert answer, done.stderr
    told = json.loads(answer)
    if not free:
        assert files["kept"].read_text() == "x" or "truncate" in told["done"]
        assert "y" not in files["kept"].read_text() + files["target"].read_text()
    return told["enforced"], set(told["done"])


def enforced_or_skip(enforced: list[str], *parts: str) -> None:
    if missing := set(parts) - set(enforced):
        pytest.skip(f"this machine does not enforce: {', '.join(sorted(missing))}")


def test_without_confinement_all_of_it_is_possible(tmp_path: Path) -> None:
    """If not, the tests below would prove nothing."""
    _, done = tried(tmp_path, (), free=True)
    assert done == EVERYTHING | HARMLESS


def test_limits_alone(tmp_path: Path) -> None:
    _, done = tried(tmp_path, ())
    assert done & ANYHOW == set() and done >= HARMLESS


def test_network_alone(tmp_path: Path) -> None:
    enforced, done = tried(tmp_path, ("network",))
    enforced_or_skip(enforced, "network")
    assert done & (ANYHOW | {"connect", "local"}) == set() and done >= HARMLESS


def test_files_alone(tmp_path: Path) -> None:
    enforced, done = tried(tmp_path, ("files",))
    enforced_or_skip(enforced, "files")
    assert done & (ANYHOW | {"read", "list", "write", "remove", "start"}) == set() and done >= HARMLESS


def test_calls_alone(tmp_path: Path) -> None:
    enforced, done = tried(tmp_path, ("calls",))
    enforced_or_skip(enforced, "calls")
    assert done == HARMLESS


@pytest.mark.parametrize("user", [0, 65534])
def test_all_of_it(tmp_path: Path, user: int) -> None:
    """The service may run as root, or as a user without any rights."""
    if user and os.getuid() != 0:
        pytest.skip("only root can become somebody else")
    enforced, done = tried(tmp_path, PARTS, user=user)
    enforced_or_skip(enforced, "files", "calls")
    assert done == HARMLESS


def test_no_thread_runs_when_a_decoder_is_confined() -> None:
    """Landlock applies to the thread that asks for it, and to threads that this one starts."""
    program = "import os; from media_gallery import decoder; decoder.prepare(); print(os.listdir('/proc/self/task'))"
    done = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout.count("'") == 2, (done.stdout, done.stderr)


async def test_a_decoder_is_confined_by_all_that_there_is(tmp_path: Path) -> None:
    enforced, _ = tried(tmp_path, PARTS)
    decoder = Thumbnailer(1, **LIMITS)
    await picture(decoder, samples.picture())
    home = Path(f"/proc/{decoder._idle[0].process.pid}")
    filtered = "Seccomp:\t2" in (home / "status").read_text()
    apart = (home / "ns/net").readlink() != (home.parent / "self/ns/net").readlink()
    await decoder.close()
    assert (apart, filtered) == ("network" in enforced, "calls" in enforced)


async def test_an_operator_is_told_what_this_machine_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thumbnails, "PARTS", (*PARTS, "gravity"))
    monkeypatch.setattr(thumbnails, "log", structlog.get_logger())
    decoder = Thumbnailer(2, **LIMITS)
    with capture_logs() as lines:
        await picture(decoder, samples.picture())
    await decoder.close()
    [line] = lines
    assert "gravity" in line["missing"] and line["log_level"] == "warning"
