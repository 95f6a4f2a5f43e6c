"""Opens the archive for who only reads what happened: one that cannot be read is told, and Redis still has the last of it."""

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager

from sqlalchemy.exc import SQLAlchemyError

from config.archive import archive_schema
from config.archive.database import ArchiveDatabase, describe_failure
from config.settings.config_errors import ConfigError
from workers.archiving.deployment_pairing import is_of_another_deployment
from workers.store import event_stream
from workers.store.deployment import Deployment

READER_TIMEOUT_S = 10.0
"""How long one waits for a database that does not answer, or for a lock."""


@contextmanager
def open_readable_archive(deployment: Deployment) -> Iterator[tuple[ArchiveDatabase | None, str]]:
    """The archive, or None and why it cannot be read; None and nothing if there never was any."""
    with ExitStack() as stack:
        try:
            archive = stack.enter_context(
                closing(ArchiveDatabase(deployment.settings.archive_url, READER_TIMEOUT_S))
            )
            found = _readable_archive(deployment, archive)
        except ConfigError as e:
            found = None, "; ".join(e.problems)
        except SQLAlchemyError as e:
            found = None, describe_failure(e)
        yield found


def _readable_archive(deployment: Deployment, archive: ArchiveDatabase) -> tuple[ArchiveDatabase | None, str]:
    """Raises ConfigError if the archive is of an older release, and SQLAlchemyError."""
    if archive_schema.has_schema(archive):
        archive_schema.require_schema(archive)
        with archive.reading() as connection:
            if is_of_another_deployment(deployment.lanes, connection):
                return None, "it is of another deployment"
        return archive, ""
    seen = event_stream.is_archived(deployment.lanes, deployment.settings.shards)
    return None, "it is not here, though it has been seen" if seen else ""
