"""Bring a database's schema up to date, with Alembic."""

from __future__ import annotations

import fcntl
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, create_engine

from media_gallery.errors import Unavailable
from media_gallery.settings import Settings

_SCRIPTS = Path(__file__).parent / "migrations"


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
    return config


def _engine(settings: Settings) -> Engine:
    return create_engine(f"sqlite:///{settings.database_path}")


def upgrade(settings: Settings) -> tuple[str | None, str | None]:
    """Migrate to the newest schema; the revisions before and after. Two processes at once take turns.

    Raises Unavailable where a newer version of the service has been at the database.
    """
    settings.database_path.parent.mkdir(parents=True, exist_ok=True)
    lock = settings.database_path.with_name(settings.database_path.name + ".migrate")
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        engine = _engine(settings)
        try:
            with engine.begin() as connection:
                before = MigrationContext.configure(connection).get_current_revision()
                config = _config()
                known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
                if before is not None and before not in known:
                    raise Unavailable(f"The database has schema {before}, which a newer version made")
                config.attributes["connection"] = connection
                command.upgrade(config, "head")
                return before, MigrationContext.configure(connection).get_current_revision()
        finally:
            engine.dispose()


def current(settings: Settings) -> str | None:
    """The revision the database has."""
    engine = _engine(settings)
    try:
        with engine.connect() as connection:
            return MigrationContext.configure(connection).get_current_revision()
    finally:
        engine.dispose()


def newest() -> str | None:
    """The revision this version of the service needs."""
    return ScriptDirectory.from_config(_config()).get_current_head()
