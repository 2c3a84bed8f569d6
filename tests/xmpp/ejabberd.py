"""A real ejabberd for one test run, without its own node name, with TLS, two components, our module and its own one for
uploads, which sends files to us. It listens on the loopback only.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

from tests.certificates import make_certificate
from tests.ports import free_port, wait_for_ports
from tests.xmpp.prosody import COMPONENT, EXTERNAL_SECRET, HOST, OLD_UPLOADS, SECRET, UPLOADS

MODULE = Path(__file__).parents[2] / "contrib" / "ejabberd" / "mod_media_gallery.erl"
_CONFIGURATION = """
hosts: [{host}, {asking}, keeping.test, keeping2.test]
loglevel: info
auth_method: internal
certfiles: ["{directory}/*.crt", "{directory}/*.key"]
listen:
  - {{port: {c2s_port}, ip: "127.0.0.1", module: ejabberd_c2s, starttls_required: true}}
  - port: {component_port}
    ip: "127.0.0.1"
    module: ejabberd_service
    hosts: {{{component}: {{password: "{secret}"}}}}
  - port: {uploads_port}  # who connects to a port is given all components of that port
    ip: "127.0.0.1"
    module: ejabberd_service
    hosts: {{{uploads}: {{password: "{secret}"}}}}
  - port: {http_port}
    ip: "127.0.0.1"
    module: ejabberd_http
    request_handlers: {{/upload: mod_http_upload, /by-node: mod_http_upload}}
access_rules: {{local: [allow]}}
modules:
  mod_disco: {{}}
  mod_media_gallery: {{url: "https://gallery.example.org/api/"}}
append_host_config:
  {host}:
    modules:
      mod_http_upload: {{host: {signed}, put_url: "{gallery}/media", external_secret: "{external_secret}"}}
  {asking}:
    modules:
      mod_http_upload: {{host: "upload.{asking}", service_url: "{gallery}/slots/{external_secret}"}}
  keeping.test:
    modules:
      mod_http_upload: {{host: {old_uploads}, docroot: "{directory}/upload", put_url: "{old_address}/upload"}}
  keeping2.test:
    modules:
      mod_http_upload:
        host: {old_uploads_by_node}
        docroot: "{directory}/by-node"
        put_url: "{old_address}/by-node"
        jid_in_url: node
"""


ASKING = "asking.test"
"""A virtual host whose upload service asks us for each slot."""
SIGNED = "signed.localhost.test"
"""The upload service of the other one. It signs the address of an upload to us."""
OLD_UPLOADS_BY_NODE = "old-uploads2.localhost.test"
"""An upload service that keeps what it takes, as OLD_UPLOADS does; its addresses have the names of users."""
READY = "ready"
"""A file that exists once a node has its accounts."""


def node(directory: Path, accounts: dict[str, str]) -> tuple[list[Any], dict[str, str]]:
    """Command and environment of an ejabberd on `directory`/ejabberd.yml. In `accounts` each password is the name."""
    library = next(Path("/usr/lib").glob("*/ejabberd-*/ebin")).parent.parent
    environment = {"HOME": str(directory), "ERL_LIBS": str(library), "EJABBERD_LOG_PATH": str(directory / "log"),
                   "EJABBERD_CONFIG_PATH": str(directory / "ejabberd.yml")}  # fmt: skip
    registered = "".join(
        f'ejabberd_auth:try_register(<<"{name}">>, <<"{host}">>, <<"{name}">>),' for name, host in accounts.items()
    )
    command = ["erl", "+K", "true", "-noinput", "-mnesia", "dir", f'"{directory}/mnesia"', "-pa", directory,
               "-s", "ejabberd", "-eval", f'{registered} file:write_file("{directory / READY}", <<>>).']  # fmt: skip
    return command, environment


class Ejabberd:
    """Debian's ejabberd with `gallery` and `romeo`, and `juliet` on `ASKING`. It sends files to `gallery`."""

    def __init__(self, directory: Path, gallery: str) -> None:
        self.directory, self.c2s_port = directory, free_port()
        self.component_port, self.uploads_port, self.http_port = free_port(), free_port(), free_port()
        self.ca_file, _ = (make_certificate(directory / f"{host}.crt", host) for host in (HOST, ASKING))
        headers = next(Path("/usr/lib/erlang/lib").glob("p1_xmpp-*/include"))
        subprocess.run(["erlc", "-I", headers, "-o", directory, MODULE], check=True, capture_output=True)
        (directory / "ejabberd.yml").write_text(
            _CONFIGURATION.format(
                host=HOST, directory=directory, c2s_port=self.c2s_port, component_port=self.component_port,
                uploads_port=self.uploads_port, component=COMPONENT, uploads=UPLOADS, secret=SECRET, asking=ASKING,
                signed=SIGNED, gallery=gallery, external_secret=EXTERNAL_SECRET,
                http_port=self.http_port, old_address=f"http://127.0.0.1:{self.http_port}",
                old_uploads=OLD_UPLOADS, old_uploads_by_node=OLD_UPLOADS_BY_NODE,
            )
        )  # fmt: skip
        command, environment = node(directory, {"gallery": HOST, "romeo": HOST, "juliet": ASKING})
        self.process = subprocess.Popen(
            command, env=os.environ | environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        ports = (self.c2s_port, self.component_port, self.uploads_port, self.http_port)
        wait_for_ports(self.process, *ports, log=self.log, ready=directory / READY)

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()

    def log(self) -> str:
        return "".join(path.read_text() for path in self.directory.glob("log*") if path.is_file())
