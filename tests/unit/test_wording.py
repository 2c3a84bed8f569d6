"""What `fields` tell a person about a wrong parameter."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from media_gallery.errors import BadRequest
from media_gallery.http import parameters
from media_gallery.http.multipart import UploadParams
from media_gallery.http.request import convert


@pytest.mark.parametrize(
    ("kind", "raw", "fields"),
    [
        (parameters.SlotParams, {"name": 5, "size": "big"}, {"name": "must be text", "size": "must be an integer"}),
        (parameters.SlotParams, {"size": -1}, {"name": "is required", "size": "must be 0 or more"}),
        (parameters.SlotParams, {"name": "a", "size": 2**64}, {"size": "must be 9223372036854775807 or less"}),
        (parameters.SlotParams, {"name": "a", "size": "9" * 5000}, {"size": "is malformed"}),
        (parameters.ListParams, {"type": "sms", "page": 0},
         {"type": "must be one of image, video, voice, file, audio, avatar", "page": "must be 1 or more"}),
        (parameters.ListParams, {"contexts": "file,music"}, {"contexts": "must be one of file, voice, avatar"}),
        (parameters.ListParams, {"id": "1,a", "name": "n" * 1025},
         {"id": "must be an integer", "name": "must have 1024 characters at most"}),
        (parameters.PercentParams, {"exclude_avatars": "maybe"}, {"exclude_avatars": "must be true or false"}),
        (parameters.SignIn, {"jid": 5, "code": []}, {"jid": "must be text", "code": "is required"}),
        (parameters.SignIn, {"jid": "a@b", "code": {}}, {"code": "must be an integer or text"}),
        (parameters.QuotaParams, {"value": "much"}, {"value": "must be an integer"}),
        (UploadParams, {"create_thumbnails": 7, "context": 1},
         {"create_thumbnails": "must be true or false", "context": "must be one of file, voice, avatar"}),
    ],
)  # fmt: skip
def test_messages_about_wrong_parameters(
    kind: type[msgspec.Struct], raw: dict[str, Any], fields: dict[str, str]
) -> None:
    with pytest.raises(BadRequest) as refusal:
        convert({name: value if isinstance(value, list) else [value] for name, value in raw.items()}, kind)
    assert refusal.value.fields == fields
