"""A row of the route table."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import msgspec

from media_gallery.http.request import Call

Need = Literal["nothing", "token", "admin", "token or code"]
"""Who may make a call. `token or code`: a token is checked as usual; without one, the handler checks a code."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One call of the API.

    `needs`: who may make it, which is checked before the handler runs; `strict`: unknown parameters are refused;
    `form`: the fields of an upload's body.
    """

    method: str
    path: str
    handler: Callable[[Call, Any], Awaitable[Any]]
    params: type[msgspec.Struct]
    answers: dict[int, Any]
    refusals: tuple[int, ...] = ()
    needs: Need = "token"
    strict: bool = False
    form: type[msgspec.Struct] | None = None

    def __post_init__(self) -> None:
        if self.needs not in get_args(Need):  # an unknown need would not be checked
            raise ValueError(self.needs)
