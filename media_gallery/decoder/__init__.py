"""The child side of thumbnails: decodes hostile images and films under limits, in a process that owns nothing.

It is started by its file path, with a socket and its limits. Of our modules it imports only `confinement` and
`media_types`. Each job comes as one JSON line with the file's descriptor beside it (SCM_RIGHTS); the answer is one JSON
line, then the bytes that it announces:

    {"job": "picture", "kind": "image"}     -> {"width": w, "height": h, "parts": [["256.webp", length]]}
    {"job": "avatar"}                       -> {"format": "png", "width": side, "parts": [["", length], …]}
    {"job": "avatar_thumbnails", "sizes": [48], "ext": "png"}
    anything that cannot be decoded         -> {"error": "why"}

Only the first bytes tell what a file is, never its name. Only the loaders that are named here decode it.
"""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import resource
import socket
import sys
from typing import Any

import av
import pyvips
from PIL import Image

from media_gallery.confinement import confine
from media_gallery.decoder.films import picture_of_film
from media_gallery.decoder.images import avatar, avatar_thumbnails, picture_of_image
from media_gallery.decoder.source import Limits, Refused, Source
from media_gallery.media_types import FILMS

_LOADERS = ("Jpeg", "Png", "Webp", "Nsgif", "Heif", "Tiff")


def limit_time(seconds: int) -> None:
    """Let this process use so much processor time from now on; if it uses more, the kernel ends it."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    soft = int(used.ru_utime + used.ru_stime) + seconds + 1
    resource.setrlimit(resource.RLIMIT_CPU, (soft, resource.RLIM_INFINITY))


def prepare() -> None:
    """Switch off what the libraries could do besides."""
    pyvips.cache_set_max(0)
    pyvips.operation_block_set("VipsForeignLoad", True)
    for loader in _LOADERS:
        pyvips.operation_block_set(f"VipsForeignLoad{loader}", False)
    av.logging.set_level(None)
    # These two load modules with the first image, but then no file can be opened any more: so they load them now.
    Image.preinit()
    for module in pkgutil.walk_packages(av.__path__, "av."):
        if module.name != "av.__main__":
            importlib.import_module(module.name)


def work(job: dict[str, Any], fd: int, limits: Limits) -> dict[str, Any]:
    """Do one job. Raises Refused, and whatever the libraries raise over a broken file."""
    source = Source(fd, limits)
    if job["job"] == "avatar":
        return avatar(source)
    if job["job"] == "avatar_thumbnails":
        return avatar_thumbnails(source, job["sizes"], job["ext"])
    if (source.format in FILMS) != (job["kind"] == "video"):
        raise Refused(f"{source.format}, but {job['kind']} was announced")
    return picture_of_film(source) if source.format in FILMS else picture_of_image(source)


def _attempt(job: dict[str, Any], fd: int, limits: Limits) -> tuple[dict[str, Any], bytes]:
    try:
        answer = work(job, fd, limits)
    except Exception as error:  # a broken file makes the libraries raise nearly anything
        return {"error": f"{type(error).__name__}: {error}"[:500]}, b""
    parts: dict[str, bytes] = answer["parts"]
    answer["parts"] = [[name, len(data)] for name, data in parts.items()]
    return answer, b"".join(parts.values())


def main() -> None:
    """Do jobs until the parent closes the socket."""
    parent, limits = socket.socket(fileno=int(sys.argv[1])), Limits(**json.loads(sys.argv[2]))
    prepare()
    enforced = confine(limits.memory)
    parent.sendall(json.dumps(enforced).encode() + b"\n")
    while True:
        line, fds, _, _ = socket.recv_fds(parent, 4096, 1)
        if not line:
            return
        limit_time(limits.cpu_seconds)
        try:
            answer, data = _attempt(json.loads(line), fds[0], limits)
        finally:
            for fd in fds:
                os.close(fd)
        parent.sendall(json.dumps(answer).encode() + b"\n" + data)
