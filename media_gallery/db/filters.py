"""What a filter means in SQL, and what can be known of its result before the query runs."""

from __future__ import annotations

from typing import Any

from media_gallery.db import Connection
from media_gallery.models import CATEGORIES, AccountId, Category, Context, Filter, Usage, Window
from media_gallery.names import folded

_CONTEXT_CATEGORIES: dict[Context, tuple[Category, ...]] = {
    "file": ("image", "video", "file"),
    "voice": ("voice",),
    "avatar": ("avatar",),
}


def like(text: str) -> str:
    """A text as part of a pattern of LIKE, in which `\\` is the escape character."""
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


def conditions(c: Connection, account: AccountId, wanted: Filter, order: str = "created_at") -> tuple[str, list[Any]]:
    """The conditions of a filter for a list in this order, and their arguments from `$1` on."""
    terms, args = ["l.account_id = $1"], [account]  # type: list[str], list[Any]

    def term(sql: str, value: Any) -> None:
        args.append(value)
        terms.append(sql.replace("?", f"${len(args)}"))

    categories = categories_of(wanted)
    if len(categories) == 1 and order == "created_at":
        terms.append(f"l.category = '{categories[0]}'")
    else:  # no index searches for `<>`, so rows come by the order's index, which has the category, too
        terms += [f"l.category <> '{category}'" for category in CATEGORIES if category not in categories]
    if wanted.ids:
        args.append(list(wanted.ids))
        terms.append(f"l.id {c.among(f'${len(args)}')}")
    if wanted.slot_id is not None:
        term("l.slot_id = ?", wanted.slot_id)
    if wanted.type == "audio":
        terms.append("l.media_type LIKE 'audio/%'")
    if wanted.media_type is not None:
        term("l.media_type LIKE ? ESCAPE '\\'", f"%{like(wanted.media_type.lower()).replace('*', '%')}%")
    if wanted.since is not None:
        term("l.created_at >= ?", wanted.since)
    if wanted.until is not None:
        term("l.created_at <= ?", wanted.until)
    if wanted.size_gte is not None:
        term("l.size >= ?", wanted.size_gte)
    if wanted.size_lte is not None:
        term("l.size <= ?", wanted.size_lte)
    if wanted.oldest_to is not None:
        args += wanted.oldest_to
        time, link = f"${len(args) - 1}", f"${len(args)}"
        terms.append(f"(l.created_at < {time} OR l.created_at = {time} AND l.id <= {link})")
    if wanted.name is not None:
        term("l.folded LIKE ? ESCAPE '\\'", f"%{like(folded(wanted.name))}%")
    return " AND ".join(terms), args


def categories_of(wanted: Filter) -> tuple[Category, ...]:
    """The categories that a filter matches; a context has one or several."""
    named = {c for context in wanted.contexts for c in _CONTEXT_CATEGORIES[context]} or {*CATEGORIES}
    only = None if wanted.type == "audio" else wanted.type
    return tuple(c for c in CATEGORIES if c in named and only in (None, c) and (wanted.with_avatars or c != "avatar"))


def counted(wanted: Filter) -> bool:
    """Whether a filter selects by category alone, so that the stored counts answer it."""
    alone = Filter(type=wanted.type, contexts=wanted.contexts, with_avatars=wanted.with_avatars)
    return wanted == alone and wanted.type != "audio"


def passed_over(usage: Usage, wanted: Filter, window: Window) -> int:
    """How many links a list passes over up to its window's end, at most, if its filter is `counted`."""
    categories = categories_of(wanted)
    if len(categories) == 1 and window.order == "created_at":
        return window.end
    return window.end + sum(count for category, count in usage.files.items() if category not in categories)
