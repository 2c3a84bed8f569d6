"""The page for people: the files of `media_gallery/web/`, which speak the API from the browser."""

from __future__ import annotations

import gzip
import hashlib
import re
from dataclasses import dataclass
from html import escape
from pathlib import Path
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response

from media_gallery.errors import NotFound
from media_gallery.http.media import not_modified
from media_gallery.settings import Settings

FOLDER = Path(__file__).parents[1] / "web"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
}
"""The types of the page's files. A file of another type is none of the page."""
_SAFE = {
    "X-Content-Type-Options": "nosniff",
    "X-Robots-Tag": "noindex",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_ALWAYS_ASK, _FOREVER = "no-cache", "public, max-age=31536000, immutable"


def content_security_policy(media_hosts: str = "") -> str:
    """What the page may load (CSP level 3): our own files, and pictures and films also from `media_hosts`. Text never
    becomes markup or script: the page has no Trusted Types policy by which it could.
    """
    media = f"'self' {media_hosts}".rstrip()
    return (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        f"img-src {media} blob:; media-src {media}; form-action 'none'; base-uri 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    )


def without_comments(path: Path) -> str:
    """A file as readers get it: comments, empty lines and indentation are for those who read the source. No string of
    the page has `/*` in it, and none spans lines.
    """
    text = path.read_text()
    if path.suffix in (".js", ".css"):
        text = re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
    lines = (line.strip() for line in text.splitlines())
    return "".join(f"{line}\n" for line in lines if line and not line.startswith("//"))


@dataclass(frozen=True, slots=True)
class Asset:
    """One file of the page, as it is and compressed."""

    media_type: str
    body: bytes
    compressed: bytes
    etag: str

    @classmethod
    def of(cls, media_type: str, body: bytes) -> Asset:
        return cls(media_type, body, gzip.compress(body, mtime=0), hashlib.sha256(body).hexdigest()[:32])

    def answer(self, request: Request, headers: dict[str, str]) -> Response:
        """The file, compressed if the client takes gzip; `304` if the client has it."""
        zipped = "gzip" in request.headers.get("accept-encoding", "")
        etag = f'"{self.etag}{"-gzip" if zipped else ""}"'
        headers = {**_SAFE, **headers, "ETag": etag, "Vary": "Accept-Encoding"}
        if not_modified(request, headers):
            return Response(None, 304, headers)
        if zipped:
            headers["Content-Encoding"] = "gzip"
        return Response(self.compressed if zipped else self.body, 200, headers, self.media_type)


class Pages:
    """All files, read once. Their addresses name their content, so that browsers keep them until they change."""

    def __init__(self, settings: Settings) -> None:
        assets = {
            path.relative_to(FOLDER).as_posix(): Asset.of(TYPES[path.suffix], without_comments(path).encode())
            for path in sorted(FOLDER.rglob("*"))
            if path.suffix in TYPES
        }
        index = assets.pop("index.html").body.decode()
        self.assets = assets
        etags = "".join(asset.etag for asset in self.assets.values())
        self.version = hashlib.sha256(etags.encode()).hexdigest()[:16]
        self.index = Asset.of(TYPES[".html"], self._filled(index).encode())
        self.policy = content_security_policy(_store_of(settings))

    def _filled(self, index: str) -> str:
        """The page with the addresses of its files. The browser learns of the modules at once, not one by the other,
        except of those in folders, which few readers need.
        """
        base = f"web/{self.version}"
        modules = "".join(
            f'<link rel="modulepreload" href="{base}/{escape(name)}">\n'
            for name in self.assets
            if name.endswith(".js") and "/" not in name
        )
        return index.replace("<!-- modules -->\n", modules).replace("web/VERSION", base)

    async def page(self, request: Request) -> Response:
        return self.index.answer(
            request, {"Content-Security-Policy": self.policy, "Cache-Control": _ALWAYS_ASK, "X-Frame-Options": "DENY"}
        )

    async def file(self, request: Request) -> Response:
        """One of the files. Raises NotFound. A page that was opened before an upgrade gets those of now."""
        asset = self.assets.get(request.path_params["file"])
        if asset is None:
            raise NotFound("There is no such address")
        lasting = request.path_params["version"] == self.version
        return asset.answer(
            request,
            {
                "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
                "Cache-Control": _FOREVER if lasting else _ALWAYS_ASK,
            },
        )


def _store_of(settings: Settings) -> str:
    """The origin of the store to which downloads are redirected, since a policy is applied to redirects, too."""
    if not settings.storage_url or settings.s3_delivery != "redirect":
        return ""
    aws = f"https://s3.{settings.s3_region}.amazonaws.com"
    parts = urlsplit(settings.s3_public_endpoint or settings.s3_endpoint or aws)
    return f"{parts.scheme}://{parts.netloc}"
