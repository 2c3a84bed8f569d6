"""What a client says of a file, and what of it is believed."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import Any

from media_gallery import media_types
from media_gallery.errors import BadRequest
from media_gallery.models import Context, Digest, NewLink
from media_gallery.storage import Staged


@dataclass(frozen=True, slots=True)
class Offer:
    """What a client says about a file. `part_type` is the type that the transport tells; `media_type` is preferred.

    `slot_id`: the slot, if one was given out for the file before. `unchanged`: an avatar, too, is kept as it came.
    `expires_at`: when the file is to be gone, in microseconds since 1970.
    """

    name: str = "_"
    size: int | None = None
    digest: Digest | None = None
    media_type: str | None = None
    part_type: str | None = None
    context: Context | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    thumbnails: bool = True
    slot_id: str = ""
    unchanged: bool = False
    expires_at: int | None = None

    @property
    def says_type(self) -> bool:
        """Whether the client said anything useful about the media type."""
        return any(media_types.parse(said)[0] for said in (self.media_type, self.part_type) if said)

    @property
    def believed_context(self) -> Context | None:
        """The context, as far as it was said: a type with `+voice` means a voice message, unless it is an avatar."""
        voice = any(media_types.parse(said)[1] for said in (self.media_type, self.part_type) if said)
        return "voice" if voice and self.context != "avatar" else self.context

    def check(self, staged: Staged) -> None:
        """Raise BadRequest if the bytes are not those that were announced (contract, status 400)."""
        if self.size is not None and self.size != staged.size:
            raise BadRequest("The size does not match", fields={"size": f"{staged.size} bytes were received"})
        known, said = {"sha-1": staged.sha1, "sha-256": staged.sha256}, self.digest
        if said and known.get(said.algorithm, said.value) != said.value:
            raise BadRequest("The digest does not match", fields={"hash": f"the {said.algorithm} is another one"})

    def link(self, media_type: str, context: Context) -> NewLink:
        """The link that the file gets, with this type and context."""
        slot_id = self.slot_id or new_slot_id()
        return NewLink(
            slot_id, self.name, media_type, context, self.metadata, self.thumbnails, expires_at=self.expires_at
        )


def new_slot_id() -> str:
    """The name of a new link's directory. It cannot be guessed: it has 128 random bits (contract, file object)."""
    return secrets.token_hex(16)


def decide_type(offer: Offer, head: bytes) -> tuple[str, Context]:
    """Media type and context of a link: what the client says; if that says nothing, what content and name show."""
    media_type = media_types.decide((offer.media_type, offer.part_type), offer.name, head)
    if offer.unchanged and offer.context == "avatar" and not media_type.startswith("image/"):
        return media_type, "file"
    # COMPAT: iOS marks its voice messages by their loudness alone
    recorded = offer.context != "avatar" and media_type.startswith("audio/") and "meters" in offer.metadata
    return media_type, "voice" if recorded else offer.believed_context or "file"
