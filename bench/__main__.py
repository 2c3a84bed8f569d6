"""`make bench`: every figure of the service, beside its peers in the same run. Medians; ratios count, not megabytes."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rich.console import Console
from rich.table import Table

from bench import load, servers
from bench.load import MB, Target
from bench.peers import PEERS, Peer
from bench.rows import fill_account
from tests import samples
from tests.front.nginx import Nginx
from tests.postgres import Postgres
from tests.s3 import S3
from tests.service import Service

BIG, SMALL, MIDDLE = 100 * MB, 4096, MB
console = Console(width=None if sys.stdout.isatty() else 150)


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table: medians of ours and of the peers that do the same."""

    name: str
    unit: str
    ours: float
    peers: dict[str, float] = field(default_factory=dict)
    note: str = ""


class Run:
    """What all measurements share."""

    def __init__(self, service: Service, peers: list[Peer], repeats: int, seconds: int) -> None:
        self.service, self.peers, self.repeats, self.seconds = service, peers, repeats, seconds
        self.token = servers.token_of(service, "bench@example.org")
        self.ours = load.Gallery(service.port, self.token)

    def figure(self, name: str, unit: str, measures: Mapping[str, Callable[[], float]]) -> Figure:
        """Medians of measurements that take turns, so that a noisy minute falls on all."""
        values: dict[str, list[float]] = {who: [] for who in measures}
        for _ in range(self.repeats):
            for who, measure in measures.items():
                os.sync()  # nobody starts with the dirty pages of another
                values[who].append(measure())
        medians = {who: statistics.median(found) for who, found in values.items()}
        return Figure(name, unit, medians.pop("ours"), medians)

    def uploads(self, name: str, unit: str, size: int, count: int, measure: Callable[[Target], float]) -> Figure:
        def prepared(peer: Peer) -> float:
            peer.prepare(size, count)
            return measure(peer)

        measures: dict[str, Callable[[], float]] = {"ours": lambda: measure(self.ours)}
        measures |= {peer.name: partial(prepared, peer) for peer in self.peers}
        return self.figure(name, unit, measures)


def uploads(run: Run) -> Iterator[Figure]:
    for name, at_once in (("one 100 MB upload", 1), ("four 100 MB uploads at once", 4)):
        measure = partial(load.megabytes_per_second, size=BIG, at_once=at_once)
        yield run.uploads(name, "MB/s", BIG, at_once, measure)
    count = 400 * run.seconds
    measure = partial(load.uploads_per_second, size=SMALL, connections=8, count=count)
    yield run.uploads("4 KB uploads, 8 connections", "1/s", SMALL, count, measure)


def downloads(run: Run) -> Iterator[Figure]:
    for name, size, connections, unit in (
        ("GET 4 KB, 16 connections", SMALL, 16, "1/s"),
        ("GET 1 MB, 16 connections", MIDDLE, 16, "MB/s"),
        ("GET 100 MB, 4 connections", BIG, 4, "MB/s"),
    ):
        places = {"ours": json.loads(load.upload(run.ours, size))["file"]}
        places |= {peer.name: peer.place(size) for peer in run.peers}
        measure = partial(_rate, connections, run.seconds, unit)
        yield run.figure(name, unit, {who: partial(measure, url) for who, url in places.items()})


def fronts(run: Run, directory: Path) -> Iterator[Figure]:
    """Downloads behind nginx with the files of contrib/nginx, against nginx over a directory."""
    peers = [peer for peer in run.peers if peer.name == "nginx"]
    if not peers:
        return
    directory.mkdir()
    service = servers.start_service(directory, ACCEL_PREFIX="/protected")
    ways: dict[str, tuple[str, ...]] = {"X-Accel-Redirect": (), "links tree": ("tree",)}
    started = {way: Nginx(directory / way.replace(" ", "-"), service, *parts, tls=False) for way, parts in ways.items()}
    gallery = load.Gallery(
        service.port, servers.token_of(service, "bench@example.org"), ext="mp3", media_type="audio/mpeg"
    )
    for name, size, unit in (("4 KB", SMALL, "1/s"), ("1 MB", MIDDLE, "MB/s")):
        path = urlsplit(json.loads(load.upload(gallery, size))["file"]).path
        measure = partial(_rate, 16, run.seconds, unit)
        places = {peer.name: peer.place(size) for peer in peers}
        for way, front in started.items():
            measures = {who: partial(measure, url) for who, url in {"ours": front.url + path, **places}.items()}
            yield run.figure(f"GET {name}, 16 connections, behind nginx, {way}", unit, measures)
    for front in started.values():
        front.stop()
    service.stop()


def _rate(connections: int, seconds: int, unit: str, url: str) -> float:
    seen = load.read(url, connections, seconds)
    return seen.per_second if unit == "1/s" else seen.megabytes


def slots(run: Run) -> Iterator[Figure]:
    """Ours over HTTP, for bytes that are not known; the peers' over one XMPP stream, as clients ask for them."""
    url = f"{run.service.url}/api/v1/files/slot/?name=a.bin&size=4096&hash={'0' * 64}"
    measures = {"ours": lambda: load.read(url, 16, run.seconds, run.token).per_second}
    count = 1000 * run.seconds
    measures |= {peer.name: partial(peer.slots_per_second, SMALL, count) for peer in run.peers if peer.service}
    yield run.figure("slots", "1/s", measures)


def lists(run: Run) -> Iterator[Figure]:
    base = f"{run.service.url}/api/v1"
    for count in (100, 100_000):
        jid = f"bench-{count}@example.org"
        fill_account(run.service, jid, count)
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
    yield Figure("avatar of 12 megapixels, ten thumbnails", "ms", statistics.median(times[1:]), {},
                 f"bare libvips {statistics.median(warm):.0f} ms")  # fmt: skip


def family(run: Run, started: float, size: int) -> Iterator[Figure]:
    assert run.service.process
    pid = run.service.process.pid
    yield Figure("start to the first answer", "s", started)
    yield Figure("memory of all processes", "MB", servers.memory(pid))
    growth = {"ours": _growth(run.ours, pid, BIG)}
    for peer in run.peers:
        peer.prepare(BIG, 4)
        growth[peer.name] = _growth(peer, peer.pid, BIG)
    yield Figure("memory growth, four 100 MB uploads", "MB", growth.pop("ours"), growth)
    if size > BIG:
        yield Figure(f"memory growth, four {size // MB:,} MB uploads", "MB", _growth(run.ours, pid, size))


def _growth(target: Target, pid: int, size: int) -> float:
    with servers.Peak(pid) as peak:
        load.megabytes_per_second(target, size, 4)
    return peak.growth


def hashing(directory: Path) -> Iterator[Figure]:
    """What a digest alone costs: an upload cannot be faster on one core."""
    file = directory / "zeros"
    file.write_bytes(bytes(BIG))
    begun = time.perf_counter()
    subprocess.run(["sha256sum", file], check=True, capture_output=True)
    yield Figure("sha256sum of 100 MB", "MB/s", BIG / MB / (time.perf_counter() - begun))


def _beside(figure: Figure, name: str) -> str:
    theirs = figure.peers.get(name)
    if theirs is None:
        return ""
    return f"{theirs:,.0f} ({figure.ours / theirs:.2f})" if theirs >= 1 else f"{theirs:.1f}"


def show(figures: list[Figure]) -> None:
    """The table: ours, and behind each peer's figure how many times as much ours is."""
    names = list(dict.fromkeys(name for figure in figures for name in figure.peers))
    table = Table(box=None)
    for name in ("figure", "ours", *names, ""):
        table.add_column(name, justify="left" if name in ("figure", "") else "right")
    for figure in figures:
        ours = f"{figure.ours:,.1f}" if figure.ours < 10 else f"{figure.ours:,.0f}"
        cells = [_beside(figure, name) for name in names]
        table.add_row(figure.name, f"{ours} {figure.unit}", *cells, figure.note)
    console.print(table)


def _postgres(stack: ExitStack) -> dict[str, Any]:
    server = Postgres()
    stack.callback(server.stop)
    return {"DATABASE_URL": server.new_database()}


def _s3(stack: ExitStack) -> dict[str, Any]:
    store = S3()
    stack.callback(store.stop)
    return store.settings()


BACKENDS: dict[str, Callable[[ExitStack], dict[str, Any]]] = {
    "sqlite+local": lambda stack: {},
    "postgres+local": _postgres,
    "postgres+s3": lambda stack: _postgres(stack) | _s3(stack),
}
"""Settings of a service on real servers of these kinds, which end with the stack."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short run of each figure")
    parser.add_argument("--seconds", type=int, default=3, help="of each reading")
    parser.add_argument("--json", type=Path, help="write the figures to this file, too")
    parser.add_argument("--peers", nargs="*", choices=list(PEERS), default=list(PEERS), help="default: all")
    parser.add_argument("--backends", choices=list(BACKENDS), default="sqlite+local", help="what ours runs on")
    options = parser.parse_args()
    repeats, seconds = (1, 1) if options.quick else (5, options.seconds)
    figures: list[Figure] = []
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gallery-bench-")))
        peers = [stack.enter_context(PEERS[name](directory / name)) for name in options.peers]
        begun = time.perf_counter()
        service = servers.start_service(directory, **BACKENDS[options.backends](stack))
        started = time.perf_counter() - begun
        stack.callback(service.stop)
        run = Run(service, peers, repeats, seconds)
        for part in (
            family(run, started, 100 * MB if options.quick else 1000 * MB),
            uploads(run), slots(run), downloads(run), fronts(run, directory / "front"), lists(run),
            pictures(run, directory), hashing(directory),
        ):  # fmt: skip
            for figure in part:
                figures.append(figure)
                console.print(f"[dim]{figure.name}: {figure.ours:,.1f} {figure.unit}[/dim]", highlight=False)
    show(figures)
    if options.json:
        options.json.write_text(json.dumps([asdict(figure) for figure in figures], indent=1) + "\n")


if __name__ == "__main__":
    main()
