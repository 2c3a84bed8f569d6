"""What a person's client finds: an XMPP server whose only upload service is ours, and the gallery behind nginx. Their
certificates are signed by an authority that only these tests know.
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.certificates import make_certificate
from tests.front.nginx import Nginx
from tests.service import Service
from tests.xmpp.conftest import ChatClient, component_settings, signed_in
from tests.xmpp.prosody import HOST, UPLOADS, Prosody

CONVERSE = Path(sys.prefix) / "converse"
"""Where contrib/setup puts Converse.js."""


@dataclass(frozen=True, slots=True)
class Network:
    """`authority`: the certificate that clients shall trust; `pages`: files of `prosody.web_url`/files/."""

    authority: Path
    pages: Path
    prosody: Prosody
    gallery: Service


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody with a client, whose files are in `home`. The password is the name."""

    name: str
    home: Path
    network: Network

    @property
    def jid(self) -> str:
        return f"{self.name}@{HOST}"

    def environment(self, **more: str) -> dict[str, str]:
        """That of the client's process: it finds no files but those in `home`, and speaks English."""
        kept = {name: os.environ[name] for name in ("PATH", "TMPDIR") if name in os.environ}
        return kept | {"HOME": str(self.home), "LC_ALL": "C.UTF-8", "SSL_CERT_FILE": str(self.network.authority)} | more


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    directory = tmp_path_factory.mktemp("network")
    authority = make_certificate(directory / "authority.crt", "authority.test")
    pages = directory / "pages"
    pages.mkdir()
    (pages / "converse").symlink_to(CONVERSE)
    (directory / "prosody").mkdir()
    prosody = Prosody(directory / "prosody", authority=authority, pages=pages).start()
    gallery = Service(directory, **component_settings(prosody, UPLOADS), SLOTS="true")
    nginx = Nginx(directory / "nginx", gallery, authority=authority)
    gallery.settings["PUBLIC_URL"] = nginx.url
    gallery.start()
    gallery.wait_until(lambda: "connected to the XMPP server" in gallery.log())
    yield Network(authority, pages, prosody, gallery)
    gallery.stop()
    nginx.stop()
    prosody.stop()


@pytest.fixture(scope="module")
async def juliet(network: Network) -> AsyncIterator[ChatClient]:
    network.prosody.register("juliet")
    async with signed_in(f"juliet@{HOST}", network.prosody) as client:
        yield client
