"""Common HTTP clients; each sends a body in its own way. Each run yields a line: `STATUS BODY`, or `broken: …`."""

from __future__ import annotations

import http.client
import shutil
import ssl
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from time import sleep
from urllib.parse import urlsplit

PATH = "/api/v1/files/upload/"
HEAD, TAIL = b'--b\r\nContent-Disposition: form-data; name="file"; filename="film.bin"\r\n\r\n', b"\r\n--b--\r\n"
PIECE = 65536
CURL = shutil.which("curl")


@dataclass(frozen=True, slots=True)
class Upload:
    """What is sent, with which token, and how: `whole` (with its length), `chunked`, or another mode of a client."""

    url: str
    token: str
    size: int
    mode: str = "whole"
    ca_file: Path | None = None
    """A certificate to trust, besides those of the system, if `url` is https."""
    pause: float = 0.0
    """Seconds before each piece of 64 KiB, for a client on a slow line."""


Client = Callable[[Upload, int], Iterator[str]]
"""Makes this number of uploads one after another, and yields a line for each."""


def pieces(upload: Upload) -> Iterator[bytes]:
    body = HEAD + bytes(upload.size) + TAIL
    for start in range(0, len(body), PIECE):
        sleep(upload.pause)
        yield body[start : start + PIECE]


def connected(upload: Upload) -> http.client.HTTPConnection:
    where = urlsplit(upload.url)
    if where.scheme == "http":
        return http.client.HTTPConnection(where.netloc)
    trust = ssl.create_default_context(cafile=upload.ca_file and str(upload.ca_file))
    return http.client.HTTPSConnection(where.netloc, context=trust)


def by_http_client(upload: Upload, runs: int) -> Iterator[str]:
    """Python's own client: it sends everything before it reads the answer."""
    headers = {"Authorization": f"Bearer {upload.token}", "Content-Type": "multipart/form-data; boundary=b"}
    if upload.mode == "whole":
        headers["Content-Length"] = str(len(HEAD) + upload.size + len(TAIL))
    for _ in range(runs):
        connection = connected(upload)
        try:
            connection.request("POST", PATH, pieces(upload), headers, encode_chunked=upload.mode == "chunked")
            answer = connection.getresponse()
            yield f"{answer.status} {answer.read().decode()}"
        except (OSError, http.client.HTTPException) as error:
            yield f"broken: {error!r}"
        connection.close()


def by_curl(upload: Upload, runs: int) -> Iterator[str]:
    """curl reads while it sends. Mode `expect`: it waits a second for `100` before it sends."""
    more = ["--cacert", str(upload.ca_file)] if upload.ca_file else []
    more += ["-H", "Transfer-Encoding: chunked"] if upload.mode == "chunked" else []
    more += ["-H", "Expect: 100-continue" if upload.mode == "expect" else "Expect:"]
    with tempfile.NamedTemporaryFile() as file:
        file.truncate(upload.size)
        for _ in range(runs):
            done = subprocess.run(
                [CURL or "curl", "-sS", *more, "-H", f"Authorization: Bearer {upload.token}",
                 "-F", f"file=@{file.name};filename=film.bin", "-w", "\n%{http_code}", upload.url + PATH],
                capture_output=True, text=True, check=False,
            )  # fmt: skip
            body, _, status = done.stdout.rpartition("\n")
            yield f"{status} {body}" if done.returncode == 0 else f"broken: {done.stderr.strip()}"
