"""Slots that an upload module of an XMPP server gives out by itself, and signs in the address of the upload.

The signature is HMAC-SHA256 in hex, by a secret that the module and we share: `v` over path and size, as Prosody's
`mod_http_upload_external` and ejabberd's `mod_http_upload` (`external_secret`) make it, or `v2` over path, size and
media type, as the former can. It has no end, but a slot takes one file.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping

from media_gallery.errors import Forbidden

VERSIONS = ("v2", "v")
"""The parameters of an address that carry a signature; of several, the first counts."""


def check(secret: str, path: str, size: str, media_type: str, said: Mapping[str, str]) -> None:
    """Raise Forbidden unless the upload of so many bytes to `path` is signed. `path`: percent-decoded, below `/media/`.
    `size`, `media_type`: as the request has them; `said`: the parameters of its address. Prosody's module signs
    `application/octet-stream` for a client that names no type.
    """
    version = next((name for name in VERSIONS if name in said), "")
    signed = {"v": f"{path} {size}", "v2": f"{path}\0{size}\0{media_type or 'application/octet-stream'}"}.get(version)
    if not secret or signed is None:
        raise Forbidden("Uploads to this address are not taken here")
    expected = hmac.new(secret.encode(), signed.encode(), hashlib.sha256).hexdigest()
    if not hmac.compare_digest(expected.encode(), said[version].encode()):
        raise Forbidden("The signature of this upload is not valid")
