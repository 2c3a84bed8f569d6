"""Servers that do the same job, as Debian packages them: Prosody and ejabberd with XEP-0363, nginx with PUT."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.load import upload
from bench.stream import Slot, Stream
from tests.ports import free_port, wait_for_ports
from tests.xmpp.ejabberd import READY, node

MOST = 10 * 10**9
_SBIN = "/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin"


@dataclass
class Peer:
    """A running server: process `pid` and its children. `slots` are the slots for our PUT requests, in order."""

    name: str
    pid: int
    port: int
    xmpp_port: int = 0
    service: str = ""
    slots: list[Slot] = field(default_factory=list)

    def head(self, size: int, number: int) -> tuple[bytes, bytes]:
        """What is sent before the bytes of one upload and after them."""
        path, _, headers = self.slots.pop()
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        kind = "Content-Type: application/octet-stream\r\n" if self.service else ""
        return f"PUT {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {size}\r\n{kind}{lines}\r\n".encode(), b""

    def prepare(self, size: int, count: int) -> None:
        """Fetch a slot for each upload before the clock of the uploads starts."""
        if self.service:
            self.slots, _ = self._ask(size, count)
        else:
            paths = [f"/{time.monotonic_ns()}-{number}" for number in range(count)]
            self.slots = [(path, path, {}) for path in paths]

    def _ask(self, size: int, count: int) -> tuple[list[Slot], float]:
        with Stream(self.xmpp_port, "localhost", "bench", "bench") as stream:
            return stream.slots(self.service, size, count)

    def slots_per_second(self, size: int, count: int) -> float:
        """How fast it gives slots. Only for a peer with a `service`."""
        return count / self._ask(size, count)[1]

    def place(self, size: int) -> str:
        """Upload one file; return its address."""
        self.prepare(size, 1)
        path = self.slots[0][1]
        upload(self, size)
        return f"http://127.0.0.1:{self.port}{path}"


@contextmanager
def _running(command: list[Any], environment: dict[str, str], *ports: int, ready: Path | None = None) -> Iterator[int]:
    """Run a process until it listens at these ports; yield its number."""
    process = subprocess.Popen(
        command, env=os.environ | environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        wait_for_ports(process, *ports, ready=ready)
        time.sleep(1)
        yield process.pid
    finally:
        process.terminate()
        process.wait()


_NGINX = """
worker_processes 2; daemon off; pid {directory}/pid; error_log {directory}/error; {user}
events {{ worker_connections 512; }}
http {{
    access_log off; sendfile on; tcp_nopush on; keepalive_requests 10000000;
    client_body_temp_path {directory}/body; proxy_temp_path {directory}/t1; fastcgi_temp_path {directory}/t2;
    uwsgi_temp_path {directory}/t3; scgi_temp_path {directory}/t4;
    server {{
        listen 127.0.0.1:{port}; root {directory}/files; client_max_body_size 0;
        dav_methods PUT; create_full_put_path on;
    }}
}}
"""


@contextmanager
def nginx(directory: Path) -> Iterator[Peer]:
    """nginx shows what the machine can do: no accounts, no digests, no sync."""
    port = free_port()
    (directory / "files").mkdir(parents=True)
    user = "user root;" if os.getuid() == 0 else ""
    (directory / "conf").write_text(_NGINX.format(directory=directory, port=port, user=user))
    with _running([shutil.which("nginx", path=_SBIN), "-c", directory / "conf"], {}, port) as pid:
        yield Peer("nginx", pid, port)


_PROSODY = """
run_as_root = true
pidfile = "{directory}/pid"
data_path = "{directory}/data"
log = {{ error = "{directory}/log" }}
interfaces = {{ "127.0.0.1" }}
c2s_ports = {{ {xmpp} }}
c2s_direct_tls_ports = {{}}
http_ports = {{ {port} }}
http_interfaces = {{ "127.0.0.1" }}
https_ports = {{}}
http_external_url = "http://127.0.0.1:{port}/"
modules_enabled = {{ "saslauth", "disco", "http_file_share" }}
modules_disabled = {{ "s2s", "tls" }}
network_settings = {{ nagle = false; opportunistic_writes = true; read_size = 65536; min_wait = 1e-5 }}
storage_archive_item_limit = 1000000
authentication = "internal_hashed"
c2s_require_encryption = false
allow_unencrypted_plain_auth = true
VirtualHost "localhost"
Component "upload.localhost" "http_file_share"
    http_host = "127.0.0.1"
    http_file_share_size_limit = {most}
    http_file_share_daily_quota = {most} * 1000
    http_file_share_global_quota = {most} * 1000
"""


@contextmanager
def prosody(directory: Path) -> Iterator[Peer]:
    """Debian's Prosody with mod_http_file_share and higher limits. By default it waits a millisecond after each read of
    8 KiB, which is slow for loopback clients. Here it reads as much as they send.
    """
    port, xmpp = free_port(), free_port()
    (directory / "data").mkdir(parents=True)
    config = directory / "prosody.cfg.lua"
    config.write_text(_PROSODY.format(directory=directory, port=port, xmpp=xmpp, most=MOST))
    control = shutil.which("prosodyctl", path=_SBIN) or "prosodyctl"
    subprocess.run([control, "--config", config, "register", "bench", "localhost", "bench"], check=True,
                   capture_output=True)  # fmt: skip
    with _running([shutil.which("prosody", path=_SBIN), "-F", "--config", config], {}, port, xmpp) as pid:
        yield Peer("prosody", pid, port, xmpp, "upload.localhost")


_EJABBERD = """
hosts: [localhost]
loglevel: error
auth_method: internal
listen:
  - {{port: {xmpp}, ip: "127.0.0.1", module: ejabberd_c2s, starttls: false, backlog: 1024}}
  - port: {port}
    ip: "127.0.0.1"
    module: ejabberd_http
    backlog: 1024
    request_handlers: {{/upload: mod_http_upload}}
access_rules: {{local: [allow]}}
modules:
  mod_disco: {{}}
  mod_http_upload:
    host: upload.localhost
    put_url: "http://127.0.0.1:{port}/upload"
    docroot: "{directory}/files"
    max_size: infinity
    access: all
"""


@contextmanager
def ejabberd(directory: Path) -> Iterator[Peer]:
    """Debian's ejabberd with mod_http_upload, without its own node name."""
    port, xmpp = free_port(), free_port()
    (directory / "files").mkdir(parents=True)
    (directory / "ejabberd.yml").write_text(_EJABBERD.format(directory=directory, port=port, xmpp=xmpp))
    command, environment = node(directory, {"bench": "localhost"})
    with _running(command, environment, port, xmpp, ready=directory / READY) as pid:
        yield Peer("ejabberd", pid, port, xmpp, "upload.localhost")


PEERS = {"nginx": nginx, "prosody": prosody, "ejabberd": ejabberd}
