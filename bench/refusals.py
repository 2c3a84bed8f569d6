"""`python -m bench.refusals`: do refusals reach clients that are still sending, directly and through nginx with TLS?

Counts the answers that arrived, and shows the others.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from time import perf_counter

from rich.console import Console

from tests.front.nginx import Nginx
from tests.service import Service
from tests.uploaders import PATH, Client, Upload, by_curl, by_http_client

CLIENTS = Path(__file__).parent / "clients"
MB = 1_000_000
console = Console(width=200, highlight=False, markup=False)


def by_program(*command: str) -> Client:
    """One of CLIENTS, a program that makes all runs in one process."""

    def run(upload: Upload, runs: int) -> Iterator[str]:
        words = [*command, upload.url + PATH, upload.token, str(upload.size), str(runs), upload.mode]
        environment = {"NODE_EXTRA_CA_CERTS": str(upload.ca_file or "")}
        yield from subprocess.run(
            words, capture_output=True, text=True, env=environment, check=True
        ).stdout.splitlines()

    return run


def program(name: str) -> str:
    return shutil.which(name) or name


WAYS: dict[str, tuple[Client, tuple[str, ...]]] = {
    "http.client": (by_http_client, ("whole", "chunked")),
    "curl": (by_curl, ("whole", "chunked", "expect")),
    "node": (by_program(program("node"), str(CLIENTS / "upload.mjs")), ("whole", "chunked")),
    "java": (by_program(program("java"), str(CLIENTS / "Upload.java")), ("whole", "fixed", "chunked")),
}
"""The modes of each client. `java` (HttpURLConnection) needs a JDK, `node` (fetch) version 18."""

Refused = Callable[[Service, int], str]
"""Returns a token whose uploads a service refuses for this number of runs."""


def nobody(service: Service, runs: int) -> str:
    return "unknown"


def somebody(service: Service, runs: int) -> str:
    return service.user().token


def somebody_busy(service: Service, runs: int) -> str:
    user = service.user()
    while user.send(b"").status_code != 429:
        pass
    return user.token


def refusals(runs: int) -> list[tuple[dict[str, str], dict[int, Refused]]]:
    """Settings of services, and for each status who is refused with it."""
    return [
        ({"MAX_FILE_SIZE": "1000", "RATE_UPLOAD": f"{runs}/day"}, {401: nobody, 413: somebody, 429: somebody_busy}),
        ({"MAX_FILE_SIZE": "1 GB", "DEFAULT_QUOTA": "1000"}, {403: somebody}),
    ]


def report(status: int, name: str, client: Client, upload: Upload, runs: int) -> int:
    """Make the uploads; return how many refusals did not arrive."""
    begun = perf_counter()
    seen = list(client(upload, runs))
    # Java does not show the body of a 401 if it could not send the request again.
    wrong = Counter(line for line in seen if not line.startswith(f'{status} {{"status":{status},') and line != "401 ")
    told = f"{runs - wrong.total()}/{runs}  {(perf_counter() - begun) / runs * 1000:6.0f} ms each"
    console.print(f"{status}  {name:32} {upload.mode:8} {upload.size // MB:3} MB  {told}", *wrong)
    return wrong.total()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--sizes", type=int, nargs="*", default=[1, 5, 50], help="MB")
    parser.add_argument("--clients", nargs="*", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--pause", type=float, default=0, help="seconds before each 64 KiB that http.client sends")
    options = parser.parse_args()
    broken = 0
    for settings, statuses in refusals(options.runs):
        with ExitStack() as stack:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gallery-bench-")))
            service = Service(directory, **settings).start()
            stack.callback(service.stop)
            nginx = Nginx(directory / "nginx", service)
            stack.callback(nginx.stop)
            for name in options.clients:
                client, modes = WAYS[name]
                for status, refused in statuses.items():
                    for size in options.sizes:
                        for mode in modes:
                            for way, url in (("directly", service.url), ("nginx", nginx.url)):
                                upload = Upload(
                                    url, refused(service, options.runs), size * MB, mode, pause=options.pause
                                )
                                if way == "nginx":
                                    upload = replace(upload, ca_file=nginx.ca_file)
                                broken += report(status, f"{name}, {way}", client, upload, options.runs)
    console.print(f"{broken} did not arrive")
    sys.exit(broken > 0)


if __name__ == "__main__":
    main()
