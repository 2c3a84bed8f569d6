"""`make bench`: every figure of the service, next to nginx in the same run. Medians; ratios count, not megabytes."""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench import load, servers
from bench.load import MB, Target
from tests import samples
from tests.service import Service

UPLOAD = "/api/v1/files/upload/"
BIG, SMALL, MIDDLE = 100 * MB, 4096, MB
console = Console()


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table: medians of ours and of nginx, where it does the same."""

    name: str
    unit: str
    ours: float
    peer: float | None = None
    note: str = ""


class Run:
    """What all measurements share."""

    def __init__(self, service: Service, peer: Target | None, repeats: int, seconds: int) -> None:
        self.service, self.peer, self.repeats, self.seconds = service, peer, repeats, seconds
        self.token = servers.token_of(service, "bench@example.org")
        self.ours = Target(service.port, UPLOAD, self.token)

    def medians(self, *measures: Callable[[], float] | None) -> list[float | None]:
        """Medians of measurements that take turns, so that a noisy minute falls on all."""
        values: list[list[float]] = [[] for _ in measures]
        for _ in range(self.repeats):
            for found, measure in zip(values, measures, strict=True):
                if measure:
                    found.append(measure())
        return [statistics.median(found) if found else None for found in values]

    def against_peer(self, name: str, unit: str, measure: Callable[[Target], float]) -> Figure:
        peer = self.peer
        ours, theirs = self.medians(lambda: measure(self.ours), (lambda: measure(peer)) if peer else None)
        assert ours is not None
        return Figure(name, unit, ours, theirs)


def uploads(run: Run) -> Iterator[Figure]:
    yield run.against_peer("one 100 MB upload", "MB/s", lambda t: load.megabytes_per_second(t, BIG, 1))
    yield run.against_peer("four 100 MB uploads at once", "MB/s", lambda t: load.megabytes_per_second(t, BIG, 4))
    count = 400 * run.seconds
    yield run.against_peer("4 KB uploads, 8 connections", "1/s", lambda t: load.uploads_per_second(t, SMALL, 8, count))


def downloads(run: Run) -> Iterator[Figure]:
    for name, size, connections, unit in (
        ("GET 4 KB, 16 connections", SMALL, 16, "1/s"),
        ("GET 1 MB, 16 connections", MIDDLE, 16, "MB/s"),
        ("GET 100 MB, 4 connections", BIG, 4, "MB/s"),
    ):
        ours = json.loads(load.upload(run.ours, size))["file"]
        theirs = None
        if run.peer:
            load.upload(run.peer, size)
            newest = max((run.service.data_dir.parent / "nginx" / "files").iterdir(), key=lambda f: f.stat().st_mtime)
            theirs = f"http://127.0.0.1:{run.peer.port}/{newest.name}"

        measure = partial(_rate, connections, run.seconds, unit)
        mine, his = run.medians(partial(measure, ours), partial(measure, theirs) if theirs else None)
        assert mine is not None
        yield Figure(name, unit, mine, his)


def _rate(connections: int, seconds: int, unit: str, url: str) -> float:
    seen = load.read(url, connections, seconds)
    return seen.per_second if unit == "1/s" else seen.megabytes


def requests(run: Run) -> Iterator[Figure]:
    base = f"{run.service.url}/api/v1"
    slot = load.read(f"{base}/files/slot/?name=a.bin&size=4096&hash={'0' * 64}", 16, run.seconds, run.token)
    yield Figure("slots, 16 connections", "1/s", slot.per_second, note=_latency(slot))
    for count in (100, 100_000):
        jid = f"bench-{count}@example.org"
        servers.fill(run.service, jid, count)
        token = servers.token_of(run.service, jid)
        for name, path in (
            ("page of the list", "files/"),
            ("page of images by name", "files/?type=image&order_by=name"),
            ("statistics", "files/stats/"),
        ):
            seen = [load.read(f"{base}/{path}", 8, run.seconds, token) for _ in range(run.repeats)]
            middle = sorted(seen, key=lambda reading: reading.per_second)[len(seen) // 2]
            yield Figure(f"{name}, {count:,} files", "1/s", middle.per_second, note=_latency(middle))


def _latency(reading: load.Reading) -> str:
    return f"median {reading.median:.1f} ms, p99 {reading.p99:.1f} ms"


_BARE = """
import sys, time, pyvips
data = open(sys.argv[1], 'rb').read()
for turn in range(6):
    begun = time.perf_counter()
    square = pyvips.Image.thumbnail_buffer(data, 1536, height=1536, crop='centre').copy_memory()
    square.write_to_buffer('.jpg', Q=90)
    for size in (768, 512, 384, 256, 192, 128, 96, 64, 48, 32):
        square.thumbnail_image(size, height=size).write_to_buffer('.jpg', Q=82)
    print((time.perf_counter() - begun) * 1000)
"""


def pictures(run: Run, directory: Path) -> Iterator[Figure]:
    """The bare work is libvips alone in a process of its own, warm, without HTTP, disk or database."""
    photo = directory / "photo.jpg"
    photo.write_bytes(samples.picture("jpeg", 4000, 3000))
    bare = subprocess.run([sys.executable, "-c", _BARE, photo], capture_output=True, text=True, check=True).stdout
    user = run.service.user(jid="bench@example.org")
    times = []
    for number in range(run.repeats + 1):
        data = samples.picture("jpeg", 4000, 3000 - number)
        begun = time.perf_counter()
        user.avatar(data, "photo.jpg")
        times.append((time.perf_counter() - begun) * 1000)
    warm = [float(line) for line in bare.split()][1:]
    yield Figure("avatar of 12 megapixels, ten thumbnails", "ms", statistics.median(times[1:]), None,
                 f"bare libvips {statistics.median(warm):.0f} ms")  # fmt: skip


def family(run: Run, started: float, size: int) -> Iterator[Figure]:
    assert run.service.process
    pid = run.service.process.pid
    yield Figure("start to the first answer", "s", started)
    yield Figure("memory of all processes", "MB", servers.memory(pid))
    with servers.Peak(pid) as peak:
        rate = load.megabytes_per_second(run.ours, size, 4)
    yield Figure(f"memory growth, four {size // MB:,} MB uploads", "MB", peak.growth, note=f"{rate:.0f} MB/s")


def show(figures: list[Figure]) -> None:
    table = Table(box=None)
    for name, side in (("figure", "left"), ("ours", "right"), ("nginx", "right"), ("ratio", "right"), ("", "left")):
        table.add_column(name, justify=side)  # type: ignore[arg-type]
    for figure in figures:
        peer = "" if figure.peer is None else f"{figure.peer:,.0f}"
        ratio = "" if figure.peer is None else f"{figure.ours / figure.peer:.2f}"
        ours = f"{figure.ours:,.1f}" if figure.ours < 10 else f"{figure.ours:,.0f}"
        table.add_row(figure.name, f"{ours} {figure.unit}", peer, ratio, figure.note)
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short run of each figure")
    parser.add_argument("--json", type=Path, help="write the figures to this file, too")
    options = parser.parse_args()
    repeats, seconds = (1, 1) if options.quick else (5, 3)
    figures: list[Figure] = []
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gallery-bench-")))
        peer = stack.enter_context(servers.nginx(directory / "nginx"))
        begun = time.perf_counter()
        service = servers.start_service(directory)
        started = time.perf_counter() - begun
        stack.callback(service.stop)
        run = Run(service, peer, repeats, seconds)
        for part in (
            family(run, started, 100 * MB if options.quick else 1000 * MB),
            uploads(run), downloads(run), requests(run), pictures(run, directory),
        ):  # fmt: skip
            for figure in part:
                figures.append(figure)
                console.print(f"[dim]{figure.name}: {figure.ours:,.1f} {figure.unit}[/dim]", highlight=False)
    show(figures)
    if options.json:
        options.json.write_text(json.dumps([asdict(figure) for figure in figures], indent=1) + "\n")


if __name__ == "__main__":
    main()
