"""A real Prosody for one test run: one virtual host with TLS, one component, accounts as needed. Loopback only."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from tests.certificates import make_certificate
from tests.ports import free_port, wait_for_ports

HOST, COMPONENT, SECRET = "localhost.test", "gallery.localhost.test", "component-secret"
UPLOADS = "upload.localhost.test"
"""Another component, which gives out slots."""
OWN_UPLOADS = "share.localhost.test"
"""Prosody's own upload service, which sends files to us: it signs with the secret of our slots."""
SLOT_SECRET = "a secret of thirty-two characters"
EXTERNAL_SECRET = "a-secret-of-slots-that-are-signed-in-their-address"
SIGNED = {"v": "signed.localhost.test", "v2": "signed2.localhost.test"}
"""Components whose module signs the address of an upload to us, by the version of the signature."""
OLD_UPLOADS = "old-uploads.localhost.test"
"""The upload service of the XMPP server itself, which keeps what it takes."""
HANDED_OVER = "hosts.localhost.test"
"""Another component, which several hosts take over from each other."""
_SIGNED = """
Component "{component}" "http_upload_external"
    http_upload_external_base_url = "https://gallery.example.org/media/"
    http_upload_external_secret = "{secret}"
    http_upload_external_protocol = "{protocol}"
"""
PROGRAM = shutil.which("prosody", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") or "prosody"
PLUGINS = Path(__file__).parents[2] / "contrib" / "prosody"
_CONFIGURATION = """
run_as_root = true
pidfile = "{directory}/prosody.pid"
data_path = "{directory}/data"
certificates = "{directory}"
plugin_paths = {{ "{plugins}" }}
log = {{ info = "{directory}/prosody.log" }}
interfaces = {{ "127.0.0.1" }}
c2s_ports = {{ {c2s_port} }}
c2s_direct_tls_ports = {{}}
component_ports = {{ {component_port} }}
component_interfaces = {{ "127.0.0.1" }}
http_ports = {{ {http_port} }}
https_ports = {{ {web_port} }}
https_certificate = "{directory}/{host}.crt"
http_default_host = "{host}"
modules_enabled = {{ "roster", "saslauth", "tls", "disco", "ping", "version", "carbons", "offline" }}
modules_disabled = {{ "s2s" }}
authentication = "internal_hashed"
c2s_require_encryption = {tls}
allow_unencrypted_plain_auth = false

VirtualHost "{host}"
    modules_enabled = {{ "media_gallery"{web_modules} }}
    media_gallery_url = "https://gallery.example.org/api/"
    http_files_dir = "{pages}"
VirtualHost "denied.test"
Component "{uploads}"
    component_secret = "{secret}"
{others}
"""
_WEB_MODULES = ', "websocket", "http_files", "blocklist"'
"""Converse.js 12 opens no chat with a stranger before it has the list of `blocklist`."""
_OTHERS = f"""
Component "{COMPONENT}"
    component_secret = "{SECRET}"
Component "{OWN_UPLOADS}" "http_file_share"
    http_file_share_base_url = "https://gallery.example.org/media/"
    http_file_share_secret = "{SLOT_SECRET}"
Component "{OLD_UPLOADS}" "http_file_share"
    http_host = "127.0.0.1"
    http_external_url = "http://127.0.0.1:{{http_port}}/"
Component "{HANDED_OVER}"
    component_secret = "{SECRET}"
Component "0.{HANDED_OVER}"
    component_secret = "{SECRET}"
Component "1.{HANDED_OVER}"
    component_secret = "{SECRET}"
"""


class Prosody:
    """Starts, stops and starts again on the same ports and data.

    `authority`: what signs the certificates, instead of each itself. `pages`: a directory that is served under `files/`
    at `web_url`, where `xmpp-websocket` is for a client in these pages. Then there is no component but UPLOADS, since
    a client takes any upload service that it finds.
    """

    def __init__(
        self, directory: Path, tls: bool = True, authority: Path | None = None, pages: Path | None = None
    ) -> None:
        self.directory, self.c2s_port, self.component_port = directory, free_port(), free_port()
        self.http_port, web_port = free_port(), free_port()
        self.web_url = f"https://127.0.0.1:{web_port}"
        self.ca_file = directory / f"{HOST}.crt"
        self.config = directory / "prosody.cfg.lua"
        self.process: subprocess.Popen[bytes] | None = None
        (directory / "data").mkdir()
        address = ["127.0.0.1"] if pages else []
        for host in (HOST, "denied.test"):
            make_certificate(directory / f"{host}.crt", host, *address, authority=authority)
        signed = [
            _SIGNED.format(component=component, secret=EXTERNAL_SECRET, protocol={"v": "v1"}.get(version, version))
            for version, component in SIGNED.items()
        ]
        others = _OTHERS.format(http_port=self.http_port) + "".join(signed)
        self.config.write_text(
            _CONFIGURATION.format(
                directory=directory, c2s_port=self.c2s_port, component_port=self.component_port, host=HOST,
                uploads=UPLOADS, others="" if pages else others, secret=SECRET, plugins=PLUGINS,
                web_port=web_port, pages=pages or "", web_modules=_WEB_MODULES if pages else "",
                http_port=self.http_port, tls="true" if tls else "false",
            )
        )  # fmt: skip

    def register(self, name: str, host: str = HOST) -> str:
        """Make an account whose password is its name; return its bare JID."""
        control = str(Path(PROGRAM).with_name("prosodyctl"))
        subprocess.run(
            [control, "--config", self.config, "register", name, host, name], check=True, capture_output=True
        )
        return f"{name}@{host}"

    def start(self) -> Prosody:
        self.process = subprocess.Popen(
            [PROGRAM, "-F", "--config", self.config], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        wait_for_ports(self.process, self.c2s_port, self.component_port, self.http_port, log=self.log)
        return self

    def stop(self) -> None:
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def log(self) -> str:
        path = self.directory / "prosody.log"
        return path.read_text() if path.exists() else ""
