"""The service is told to stop, or is killed."""

from __future__ import annotations

import ctypes
import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests.faults.raw import END, Raw, part
from tests.ports import listens
from tests.service import MIB, PATIENCE, Service
from tests.waiting import wait_until


def begun(service: Service, size: int) -> tuple[Raw, bytes]:
    """An upload of which the service has the first half; and the rest of its body."""
    body = part("file", os.urandom(size), "film.bin") + END
    raw = Raw(service.user())
    raw.head(len(body))
    raw.send(body[: size // 2])
    service.wait_until(lambda: service.stored("staging"))
    return raw, body[size // 2 :]


def test_a_running_upload_finishes_before_the_service_stops(start_service: Callable[..., Service]) -> None:
    service = start_service(STOP_TIMEOUT="10 min", IDLE_TIMEOUT="10 min")
    raw, rest = begun(service, 4 * MIB)
    stopper = threading.Thread(target=service.stop)
    stopper.start()
    wait_until(lambda: not listens(service.port))
    raw.send(rest)
    status, file = raw.answer()
    assert status == 201
    stopper.join()
    assert service.process and service.process.returncode == 0
    service.start()
    assert len(service.http.get(file["file"]).content) == 4 * MIB


def test_an_upload_that_does_not_end_is_cut_when_the_time_is_over(start_service: Callable[..., Service]) -> None:
    service = start_service(STOP_TIMEOUT="1 s", IDLE_TIMEOUT="10 min")
    raw, _ = begun(service, 4 * MIB)
    service.stop()
    with pytest.raises(OSError):
        raw.answer()


def test_a_stop_signal_ends_the_service_whichever_thread_gets_it(start_service: Callable[..., Service]) -> None:
    """The system gives it to the first thread, but to any of them if it came while the process was stopped."""
    service = start_service()
    assert service.process
    pid = service.process.pid
    other = next(int(task.name) for task in Path(f"/proc/{pid}/task").iterdir() if int(task.name) != pid)
    assert ctypes.CDLL(None).tgkill(pid, other, signal.SIGTERM) == 0
    assert service.process.wait(PATIENCE) == 0


def test_what_was_acknowledged_survives_a_kill(start_service: Callable[..., Service]) -> None:
    service = start_service()
    user = service.user()
    kept = [(user.upload(data), data) for data in (os.urandom(100 + n * 10_000) for n in range(20))]
    gone = [file for file, _ in kept[::2]]
    for file in gone:
        assert user.delete("files/", id=file["id"]).status_code == 204
    assert service.process
    left = temporary(service.process.pid)
    os.killpg(service.process.pid, signal.SIGKILL)
    service.process.wait()
    with suppress(FileNotFoundError):  # another service of this machine may have removed it
        os.utime(left, (0, 0))
    service.start()
    assert not left.exists()  # the next service removes it
    for file, data in kept[1::2]:
        assert user.http.get(file["file"]).content == data
    for file in gone:
        assert user.http.get(file["file"]).status_code == 404
    assert user.used() == sum(file["size"] for file, _ in kept[1::2])
    assert "0 wrong" in service.cli("fsck")


def test_no_process_outlives_the_service(start_service: Callable[..., Service]) -> None:
    service = start_service(WORKERS="2")
    assert service.process
    group = service.process.pid
    left = temporary(group)
    os.kill(group, signal.SIGKILL)  # only the first process: the others must notice
    service.process.wait()
    wait_until(lambda: not _alive(group))
    assert not left.exists()


def temporary(pid: int) -> Path:
    """The directory of a service in the temporary folder."""
    opened = set[Path]()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            opened.add(descriptor.readlink())
    [path] = [path for path in opened if path.name.startswith("media-gallery.")]
    return path


def _alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
