"""Thumbnails that fail after their file is kept: the upload succeeds, and they are made when they are requested."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
from PIL import Image

from media_gallery.app import Gallery
from media_gallery.errors import NoSpace, Unavailable
from media_gallery.files import SPARED
from media_gallery.keeping import Kept
from media_gallery.offers import Offer
from media_gallery.thumbnails import DecoderFailed
from tests import samples
from tests.service import Service, User


async def _upload(gallery: Gallery, user: User, data: bytes, **said: Any) -> Kept:
    account = await gallery.accounts.get(user.jid)
    async with gallery.uploads.begin(account.id, len(data)) as upload:
        await upload.write(data)
        return await upload.finish(Offer("photo.png", media_type="image/png", **said))


def assert_shown(user: User, made: dict[str, Any]) -> None:
    answer = user.http.get(made["url"])
    assert Image.open(io.BytesIO(answer.content)).size == (made["width"], made["height"])
    assert "immutable" in answer.headers["Cache-Control"]


@pytest.mark.parametrize("refusal", [NoSpace, Unavailable, RuntimeError])
@pytest.mark.parametrize(
    ("what", "context"), [("put_thumbnails", "file"), ("put_thumbnails", "avatar"), ("open", None)]
)
def test_a_thumbnail_that_cannot_be_kept_refuses_no_upload(
    start_service: Callable[..., Service], refusal: type[Exception], what: str, context: Any
) -> None:
    service = start_service()
    user = service.user()

    async def broken(gallery: Gallery) -> None:
        async def refuse(*_: Any, **__: Any) -> None:
            raise refusal

        setattr(gallery.store, what, refuse)
        kept = await _upload(gallery, user, samples.picture("png", 60, 50), context=context)
        assert kept.quota.used == kept.link.blob.size

    service.within(broken)
    [file] = user.items("avatar/" if context == "avatar" else "files/")
    for made in (file["thumbnail"], *file.get("thumbnails", [])):
        assert_shown(user, made)


def test_spare_bytes_that_cannot_be_removed_refuse_no_upload(start_service: Callable[..., Service]) -> None:
    service = start_service()
    user, data = service.user(), samples.noise("png", 800, 800)
    user.upload(data)

    async def broken(gallery: Gallery) -> None:
        async def refuse(*_: Any, **__: Any) -> None:
            raise Unavailable

        gallery.store.discard = refuse  # type: ignore[method-assign]
        assert (await _upload(gallery, user, data)).quota.used == 2 * len(data)

    service.within(broken)
    assert len(user.items()) == 2


def test_a_file_that_kills_every_decoder_is_not_tried_for_ever(start_service: Callable[..., Service]) -> None:
    """After three times it is not tried for an hour. The machine may be the cause, so nothing of this is stored."""
    service = start_service()
    user, tries = service.user(), list[str]()

    async def crashing(gallery: Gallery) -> None:
        decode, clock = gallery.thumbnailer.picture, gallery.clock

        async def crash(fd: int, kind: str, **_: Any) -> Any:
            tries.append(kind)
            raise DecoderFailed("crash")

        gallery.thumbnailer.picture = crash  # type: ignore[method-assign]
        link = (await _upload(gallery, user, samples.picture("png", 60, 50))).link
        for number in range(2, 6):
            assert (await gallery.files.find(link.slot_id, "thumb_photo.webp")).placeholder
            assert len(tries) == min(number, 3)
        gallery.thumbnailer.picture = decode  # type: ignore[method-assign]
        assert (await gallery.files.find(link.slot_id, "thumb_photo.webp")).placeholder
        gallery.files.clock = lambda: clock() + SPARED
        assert (await gallery.files.find(link.slot_id, "thumb_photo.webp")).data

    service.within(crashing)
    assert_shown(user, user.items()[0]["thumbnail"])


def test_an_avatar_is_not_refused_for_a_fault_of_the_machine(start_service: Callable[..., Service]) -> None:
    service = start_service()
    user, data = service.user(), samples.picture("png", 60, 50)

    async def crashing(gallery: Gallery) -> None:
        decode = gallery.thumbnailer.avatar

        async def crash(fd: int, **_: Any) -> Any:
            raise DecoderFailed("crash")

        gallery.thumbnailer.avatar = crash  # type: ignore[method-assign]
        with pytest.raises(Unavailable):
            await _upload(gallery, user, data, context="avatar")
        gallery.thumbnailer.avatar = decode  # type: ignore[method-assign]
        await _upload(gallery, user, data, context="avatar")

    service.within(crashing)
    assert len(user.items("avatar/")) == 1


@pytest.mark.parametrize("job", ["picture", "avatar_thumbnails"])
def test_a_deletion_while_decoding_leaves_no_thumbnail(start_service: Callable[..., Service], job: str) -> None:
    service = start_service()
    user, data = service.user(), samples.picture("png", 60, 50)
    before = service.stored("blobs", "thumbs", "staging")

    async def race(gallery: Gallery) -> None:
        decode = getattr(gallery.thumbnailer, job)

        async def late(*args: Any, **owner: Any) -> Any:
            seen = await decode(*args, **owner)
            user.delete("files/", size_gte=0, contexts="file,avatar")
            return seen

        setattr(gallery.thumbnailer, job, late)
        link = (await _upload(gallery, user, data, context="file" if job == "picture" else "avatar")).link
        if job == "avatar_thumbnails":
            gallery.store.thumbnail = _nothing  # type: ignore[method-assign]
            await gallery.files.find(link.slot_id, "32_photo.png")

    service.within(race)
    assert user.used() == 0
    assert service.stored("blobs", "thumbs", "staging") == before


async def _nothing(*_: Any, **__: Any) -> Any: ...
