"""Gives out slots of XEP-0363, as the component of a service does."""

from __future__ import annotations

import secrets
import time
from typing import Any
from urllib.parse import quote

from media_gallery.db.secrets import keep_secret
from media_gallery.slot_tokens import Claims, sign
from tests.service import Service, User


class Slots:
    """The slots of one service."""

    def __init__(self, service: Service) -> None:
        self.service = service

        new = secrets.token_urlsafe(32)
        self.secret: str = service.within(lambda gallery: gallery.db.write(lambda c: keep_secret(c, "slots", new)))

    def give(self, user: User, data: bytes, name: str = "photo.bin", **said: Any) -> tuple[str, str]:
        """The address and the token for a file."""
        now = int(time.time())
        claims: dict[str, Any] = {"sub": user.jid, "slot": secrets.token_hex(16), "filename": name, "iat": now,
                                  "filesize": len(data), "filetype": "", "exp": now + 300, **said}  # fmt: skip
        url = f"{self.service.url}/media/{claims['slot']}/{quote(name, safe='')}"
        return url, sign(self.secret, Claims(**claims))
