"""Every refusal the service gives, each with the status and the sentence a client sees (wire contract, "Errors")."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar


class GalleryError(Exception):
    """A refusal that a person can be told about.

    `status` is the HTTP status, `condition` the XMPP stanza error condition (RFC 6120, 8.3.3) for a
    transport that answers over XMPP. `fields` names what was wrong, `details` tells the numbers that decided,
    `headers` belong to the answer over HTTP, `retry_after` is in seconds.
    """

    status: ClassVar[int] = 500
    condition: ClassVar[str] = "internal-server-error"
    sentence: ClassVar[str] = "Something went wrong on the server"

    def __init__(
        self,
        sentence: str | None = None,
        *,
        fields: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        retry_after: int | None = None,
        **details: int,
    ) -> None:
        super().__init__(sentence or self.sentence)
        self.fields = dict(fields or {})
        self.headers = dict(headers or {})
        self.retry_after = retry_after
        self.details = details

    def body(self) -> dict[str, Any]:
        """The error body of the contract. Details have an object of their own: a `quota` beside `status` would be a yes
        for web clients.
        """
        answer: dict[str, Any] = {"status": self.status, "error": str(self)}
        if self.fields:
            answer["fields"] = self.fields
        if self.details:
            answer["details"] = self.details
        return answer


class BadRequest(GalleryError):
    status = 400
    condition = "bad-request"
    sentence = "The request is malformed"


class Unauthorized(GalleryError):
    status = 401
    condition = "not-authorized"
    sentence = "A valid token is required"


class Forbidden(GalleryError):
    status = 403
    condition = "forbidden"
    sentence = "Not allowed"


class QuotaExceeded(Forbidden):
    condition = "resource-constraint"
    sentence = "Quota exceeded"


class TooManyFiles(Forbidden):
    condition = "resource-constraint"
    sentence = "The account has as many files as it may have"


class NotFound(GalleryError):
    status = 404
    condition = "item-not-found"
    sentence = "Not found"


class MethodNotAllowed(GalleryError):
    status = 405
    condition = "not-allowed"
    sentence = "This method is not allowed here"


class ClientTimeout(GalleryError):
    status = 408
    condition = "remote-server-timeout"
    sentence = "The client stopped sending"


class Conflict(GalleryError):
    status = 409
    condition = "conflict"
    sentence = "This file has been uploaded already"


class TooLarge(GalleryError):
    status = 413
    condition = "not-acceptable"
    sentence = "The file is too large"


class UnsupportedMedia(GalleryError):
    status = 415
    condition = "not-acceptable"
    sentence = "This is not an image that can be decoded"


class RangeNotSatisfiable(GalleryError):
    status = 416
    condition = "bad-request"
    sentence = "The range is outside the file"


class TooManyRequests(GalleryError):
    status = 429
    condition = "resource-constraint"
    sentence = "Too many requests"


class Unavailable(GalleryError):
    status = 503
    condition = "service-unavailable"
    sentence = "The service is not available right now"

    def __init__(self, sentence: str | None = None, *, retry_after: int | None = 10) -> None:
        super().__init__(sentence, retry_after=retry_after)


class InDoubt(Unavailable):
    """The same, where a connection broke while it was to commit: nobody knows whether what was asked has happened."""


class NoSpace(GalleryError):
    status = 507
    condition = "resource-constraint"
    sentence = "No space is left on the storage"
