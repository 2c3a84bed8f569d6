"""A simple model of the filters of the wire contract, over file objects."""

from __future__ import annotations

from datetime import datetime
from typing import Any


def category(item: dict[str, Any]) -> str:
    if item["context"] in ("voice", "avatar"):
        return str(item["context"])
    kind = item["media_type"].partition("/")[0]
    return kind if kind in ("image", "video") else "file"


def model(items: list[dict[str, Any]], wanted: dict[str, Any]) -> list[int]:
    """The ids of the items that pass the filters."""
    contexts = wanted.get("contexts", [])

    def passes(item: dict[str, Any]) -> bool:
        kind, pattern = wanted.get("type"), str(wanted.get("media_type", "")).lower()
        kinds = (None, category(item), "audio" if item["media_type"].startswith("audio/") else None)
        moment = datetime.fromisoformat(item["created_at"])
        return (
            (not item["is_avatar"] or kind == "avatar" or "avatar" in contexts)
            and (not contexts or item["context"] in contexts)
            and kind in kinds
            and (not wanted.get("id") or item["id"] in wanted["id"])
            and all(piece in item["media_type"] for piece in pattern.split("*"))
            and wanted.get("size_gte", 0) <= item["size"] <= wanted.get("size_lte", 10**9)
            and wanted.get("name", "").casefold() in item["name"].casefold()
            and (not wanted.get("date_gte") or moment >= datetime.fromisoformat(wanted["date_gte"]))
            and (not wanted.get("date_lte") or moment <= datetime.fromisoformat(wanted["date_lte"]))
        )  # fmt: skip

    return sorted(item["id"] for item in items if passes(item))
