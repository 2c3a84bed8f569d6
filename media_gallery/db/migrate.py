"""Bring a database's schema up to date, with Alembic, which is loaded when it is needed: the web workers do without."""

from __future__ import annotations

import asyncio
import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

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
        # Without Python's own transactions, which leave out what defines tables: `_upgrade` begins one for all of it.
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
    except (asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise Unavailable(f"The database cannot be reached: {error}") from error


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """One process at a time at a database file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(path.name + ".migrate").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield


def _revision(connection: Connection) -> str | None:
    from alembic.runtime.migration import MigrationContext

    return MigrationContext.configure(connection).get_current_revision()


def _upgrade(connection: Connection) -> tuple[str | None, str | None]:
    from alembic import command
    from alembic.script import ScriptDirectory
    from sqlalchemy import text

    if connection.dialect.name == "postgresql":
        connection.execute(text(f"SELECT pg_advisory_xact_lock({_LOCK})"))
    before = _revision(connection)
    config = _config()
    if before == newest():
        return before, before
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if before is not None and before not in known:
        raise Unavailable(f"The database has schema {before}, which a newer version made")
    if connection.dialect.name == "sqlite":
        connection.execute(text("BEGIN IMMEDIATE"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
    return before, _revision(connection)


def upgrade(settings: Settings) -> tuple[str | None, str | None]:
    """Migrate to the newest schema; the revisions before and after. Two processes at once take turns.

    Raises Unavailable where the database cannot be reached, or a newer version of the service has been at it.
    """
    if settings.database_url.startswith("postgresql"):
        return _connected(settings, _upgrade)
    with _alone(settings.database_path):
        return _connected(settings, _upgrade)


def current(settings: Settings) -> str | None:
    """The revision the database has; None where there is none yet. Raises Unavailable."""
    if not settings.database_url.startswith("postgresql") and not settings.database_path.exists():
        return None
    return _connected(settings, _revision)


def newest() -> str | None:
    """The revision this version of the service needs."""
    from alembic.script import ScriptDirectory

    return ScriptDirectory.from_config(_config()).get_current_head()
