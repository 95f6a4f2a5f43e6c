"""Which schema has the archive? Alembic's migrations stand in migrations/versions/, and only add.

`archive` migrates what it finds; whoever else opens an archive requires the schema that it knows, or a newer one, since
nothing is ever changed or removed.
"""

from functools import cache
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from config.archive.database import ArchiveDatabase
from config.settings.config_errors import ConfigError

_MIGRATIONS = Path(__file__).parent / "migrations"

_MIGRATION_LOCK = 7_275_391
"""PostgreSQL's advisory lock of whoever migrates."""


def alembic_config(connection: Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    config.attributes["connection"] = connection
    return config


def migrate(database: ArchiveDatabase) -> None:
    """Bring the archive to the schema of this release; two processes at once do it once."""
    with database.writing() as connection:
        if not database.is_sqlite:
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _MIGRATION_LOCK})
        known = _known_schemas()
        if len(known) > 1 and stored_schema(connection) in known[:-1]:
            command.upgrade(alembic_config(connection), "head")


def require_schema(database: ArchiveDatabase) -> None:
    """Raise ConfigError if the archive's schema is older than this release's, or there is none."""
    with database.reading() as connection:
        stored = stored_schema(connection)
    *older, newest = _known_schemas()
    if stored in older:
        todo = "start the process `archive` of this release, which brings it there"
        raise ConfigError(
            [f"the archive has the schema {stored or 'of nothing yet'}, this release needs {newest}: {todo}"]
        )


def has_schema(database: ArchiveDatabase) -> bool:
    """Whether there are tables, of whatever release: else nothing was ever archived here."""
    if database.is_missing:
        return False
    with database.reading() as connection:
        return bool(stored_schema(connection))


def stored_schema(connection: Connection) -> str:
    """The schema's number; empty if there is none."""
    return MigrationContext.configure(connection).get_current_revision() or ""


@cache
def _known_schemas() -> tuple[str, ...]:
    """Those that this release knows, oldest first, beginning with none."""
    script = ScriptDirectory.from_config(alembic_config())
    return ("", *reversed([each.revision for each in script.walk_revisions()]))
