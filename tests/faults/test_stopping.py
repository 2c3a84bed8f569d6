"""The service is told to stop, or is killed."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable

from tests.faults.raw import END, Raw, part
from tests.service import MIB, Service


def test_a_running_upload_finishes_before_the_service_stops(start_service: Callable[..., Service]) -> None:
    service = start_service()
    user = service.user()
    body = part("file", os.urandom(MIB), "film.bin") + END
    raw = Raw(user)
    raw.head(len(body))
    raw.send(body[: MIB // 2])
    time.sleep(0.3)
    stopper = threading.Thread(target=service.stop)
    stopper.start()
    time.sleep(0.7)
    raw.send(body[MIB // 2 :])
    status, file = raw.answer()
    assert status == 201
    stopper.join()
    assert service.process and service.process.returncode == 0
    service.start()
    assert len(user.http.get(file["file"]).content) == MIB


def test_an_upload_that_does_not_end_is_cut_when_the_time_is_over(start_service: Callable[..., Service]) -> None:
    service = start_service(STOP_TIMEOUT="1 s", IDLE_TIMEOUT="60 s")
    raw = Raw(service.user())
    raw.head(10 * MIB)
    raw.send(part("file", b"x" * MIB, "film.bin"))
    time.sleep(0.3)
    begun = time.monotonic()
    service.stop()
    assert time.monotonic() - begun < 10


def test_what_was_acknowledged_survives_a_kill(start_service: Callable[..., Service]) -> None:
    service = start_service()
    user = service.user()
    kept = [(user.upload(data), data) for data in (os.urandom(100 + n * 10_000) for n in range(20))]
    gone = [file for file, _ in kept[::2]]
    for file in gone:
        assert user.delete("files/", id=file["id"]).status_code == 204
    assert service.process
    os.killpg(service.process.pid, signal.SIGKILL)
    service.process.wait()
    service.start()
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
    os.kill(group, signal.SIGKILL)  # the first process alone: the others must notice
    service.process.wait()
    end = time.monotonic() + 10
    while _alive(group):
        assert time.monotonic() < end
        time.sleep(0.1)


def _alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
