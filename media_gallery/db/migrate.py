"""Brings a database's schema up to date, with Alembic. It is loaded only if there is something to do, since loading it
takes as long as loading all the rest of the service.
"""

from __future__ import annotations

import asyncio
import fcntl
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from media_gallery.db.sqlite import Reserve
from media_gallery.errors import Unavailable
from media_gallery.settings import Settings

if TYPE_CHECKING:
    from alembic.config import Config
    from sqlalchemy import Connection

T = TypeVar("T")
_SCRIPTS = Path(__file__).parent / "migrations"
_LOCK = 0x6D656469616761  # "mediaga", an advisory lock of PostgreSQL


def _config() -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
    return config


def _connected(settings: Settings, work: Callable[[Connection], T]) -> T:
    """Do `work` in one transaction. Raises Unavailable."""
    from sqlalchemy import create_engine
    from sqlalchemy.exc import SQLAlchemyError
    from sqlalchemy.pool import NullPool

    try:
        if settings.database_url.startswith("postgresql"):
            return asyncio.run(_over_network(settings.database_url, work))
        # Without Python's own transactions, which do not cover statements that define tables: `_upgrade` begins one.
        plain = {"isolation_level": None}
        engine = create_engine(f"sqlite:///{settings.database_path}", poolclass=NullPool, connect_args=plain)
        with engine.begin() as connection:
            return work(connection)
    except (SQLAlchemyError, OSError) as error:
        reason = getattr(error, "orig", None) or error
        raise Unavailable(f"The database cannot be reached: {reason}") from error


async def _over_network(url: str, work: Callable[[Connection], T]) -> T:
    import asyncpg
    from sqlalchemy.ext.asyncio import create_async_engine
    from sqlalchemy.pool import NullPool

    async def connect() -> asyncpg.Connection:  # by asyncpg, which reads hosts and options as the service does
        return await asyncpg.connect(url)

    engine = create_async_engine("postgresql+asyncpg://", async_creator=connect, poolclass=NullPool)
    try:
        async with engine.begin() as connection:
            return await connection.run_sync(work)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, ValueError) as error:
        raise Unavailable(f"The database cannot be reached: {error}") from error


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Let one process at a time work on a database file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(path.name + ".migrate").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield


def _upgrade(connection: Connection) -> tuple[str | None, str | None]:
    from alembic import command
    from alembic.runtime.migration import MigrationContext
    from sqlalchemy import text

    if connection.dialect.name == "postgresql":
        connection.execute(text(f"SELECT pg_advisory_xact_lock({_LOCK})"))
    before = MigrationContext.configure(connection).get_current_revision()
    if before == newest():
        return before, before
    if before is not None and before not in revisions():
        raise Unavailable(f"The database has schema {before}, which a newer version made")
    if connection.dialect.name == "sqlite":
        connection.execute(text("BEGIN IMMEDIATE"))
    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
    return before, newest()


def upgrade(settings: Settings) -> tuple[str | None, str | None]:
    """Migrate to the newest schema; the revisions before and after. Two processes at once take turns.

    Raises Unavailable if the database cannot be reached, or a newer version of the service has migrated it.
    """
    if (there := current(settings)) == newest():
        return there, there
    if settings.database_url.startswith("postgresql"):
        return _connected(settings, _upgrade)
    with _alone(settings.database_path):
        return _connected(settings, _upgrade)


def current(settings: Settings) -> str | None:
    """The revision of the database; None if it has none yet. Raises Unavailable."""
    if settings.database_url.startswith("postgresql"):
        return asyncio.run(_current_over_network(settings.database_url))
    path = settings.database_path
    if not path.exists():
        return None
    Reserve(path).give_up_if_needed()  # before the database is opened, here as elsewhere
    try:
        with closing(sqlite3.connect(path)) as connection:
            made = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").fetchone()
            row = connection.execute("SELECT version_num FROM alembic_version").fetchone() if made else None
    except sqlite3.Error as error:
        raise Unavailable(f"The database cannot be reached: {error}") from error
    return row and str(row[0])


async def _current_over_network(url: str) -> str | None:
    import asyncpg

    try:
        connection = await asyncpg.connect(url)
        try:
            made = await connection.fetchval("SELECT to_regclass('alembic_version')")
            row = await connection.fetchrow("SELECT version_num FROM alembic_version") if made else None
        finally:
            await connection.close()
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, ValueError) as error:
        raise Unavailable(f"The database cannot be reached: {error}") from error
    return row and str(row[0])


def revisions() -> list[str]:
    """All revisions in order: the names of the migrations begin with them."""
    return sorted(path.name.partition("_")[0] for path in (_SCRIPTS / "versions").glob("[0-9]*.py"))


def newest() -> str:
    """The revision that this version of the service needs."""
    return revisions()[-1]
