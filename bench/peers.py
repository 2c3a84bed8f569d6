"""Servers that do the same job, started as their packages come: Prosody and ejabberd with XEP-0363, nginx with PUT."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from xml.etree import ElementTree as ET

from slixmpp import ClientXMPP

from bench.load import upload
from tests.service import free_port

MOST = 10 * 10**9
UPLOAD = "urn:xmpp:http:upload:0"
"""Namespace of XEP-0363."""
_SBIN = "/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin"


@dataclass
class Peer:
    """A running server; `slots` are what it lets us PUT, in order."""

    name: str
    port: int
    xmpp_port: int = 0
    service: str = ""
    slots: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)

    def head(self, size: int, number: int) -> tuple[bytes, bytes]:
        """What comes before and behind the bytes of one upload."""
        path, _, headers = self.slots.pop()
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        kind = "Content-Type: application/octet-stream\r\n" if self.service else ""
        return f"PUT {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {size}\r\n{kind}{lines}\r\n".encode(), b""

    def prepare(self, size: int, count: int) -> None:
        """Fetch as many slots as uploads are to come, before their clock starts."""
        if self.service:
            self.slots = asyncio.run(_slots(self, size, count))
        else:
            paths = [f"/{time.monotonic_ns()}-{number}" for number in range(count)]
            self.slots = [(path, f"http://127.0.0.1:{self.port}{path}", {}) for path in paths]

    def place(self, size: int) -> str:
        """Upload one file; its address."""
        self.prepare(size, 1)
        address = self.slots[0][1]
        upload(self, size)
        return address


async def _slots(peer: Peer, size: int, count: int) -> list[tuple[str, str, dict[str, str]]]:
    client = ClientXMPP("bench@localhost", "bench")
    client.enable_starttls = client.enable_direct_tls = False
    client.enable_plaintext = True
    client.plugin["feature_mechanisms"].unencrypted_scram = True
    started = asyncio.Event()
    client.add_event_handler("session_start", lambda _: started.set())
    client.connect("127.0.0.1", peer.xmpp_port)
    await asyncio.wait_for(started.wait(), 20)
    found = []
    for number in range(count):
        iq = client.make_iq_get(ito=peer.service)
        wanted = {"filename": f"f{number}.bin", "size": str(size), "content-type": "application/octet-stream"}
        iq.append(ET.Element(f"{{{UPLOAD}}}request", wanted))
        slot = (await iq.send(timeout=10)).xml.find(f"{{{UPLOAD}}}slot")
        assert slot is not None
        place = slot.find(f"{{{UPLOAD}}}put")
        put, get = urlsplit(place.get("url")), urlsplit(slot.find(f"{{{UPLOAD}}}get").get("url"))
        headers = {header.get("name"): header.text for header in place}
        path = put.path + (f"?{put.query}" if put.query else "")
        found.append((path, f"http://127.0.0.1:{peer.port}{get.path}", headers))
    await client.disconnect()
    return found


def _wait(*ports: int) -> None:
    end = time.monotonic() + 40
    for port in ports:
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert time.monotonic() < end
            time.sleep(0.1)


@contextmanager
def _running(command: list[Any], environment: dict[str, str], *ports: int) -> Iterator[None]:
    process = subprocess.Popen(
        command, env=os.environ | environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        _wait(*ports)
        time.sleep(1)
        yield
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
    """The machine's practical limit: no accounts, no digests, no sync."""
    port = free_port()
    (directory / "files").mkdir(parents=True)
    user = "user root;" if os.getuid() == 0 else ""
    (directory / "conf").write_text(_NGINX.format(directory=directory, port=port, user=user))
    with _running([shutil.which("nginx", path=_SBIN), "-c", directory / "conf"], {}, port):
        yield Peer("nginx", port)


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
modules_enabled = {{ "saslauth", "disco", "http_file_share", "limits" }}
modules_disabled = {{ "s2s", "tls" }}
limits = {{}}
authentication = "internal_hashed"
c2s_require_encryption = false
VirtualHost "localhost"
Component "upload.localhost" "http_file_share"
    http_host = "127.0.0.1"
    http_file_share_size_limit = {most}
    http_file_share_daily_quota = {most} * 1000
    http_file_share_global_quota = {most} * 1000
"""


@contextmanager
def prosody(directory: Path) -> Iterator[Peer]:
    """Debian's Prosody with mod_http_file_share, its limits raised."""
    port, xmpp = free_port(), free_port()
    (directory / "data").mkdir(parents=True)
    config = directory / "prosody.cfg.lua"
    config.write_text(_PROSODY.format(directory=directory, port=port, xmpp=xmpp, most=MOST))
    control = shutil.which("prosodyctl", path=_SBIN)
    subprocess.run([control, "--config", config, "register", "bench", "localhost", "bench"], check=True,
                   capture_output=True)  # fmt: skip
    with _running([shutil.which("prosody", path=_SBIN), "-F", "--config", config], {}, port, xmpp):
        yield Peer("prosody", port, xmpp, "upload.localhost")


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
    """Debian's ejabberd with mod_http_upload, without a node name of its own."""
    port, xmpp = free_port(), free_port()
    (directory / "files").mkdir(parents=True)
    (directory / "ejabberd.yml").write_text(_EJABBERD.format(directory=directory, port=port, xmpp=xmpp))
    library = next(Path("/usr/lib").glob("*/ejabberd-*/ebin")).parent.parent
    environment = {"HOME": str(directory), "ERL_LIBS": str(library), "EJABBERD_LOG_PATH": str(directory / "log"),
                   "EJABBERD_CONFIG_PATH": str(directory / "ejabberd.yml")}  # fmt: skip
    command = ["erl", "+K", "true", "-noinput", "-mnesia", "dir", f'"{directory}/mnesia"', "-s", "ejabberd", "-eval",
               'ejabberd_auth:try_register(<<"bench">>, <<"localhost">>, <<"bench">>).']  # fmt: skip
    with _running(command, environment, port, xmpp):
        time.sleep(2)
        yield Peer("ejabberd", port, xmpp, "upload.localhost")


PEERS = {"nginx": nginx, "prosody": prosody, "ejabberd": ejabberd}


def installed() -> list[str]:
    programs = {"nginx": "nginx", "prosody": "prosody", "ejabberd": "ejabberdctl"}
    return [name for name, program in programs.items() if shutil.which(program, path=_SBIN)]
