"""`python -m config.archive.migrations "What it adds"`: writes a migration of what config/archive/tables.py has and the last
migration has not, to be read and committed."""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from alembic import command
from alembic.script import ScriptDirectory

from config.archive import archive_schema
from config.archive.database import ArchiveDatabase


def main(message: str) -> None:
    with TemporaryDirectory() as folder:
        database = ArchiveDatabase(f"sqlite:///{Path(folder) / 'archive.db'}")
        archive_schema.migrate(database)
        with database.writing() as connection:
            config = archive_schema.alembic_config(connection)
            number = len(list(ScriptDirectory.from_config(config).walk_revisions())) + 1
            command.revision(config, message, autogenerate=True, rev_id=f"{number:04}")
        database.close()


if __name__ == "__main__":
    main(sys.argv[1])
