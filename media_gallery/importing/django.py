"""The Django gallery that this API comes from, as its published sources keep it:

    MEDIA/originals/abc/def/…               the bytes, once; abcdef are the first digits of their MD5
    MEDIA/symlinks/TITLE/NAME               links to them; an address was BASE/TITLE/NAME

Thumbnails were at BASE/TITLE/thumb_NAME and, of avatars, BASE/TITLE/SIDE_STEM.webp. Ours answer there, which are made
anew.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path, PurePath

from media_gallery.db.django import DjangoFile, list_files, opened
from media_gallery.importing import OldFile

ADDRESS = "/gallery/media"
"""The path of its addresses, unless its setting `STATIC_LINK` says another."""


async def files(media: Path, database: str) -> AsyncIterator[list[OldFile]]:
    """All files, in batches. Raises Unavailable; BadRequest if the database is another one."""
    after = 0
    async with opened(database) as db:
        while found := await db.scan(lambda c: list_files(c, after)):  # noqa: B023, awaited here
            after = found[-1].id
            yield [_old(file, media) for file in found]


def _old(file: DjangoFile, media: Path) -> OldFile:
    return OldFile(
        place=media / file.file,
        address=f"{file.title}/{file.name}",
        owner=file.username if "@" in file.username else None,
        name=file.name,
        created_at=file.created_at,
        md5=None if file.is_avatar else file.md5,  # that of an avatar may be of the image before it was cropped
        media_type=file.media_type,
        context="avatar" if file.is_avatar else None,
        thumbnail_addresses=_thumbnails(file),
        thumbnails=file.thumbnails or not file.is_avatar,
        metadata=file.metadata,
    )


def _thumbnails(file: DjangoFile) -> dict[str, int | None]:
    addresses: dict[str, int | None] = {f"{file.title}/thumb_{file.name}": None}
    if file.is_avatar and file.thumbnails:
        addresses |= {f"{file.title}/{side}_{PurePath(file.name).stem}.webp": side for side in file.sides}
    return addresses
