"""Queries on secrets that the service makes for itself and shares among its hosts."""

from __future__ import annotations

from media_gallery.db import Connection


async def find_secret(c: Connection, name: str) -> str | None:
    row = await c.one("SELECT value FROM secrets WHERE name = $1", name)
    return str(row[0]) if row else None


async def keep_secret(c: Connection, name: str, value: str) -> str:
    """The secret of this name: `value`, unless another host has stored one first."""
    await c.run("INSERT INTO secrets (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING", name, value)
    return await find_secret(c, name) or value
