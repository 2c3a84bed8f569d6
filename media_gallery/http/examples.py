"""Examples of requests and answers for the OpenAPI document, made of the structs that the calls themselves use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from media_gallery import __version__
from media_gallery.http import shapes
from media_gallery.names import avatar_thumbnail_name, media_url, thumbnail_name

JID, CODE = "anna@example.org", "123456"
_SHA1 = "2fd4e1c67a2d28fced849ee1bb76e7391b93eb12"
_SHA256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
_MADE, _ENDS = "2026-11-23T10:00:00.123456Z", "2026-12-23T10:00:00.123456Z"
_MIB = 1024**2
_SLOT = "k3V9yB0mTq7Zr1xWc8LhNw"

REQUESTS: dict[str, dict[str, Any]] = {
    "request_code": {"jid": JID, "type": "message"},
    "sign_in": {"jid": JID, "code": CODE, "device": "Telephone", "client": "Chat 1.0"},
    "list_tokens": {"page": 1, "obj_per_page": 50},
    "revoke_token": {"token_id": 7},
    "delete_account": {"jid": JID, "code": CODE},
    "get_quota": {"jid": JID},
    "set_quota": {"jid": JID, "value": 2048 * _MIB},
    "list_accounts": {"vhost": "example.org", "order_by": "-used"},
    "remove_account": {"jid": JID},
    "list_files_of": {"jid": JID, "order_by": "-created_at"},
    "slot": {"name": "sea.jpg", "size": 48_213, "hash": _SHA1, "media_type": "image/jpeg"},
    "upload": {"media_type": "image/jpeg", "context": "file", "metadata": '{"title": "By the sea"}', "size": 48_213},
    "list_files": {"type": "image", "date_gte": "2026-11-01", "order_by": "-created_at"},
    "delete_files": {"id": [4711]},
    "list_percent": {"exclude_avatars": True},
    "delete_percent": {"exclude_avatars": True},
    "stats": {"date_gte": "2026-11-01"},
    "upload_avatar": {"media_type": "image/png", "create_thumbnails": True},
    "list_avatars": {"order_by": "-created_at"},
    "delete_avatar": {"id": 4712},
}
"""Parameters by `operationId`, as they stand in a query, a body or a form."""
PATH = {"percent": 10}
"""What stands in a path."""


def _file(public_url: str) -> shapes.FileObject:
    name = "sea.jpg"
    return shapes.FileObject(
        id=4711,
        slot_id=_SLOT,
        name=name,
        size=48_213,
        media_type="image/jpeg",
        context="file",
        is_avatar=False,
        file=media_url(public_url, _SLOT, name),
        hash=_SHA1,
        hashes=shapes.Hashes(_SHA256, _SHA1),
        created_at=_MADE,
        metadata={"title": "By the sea"},
        thumbnail=shapes.Thumbnail(media_url(public_url, _SLOT, thumbnail_name(name)), 256, 256),
        width=1600,
        height=1200,
    )


def _avatar(public_url: str) -> shapes.FileObject:
    name = "selfie.png"
    small = shapes.Thumbnail(media_url(public_url, _SLOT, avatar_thumbnail_name(48, name, "png")), 48, 48)
    return msgspec.structs.replace(
        _file(public_url),
        id=4712,
        name=name,
        media_type="image/png",
        context="avatar",
        is_avatar=True,
        file=media_url(public_url, _SLOT, name),
        metadata={},
        thumbnail=shapes.Thumbnail(media_url(public_url, _SLOT, thumbnail_name(name)), 256, 256),
        thumbnails=[small],
        width=512,
        height=512,
    )


def _counted(file: shapes.FileObject) -> shapes.FileObject:
    return msgspec.structs.replace(file, quota=1024 * _MIB, used=37 * _MIB)


def _page(item: Any) -> shapes.PageOf[Any]:
    return shapes.PageOf([item], 1, 1, 50, 1)


def _statistics() -> shapes.Statistics:
    images, nothing = shapes.Share(12, 37 * _MIB), shapes.Share(0, 0)
    return shapes.Statistics(images, nothing, nothing, nothing, nothing, images, 1024 * _MIB)


def _service(public_url: str) -> shapes.Service:
    return shapes.Service("media-gallery", __version__, 100 * _MIB, 1024 * _MIB, "600/hour", f"{public_url}/api/docs")


ANSWERS: dict[str, Callable[[str], dict[str, Any]]] = {
    "about": lambda url: {"limits": _service(url)},
    "request_code": lambda url: {"sent": shapes.CodeSent("c0de-5f2a", "gallery.example.org")},
    "sign_in": lambda url: {"token": shapes.TokenIssued("the-token", _ENDS)},
    "list_tokens": lambda url: {
        "page": _page(shapes.TokenInfo(7, "Telephone", "Chat 1.0", _MADE, _ENDS, None, True)),
    },
    "get_account": lambda url: {"account": shapes.OwnAccount(JID, 1024 * _MIB, 37 * _MIB, 12, _MADE, False, False, 7)},
    "get_quota": lambda url: {"quota": shapes.Quota(1024 * _MIB, 37 * _MIB)},
    "set_quota": lambda url: {"quota": shapes.AccountQuota(2048 * _MIB, 37 * _MIB, JID)},
    "list_accounts": lambda url: {"page": _page(shapes.AccountInfo(JID, 1024 * _MIB, 37 * _MIB, 12, _MADE))},
    "list_files_of": lambda url: {"page": _page(_file(url))},
    "state": lambda url: {
        "state": shapes.ServiceState(
            3, 120, 400 * _MIB, 310 * _MIB,
            {"database": None, "storage": None, "rates": None, "xmpp": "There is no connection", "decoders": None},
        ),
    },
    "slot": lambda url: {
        "new": shapes.SlotAnswer(1024 * _MIB, 37 * _MIB, 100 * _MIB),
        "known": _counted(_file(url)),
    },
    "upload": lambda url: {"file": _counted(_file(url))},
    "list_files": lambda url: {"page": _page(_file(url))},
    "list_percent": lambda url: {"page": _page(_file(url))},
    "stats": lambda url: {"statistics": _statistics()},
    "upload_avatar": lambda url: {"avatar": _counted(_avatar(url))},
    "list_avatars": lambda url: {"page": _page(_avatar(url))},
}  # fmt: skip
"""Bodies of successful answers by `operationId`, each with a name; the service's public address goes in."""

_MORE: dict[int, dict[str, Any]] = {
    400: {"error": "Some parameters are wrong", "fields": {"size": "must be an integer"}},
    403: {"error": "Quota exceeded", "details": {"quota": 1024 * _MIB, "used": 1024 * _MIB, "required": 48_213}},
    413: {"details": {"max_file_size": 100 * _MIB}},
}


def refusal(status: int, sentence: str, of_file: bool) -> dict[str, Any]:
    """The body of a refusal; if a file is refused, with the numbers that decided."""
    more = _MORE.get(status, {}) if of_file else {}
    return {"status": status, "error": sentence, **more}
