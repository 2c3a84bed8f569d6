"""Our service as it is measured, and the memory of a process with its children."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from tests.service import PROGRAM, RATES, SMALL, Service


def start_service(directory: Path, **more: Any) -> Service:
    """Two workers, durable as always, without limits on rates or quotas."""
    rates = {f"RATE_{name}": "none" for name in RATES}
    settings: dict[str, Any] = {
        "WORKERS": 2,
        "DEFAULT_QUOTA": "10 TB",
        "MAX_FILE_SIZE": "10 GB",
        "LOG_LEVEL": "warning",
        "SMALL_FILE_SIZE": SMALL,
        **rates,
    }
    service = Service(directory, (PROGRAM, "serve"), **settings | more)
    service.http.timeout = 120
    return service.start()


def token_of(service: Service, jid: str) -> str:
    return service.user(jid=jid).token


def family(pid: int) -> list[int]:
    """A process with all its descendants."""
    try:  # the children of each thread are listed apart
        children = " ".join(file.read_text() for file in Path(f"/proc/{pid}/task").glob("*/children"))
    except OSError:
        return []
    return [pid, *(found for child in children.split() for found in family(int(child)))]


def memory(pid: int) -> float:
    """Megabytes that a process and its descendants use (proportional set size: shared memory counts once)."""
    total = 0
    for member in family(pid):
        try:
            lines = Path(f"/proc/{member}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1000


class Peak:
    """The most memory, in MB, that a process and its descendants use while a block runs."""

    def __init__(self, pid: int) -> None:
        self.pid, self.before, self.most = pid, memory(pid), 0.0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def _watch(self) -> None:
        while not self._done.wait(0.2):
            self.most = max(self.most, memory(self.pid))

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    @property
    def growth(self) -> float:
        return max(0.0, self.most - self.before)
