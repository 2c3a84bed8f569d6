"""The real nginx with the files of contrib/nginx, on ports and paths of the test's own."""

from __future__ import annotations

import os
import re
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx

from tests.certificates import make_certificate
from tests.ports import free_port, wait_for_ports
from tests.service import MIB, PATIENCE, Service, assert_error
from tests.waiting import DEADLINE

PROGRAM = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
CONFIGURATION = Path(__file__).parents[2] / "contrib" / "nginx"
HOST = "gallery.example.org"
_MAIN = """
worker_processes 2; pcre_jit on; daemon off; pid {directory}/pid; error_log {directory}/error; {user}
events {{ worker_connections 512; }}
http {{
    include /etc/nginx/mime.types;
    set_real_ip_from 127.0.0.1; real_ip_header X-Test-Address;
    access_log off; keepalive_requests 10000000;
    client_body_temp_path {directory}/body; proxy_temp_path {directory}/t1; fastcgi_temp_path {directory}/t2;
    uwsgi_temp_path {directory}/t3; scgi_temp_path {directory}/t4;
    include media-gallery.conf;
}}
"""


def has_ipv6() -> bool:
    with suppress(OSError), socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::1", 0))
        return True
    return False


class Nginx:
    """A running nginx. `parts`: more files of contrib/nginx; `tls`: off for measurements; `others`: more hosts;
    `authority`: what signs its certificate, instead of itself.

    A client's address, for nginx, is what the client says in `X-Test-Address`.
    """

    def __init__(
        self,
        directory: Path,
        service: Service,
        *parts: str,
        tls: bool = True,
        others: Sequence[Service] = (),
        authority: Path | None = None,
    ) -> None:
        self.port, self.plain_port, self.directory = free_port(), free_port(), directory
        directory.mkdir()
        self.ca_file = make_certificate(directory / f"{HOST}.crt", HOST, "127.0.0.1", authority=authority)
        listen6 = "listen [::1]" if has_ipv6() else "# listen [::1]"
        changes = {
            "listen 443 ssl http2": f"listen 127.0.0.1:{self.port}" + (" ssl http2" if tls else ""),
            "listen [::]:443 ssl http2": f"{listen6}:{self.port}" + (" ssl http2" if tls else ""),
            "listen 80": f"listen 127.0.0.1:{self.plain_port}",
            "listen [::]:80": f"{listen6}:{self.plain_port}",
            f"/etc/letsencrypt/live/{HOST}/fullchain.pem": str(self.ca_file),
            f"/etc/letsencrypt/live/{HOST}/privkey.pem": str(self.ca_file.with_suffix(".key")),
            "/var/lib/media-gallery": str(service.data_dir),
        } | {f"# include media-gallery/{part}.conf": f"include media-gallery/{part}.conf" for part in parts}
        (directory / "media-gallery").mkdir()
        applied = set()
        for source in CONFIGURATION.rglob("*.conf"):
            text = source.read_text()
            for old, new in changes.items():
                if old in text:
                    applied.add(old)
                    text = text.replace(old, new)
            text = re.sub(
                r"( *server )127\.0\.0\.1:8080(.*\n)",
                lambda line: "".join(f"{line[1]}127.0.0.1:{host.port}{line[2]}" for host in (service, *others)),
                text,
            )
            (directory / source.relative_to(CONFIGURATION)).write_text(text)
        assert applied == set(changes), set(changes) - applied
        user = "user root;" if os.getuid() == 0 else ""
        (directory / "nginx.conf").write_text(_MAIN.format(directory=directory, user=user))
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        self.plain_url = f"http://127.0.0.1:{self.plain_port}"
        self._process = subprocess.Popen(
            [PROGRAM or "nginx", "-c", directory / "nginx.conf"], stderr=(directory / "start").open("wb")
        )
        wait_for_ports(self._process, self.port, log=(directory / "start").read_text)

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait()


def front(directory: Path, gallery: Service, *parts: str) -> Iterator[httpx.Client]:
    """A client of an nginx in front of the service. nginx stops when the block ends."""
    nginx = Nginx(directory / "nginx", gallery, *parts)
    trust = ssl.create_default_context(cafile=str(nginx.ca_file))
    # nginx closes a connection whose request was refused before its body was read, and does not always say so.
    once = httpx.Limits(max_keepalive_connections=0)
    with httpx.Client(base_url=nginx.url, verify=trust, timeout=PATIENCE, limits=once) as client:
        client.nginx = nginx  # type: ignore[attr-defined]
        yield client
    nginx.stop()


@contextmanager
def uploading(accel: httpx.Client, token: str, size: int) -> Iterator[ssl.SSLSocket]:
    """A connection that has sent the head of an upload of `size` bytes, and its first MiB."""
    nginx: Nginx = accel.nginx  # type: ignore[attr-defined]
    trust = ssl.create_default_context(cafile=str(nginx.ca_file))
    form = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    with (
        socket.create_connection(("127.0.0.1", nginx.port), DEADLINE) as bare,
        trust.wrap_socket(bare, server_hostname="127.0.0.1") as connection,
    ):
        connection.sendall(
            b"POST /api/v1/files/upload/ HTTP/1.1\r\nHost: gallery.example.org\r\nConnection: close\r\n"
            + f"Authorization: Bearer {token}\r\nContent-Length: {size}\r\n".encode()
            + b"Content-Type: multipart/form-data; boundary=b\r\n\r\n"
            + form.ljust(MIB, b"x")
        )
        yield connection


def refused_by_nginx(answer: httpx.Response, status: int) -> None:
    assert_error(answer, status)
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert ("Retry-After" in answer.headers) == (status in (429, 503))
