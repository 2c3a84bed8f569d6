"""`make bench`: every figure of the service beside its peers, as medians from one run. Compare the ratios only."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from functools import cache, partial
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rich.console import Console
from rich.table import Table

from bench import component, load, servers
from bench.load import MB, Target
from bench.peers import PEERS, Peer
from bench.rows import fill_account
from tests import samples
from tests.front.nginx import Nginx
from tests.postgres import Postgres
from tests.s3 import S3
from tests.service import Service

SECRET = "the secret of slots in benchmarks"
BIG, SMALL, MIDDLE = 100 * MB, 4096, MB
FIGURES = 24
"""The number of figures that share the time of a run."""
TROUBLE = (OSError, RuntimeError, ValueError, subprocess.SubprocessError)
"""The exceptions of a server that cannot do a measurement."""
console = Console(width=None if sys.stdout.isatty() else 150)


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table: the medians of ours and of its peers; None for a peer that could not do it."""

    name: str
    unit: str
    ours: float | None
    peers: dict[str, float | None] = field(default_factory=dict)
    note: str = ""


class Run:
    """What all measurements use."""

    def __init__(self, service: Service, peers: list[Peer], repeats: int, seconds: int, end: float) -> None:
        self.service, self.peers, self.repeats, self.seconds, self._end = service, peers, repeats, seconds, end
        self.token = servers.token_of(service, "bench@example.org")
        self.ours = load.Gallery(service.port, self.token)
        self.slots = load.Slots(service.port, "bench@example.org", SECRET)
        self._left = FIGURES

    def turns(self) -> Iterator[int]:
        """The turns of a figure: as many as fit into its share of the remaining time, at least one."""
        begun = time.monotonic()
        share = (self._end - begun) / max(1, self._left)
        self._left -= 1
        for turn in range(self.repeats):
            yield turn
            if (time.monotonic() - begun) * (turn + 2) / (turn + 1) > share:
                return

    def figure(self, name: str, unit: str, measures: Mapping[str, Callable[[], float]], once: bool = False) -> Figure:
        """Medians of measurements that take turns, so that noise affects all. One that fails is left out."""
        values: dict[str, list[float]] = {who: [] for who in measures}
        failed: dict[str, str] = {}
        for _ in range(1) if once else self.turns():
            for who in [who for who in measures if who not in failed]:
                os.sync()  # so that no measurement begins with unwritten pages of another
                try:
                    values[who].append(measures[who]())
                except TROUBLE as error:
                    failed[who] = f"{who}: {str(error) or type(error).__name__}"[:60]
        medians = {who: None if who in failed else statistics.median(found) for who, found in values.items()}
        return Figure(name, unit, medians.pop("ours"), medians, "; ".join(failed.values()))

    def uploads(
        self, name: str, unit: str, size: int, count: int, measure: Callable[[Target], float]
    ) -> Iterator[Figure]:
        """Two figures: ours by our form and by PUT, each beside the peers."""

        def prepared(peer: Peer) -> float:
            peer.prepare(size, count)
            return measure(peer)

        for way, ours in (("", self.ours), (" by PUT", self.slots)):
            measures: dict[str, Callable[[], float]] = {"ours": partial(measure, ours)}
            measures |= {peer.name: partial(prepared, peer) for peer in self.peers}
            yield self.figure(f"{name}{way}", unit, measures)


def uploads(run: Run) -> Iterator[Figure]:
    for name, at_once in (("one 100 MB upload", 1), ("four 100 MB uploads at once", 4)):
        measure = partial(load.megabytes_per_second, size=BIG, at_once=at_once)
        yield from run.uploads(name, "MB/s", BIG, at_once, measure)
    many = 400 * run.seconds
    measure = partial(load.uploads_per_second, size=SMALL, connections=8, count=many)
    yield from run.uploads("4 KB uploads, 8 connections", "1/s", SMALL, many, measure)


def downloads(run: Run) -> Iterator[Figure]:
    for name, size, connections, unit in (
        ("GET 4 KB, 16 connections", SMALL, 16, "1/s"),
        ("GET 1 MB, 16 connections", MIDDLE, 16, "MB/s"),
        ("GET 100 MB, 4 connections", BIG, 4, "MB/s"),
    ):
        places: dict[str, Callable[[], str]] = {"ours": partial(_placed, run.ours, size)}
        places |= {peer.name: partial(peer.place, size) for peer in run.peers}
        yield run.figure(name, unit, _reading(places, connections, run.seconds, unit))


def _placed(gallery: load.Gallery, size: int) -> str:
    return str(json.loads(load.upload(gallery, size))["file"])


def _reading(
    places: Mapping[str, Callable[[], str]], connections: int, seconds: int, unit: str
) -> dict[str, Callable[[], float]]:
    """A measurement of reading for each of these. Its file is uploaded when it is first measured."""

    def measure(address: Callable[[], str]) -> float:
        seen = load.read(address(), connections, seconds)
        return seen.per_second if unit == "1/s" else seen.megabytes

    return {who: partial(measure, cache(place)) for who, place in places.items()}


def fronts(run: Run, directory: Path) -> Iterator[Figure]:
    """Downloads behind nginx with the files of contrib/nginx, against nginx over a directory."""
    peers = [peer for peer in run.peers if peer.name == "nginx"]
    if not peers:
        return
    directory.mkdir()
    service = servers.start_service(directory, ACCEL_PREFIX="/protected", SMALL_FILE_SIZE="0")  # nginx reads files
    ways: dict[str, tuple[str, ...]] = {"X-Accel-Redirect": (), "links tree": ("tree",)}
    started = {way: Nginx(directory / way.replace(" ", "-"), service, *parts, tls=False) for way, parts in ways.items()}
    gallery = load.Gallery(
        service.port, servers.token_of(service, "bench@example.org"), ext="mp3", media_type="audio/mpeg"
    )
    for name, size, unit in (("4 KB", SMALL, "1/s"), ("1 MB", MIDDLE, "MB/s")):
        path = urlsplit(_placed(gallery, size)).path
        for way, front in started.items():
            places: dict[str, Callable[[], str]] = {"ours": partial(str, front.url + path)}
            places |= {peer.name: partial(peer.place, size) for peer in peers}
            measures = _reading(places, 16, run.seconds, unit)
            yield run.figure(f"GET {name}, 16 connections, behind nginx, {way}", unit, measures)
    for front in started.values():
        front.stop()
    service.stop()


def slots(run: Run, directory: Path) -> Iterator[Figure]:
    """Slots: ours over HTTP, for unknown bytes, and as a component; those of the peers over one XMPP stream."""
    url = f"{run.service.url}/api/v1/files/slot/?name=a.bin&size=4096&hash={'0' * 64}"
    measures = {"ours": lambda: load.read(url, 16, run.seconds, run.token).per_second}
    many = 1000 * run.seconds
    measures |= {peer.name: partial(peer.slots_per_second, SMALL, many) for peer in run.peers if peer.service}
    yield run.figure("slots over HTTP", "1/s", measures)
    directory.mkdir()
    with component.Server() as server:
        service = servers.start_service(directory, **server.settings())
        server.accept()
        yield run.figure("slots over XMPP", "1/s", {**measures, "ours": lambda: server.slots_per_second(SMALL, many)})
        service.stop()


def lists(run: Run) -> Iterator[Figure]:
    base = f"{run.service.url}/api/v1"

    def measure(url: str, token: str, seen: list[load.Reading]) -> float:
        seen.append(load.read(url, 8, run.seconds, token))
        return seen[-1].per_second

    for files in (100, 100_000):
        jid = f"bench-{files}@example.org"
        fill_account(run.service, jid, files)
        token = servers.token_of(run.service, jid)
        for name, path in (
            ("page of the list", "files/"),
            ("page of images by name", "files/?type=image&order_by=name"),
            ("statistics", "files/stats/"),
        ):
            seen: list[load.Reading] = []
            measures = {"ours": partial(measure, f"{base}/{path}", token, seen)}
            figure = run.figure(f"{name}, {files:,} files", "1/s", measures)
            yield replace(figure, note=figure.note or _latency(seen))


def _latency(seen: list[load.Reading]) -> str:
    middle = sorted(seen, key=lambda reading: reading.per_second)[len(seen) // 2]
    return f"median {middle.median:.1f} ms, p99 {middle.p99:.1f} ms"


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
    """Beside it, the bare work: libvips in its own process, warm, without HTTP, disk or database."""
    photo = directory / "photo.jpg"
    photo.write_bytes(samples.picture("jpeg", 4000, 3000))
    user = run.service.user(jid="bench@example.org")
    heights = count(3000, -1)  # other bytes each time, since known bytes are not decoded

    def ours() -> float:
        data = samples.picture("jpeg", 4000, next(heights))
        begun = time.perf_counter()
        user.avatar(data, "photo.jpg")
        return (time.perf_counter() - begun) * 1000

    ours()  # warms the decoder
    bare = subprocess.run([sys.executable, "-c", _BARE, photo], capture_output=True, text=True, check=True).stdout
    warm = statistics.median(float(line) for line in bare.split()[1:])
    figure = run.figure("avatar of 12 megapixels, ten thumbnails", "ms", {"ours": ours})
    yield replace(figure, note=figure.note or f"bare libvips {warm:.0f} ms")


def family(run: Run, started: float, size: int) -> Iterator[Figure]:
    assert run.service.process
    pid = run.service.process.pid
    yield Figure("start to the first answer", "s", started)
    yield Figure("memory of all processes", "MB", servers.memory(pid))

    def grown(peer: Peer) -> float:
        peer.prepare(BIG, 4)
        return _growth(peer, peer.pid, BIG)

    measures: dict[str, Callable[[], float]] = {"ours": lambda: _growth(run.ours, pid, BIG)}
    measures |= {peer.name: partial(grown, peer) for peer in run.peers}
    yield run.figure("memory growth, four 100 MB uploads", "MB", measures, once=True)
    if size > BIG:
        large = {"ours": lambda: _growth(run.ours, pid, size)}
        yield run.figure(f"memory growth, four {size // MB:,} MB uploads", "MB", large, once=True)


def _growth(target: Target, pid: int, size: int) -> float:
    with servers.Peak(pid) as peak:
        load.megabytes_per_second(target, size, 4)
    return peak.growth


def hashing(directory: Path) -> Iterator[Figure]:
    """The speed of a digest alone: an upload on one core cannot be faster."""
    file = directory / "zeros"
    file.write_bytes(bytes(BIG))
    begun = time.perf_counter()
    subprocess.run(["sha256sum", file], check=True, capture_output=True)
    yield Figure("sha256sum of 100 MB", "MB/s", BIG / MB / (time.perf_counter() - begun))


def _beside(figure: Figure, name: str) -> str:
    if name not in figure.peers:
        return ""
    theirs = figure.peers[name]
    if theirs is None:
        return "–"
    return f"{theirs:,.0f} ({figure.ours / theirs:.2f})" if theirs >= 1 and figure.ours else f"{theirs:,.1f}"


def _plain(figure: Figure) -> str:
    if figure.ours is None:
        return "–"
    return f"{figure.ours:,.1f} {figure.unit}" if figure.ours < 10 else f"{figure.ours:,.0f} {figure.unit}"


def show(figures: list[Figure]) -> None:
    """Print the table: our figure, and each peer's figure with the ratio of ours to it."""
    names = list(dict.fromkeys(name for figure in figures for name in figure.peers))
    table = Table(box=None)
    for name in ("figure", "ours", *names, ""):
        table.add_column(name, justify="left" if name in ("figure", "") else "right")
    for figure in figures:
        table.add_row(figure.name, _plain(figure), *(_beside(figure, name) for name in names), figure.note)
    console.print(table)


def _postgres(stack: ExitStack) -> dict[str, Any]:
    server = Postgres(durable=True)
    stack.callback(server.stop)
    return {"DATABASE_URL": server.ready_database()}


def _s3(stack: ExitStack) -> dict[str, Any]:
    store = S3()
    stack.callback(store.stop)
    return store.settings()


BACKENDS: dict[str, Callable[[ExitStack], dict[str, Any]]] = {
    "sqlite+local": lambda stack: {},
    "postgres+local": _postgres,
    "postgres+s3": lambda stack: _postgres(stack) | _s3(stack),
}
"""Start real servers of these kinds, which end with the stack; return the settings of a service on them."""


def _peers(stack: ExitStack, names: list[str], directory: Path) -> Iterator[Peer]:
    """The peers that start. If one does not, that is printed, and the run goes on without it."""
    for name in names:
        try:
            yield stack.enter_context(PEERS[name](directory / name))
        except (AssertionError, *TROUBLE) as error:
            console.print(f"{name} does not start: {error}", highlight=False, markup=False)


def _measured(options: argparse.Namespace) -> Generator[Figure, None, None]:
    """The figures, each as soon as it is measured."""
    repeats, seconds = (1, 1) if options.quick else (options.repeats, options.seconds)
    end = time.monotonic() + options.minutes * 60
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gallery-bench-")))
        peers = list(_peers(stack, options.peers, directory))
        begun = time.perf_counter()
        service = servers.start_service(directory, SLOT_SECRET=SECRET, **BACKENDS[options.backends](stack))
        started = time.perf_counter() - begun
        stack.callback(service.stop)
        run = Run(service, peers, repeats, seconds, end)
        yield from family(run, started, 100 * MB if options.quick else 1000 * MB)
        yield from uploads(run)
        yield from slots(run, directory / "component")
        yield from downloads(run)
        yield from fronts(run, directory / "front")
        yield from lists(run)
        yield from pictures(run, directory)
        yield from hashing(directory)


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short turn of each figure")
    parser.add_argument("--seconds", type=int, default=2, help="of each reading")
    parser.add_argument("--repeats", type=int, default=5, help="most turns of each figure")
    parser.add_argument(
        "--minutes", type=float, default=6.5, help="of the whole run; figures get fewer turns to keep it"
    )
    parser.add_argument("--json", type=Path, help="write the figures to this file, too")
    parser.add_argument("--peers", nargs="*", choices=list(PEERS), default=list(PEERS), help="default: all")
    parser.add_argument("--backends", choices=list(BACKENDS), default="sqlite+local", help="what ours runs on")
    options = parser.parse_args()
    figures: list[Figure] = []
    console.print(f"This takes {'a minute or two' if options.quick else f'about {options.minutes:g} minutes'}.")
    measured = _measured(options)
    try:
        for figure in measured:
            figures.append(figure)
            console.print(f"[dim]{figure.name}: {_plain(figure)}[/dim]", highlight=False)
    except KeyboardInterrupt:
        console.print("stopped")
    finally:  # show what was measured, even if the run was interrupted
        measured.close()
        show(figures)
        if options.json:
            options.json.write_text(json.dumps([asdict(figure) for figure in figures], indent=1) + "\n")
    sys.exit(any(figure.ours is None for figure in figures))


if __name__ == "__main__":
    main()
