"""Every refusal of the service, with its status and its sentence over HTTP (wire contract, "Errors") and its error over
XMPP (RFC 6120, section 8.3).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

_NUMBERS = {
    "max_file_size": {"en": "at most {}", "ru": "не больше {}"},
    "quota": {"en": "quota {}", "ru": "квота {}"},
    "used": {"en": "used {}", "ru": "занято {}"},
    "required": {"en": "required {}", "ru": "требуется {}"},
}
_UNITS = {"en": ("bytes", "KiB", "MiB", "GiB", "TiB"), "ru": ("Б", "КиБ", "МиБ", "ГиБ", "ТиБ")}


class GalleryError(Exception):
    """A refusal that a person can be told about.

    `status` is the HTTP status; `error_type` and `condition` are those of an XMPP stanza error (RFC 6120, 8.3.2 and
    8.3.3). `fields` names what was wrong, `details` holds the numbers that decided, sizes in bytes, `headers` belong to
    the answer over HTTP, `retry_after` is in seconds. `russian` is the sentence in Russian.
    """

    status: ClassVar[int] = 500
    error_type: ClassVar[str] = "wait"
    condition: ClassVar[str] = "internal-server-error"
    sentence: ClassVar[str] = "Something went wrong on the server"
    russian: ClassVar[str] = "На сервере что-то пошло не так"

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
        """The error body of the contract. Details are an object of their own, since web clients take an answer with
        `quota` beside `status` for a success.
        """
        answer: dict[str, Any] = {"status": self.status, "error": str(self)}
        if self.fields:
            answer["fields"] = self.fields
        if self.details:
            answer["details"] = self.details
        return answer

    def told(self, language: str) -> str:
        """For a person, in English or in Russian ("ru"): the sentence, and the numbers that decided."""
        language = language if language in _UNITS else "en"
        sizes = {name: value for name, value in self.details.items() if name in _NUMBERS}
        sentence = self.russian if language == "ru" else str(self)
        told = (_NUMBERS[name][language].format(_size(value, language)) for name, value in sizes.items())
        numbers = ", ".join(told)
        return f"{sentence}: {numbers}" if numbers else sentence


def _size(size: int, language: str) -> str:
    """Bytes in a unit that a person reads, with one decimal."""
    units = _UNITS[language]
    power = min(max(0, (size.bit_length() - 1) // 10), len(units) - 1)
    number = f"{size / 1024**power:.1f}".removesuffix(".0")
    return f"{number.replace('.', ',') if language == 'ru' else number} {units[power]}"


class BadRequest(GalleryError):
    status = 400
    error_type = "modify"
    condition = "bad-request"
    sentence = "The request is malformed"
    russian = "Запрос составлен неверно"


class Unauthorized(GalleryError):
    status = 401
    error_type = "auth"
    condition = "not-authorized"
    sentence = "A valid token is required"
    russian = "Нужен действительный токен"


class LimitReached(GalleryError):
    """For ejabberd, which asks for slots over HTTP, and tells its users of a limit by this status alone."""

    status = 402
    error_type = "wait"
    condition = "resource-constraint"
    sentence = "A limit is reached"
    russian = "Достигнут предел"


class Forbidden(GalleryError):
    status = 403
    error_type = "auth"
    condition = "forbidden"
    sentence = "Not allowed"
    russian = "Не разрешено"


class QuotaExceeded(Forbidden):
    error_type = "wait"
    condition = "resource-constraint"
    sentence = "Quota exceeded"
    russian = "Квота исчерпана"


class TooManyFiles(Forbidden):
    error_type = "wait"
    condition = "resource-constraint"
    sentence = "The account has as many files as it may have"
    russian = "У учётной записи столько файлов, сколько разрешено"


class NotFound(GalleryError):
    status = 404
    error_type = "cancel"
    condition = "item-not-found"
    sentence = "Not found"
    russian = "Не найдено"


class MethodNotAllowed(GalleryError):
    status = 405
    error_type = "cancel"
    condition = "not-allowed"
    sentence = "This method is not allowed here"
    russian = "Этот метод здесь не разрешён"


class ClientTimeout(GalleryError):
    status = 408
    error_type = "wait"
    condition = "remote-server-timeout"
    sentence = "The client stopped sending"
    russian = "Клиент перестал отправлять"


class Conflict(GalleryError):
    status = 409
    error_type = "cancel"
    condition = "conflict"
    sentence = "This file has been uploaded already"
    russian = "Этот файл уже загружен"


class LengthRequired(GalleryError):
    status = 411
    error_type = "modify"
    condition = "bad-request"
    sentence = "The upload must tell its length"
    russian = "Нужно указать длину"


class TooLarge(GalleryError):
    status = 413
    error_type = "modify"
    condition = "not-acceptable"
    sentence = "The file is too large"
    russian = "Файл слишком велик"


class UnsupportedMedia(GalleryError):
    status = 415
    error_type = "modify"
    condition = "not-acceptable"
    sentence = "This is not an image that can be decoded"
    russian = "Это не изображение, которое можно прочитать"


class RangeNotSatisfiable(GalleryError):
    status = 416
    error_type = "modify"
    condition = "bad-request"
    sentence = "The range is outside the file"
    russian = "Диапазон за пределами файла"


class TooManyRequests(GalleryError):
    status = 429
    error_type = "wait"
    condition = "resource-constraint"
    sentence = "Too many requests"
    russian = "Слишком много запросов"


class Unavailable(GalleryError):
    status = 503
    error_type = "wait"
    condition = "internal-server-error"
    sentence = "The service is not available right now"
    russian = "Служба сейчас недоступна"

    def __init__(self, sentence: str | None = None, *, retry_after: int | None = 10) -> None:
        super().__init__(sentence, retry_after=retry_after)


class InDoubt(Unavailable):
    """The connection broke during a commit: nobody knows whether the transaction has happened."""


class NoSpace(GalleryError):
    status = 507
    error_type = "wait"
    condition = "resource-constraint"
    sentence = "No space is left on the storage"
    russian = "В хранилище не осталось места"
