"""Opens the archive for a command that reads history. One that cannot be read is told, and the command goes on with what
Redis still has."""

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager

import click
from sqlalchemy.exc import SQLAlchemyError

from config.archive import archive_schema
from config.archive.database import ArchiveDatabase, describe_failure
from config.settings.config_errors import ConfigError
from workers.archiving.deployment_pairing import is_of_another_deployment
from workers.archiving.joined_history import HistoryReader
from workers.store import event_stream
from workers.store.deployment import Deployment

COMMAND_TIMEOUT_S = 10.0
"""How long a command waits for a database that does not answer, or for a lock."""


@contextmanager
def open_history(deployment: Deployment) -> Iterator[HistoryReader]:
    """The history of the deployment's lanes, as far as it can be read. Ends the command with a sentence if the archive fails
    meanwhile."""
    with open_archive_or_warn(deployment) as archive:
        try:
            yield HistoryReader(deployment.lanes, archive)
        except SQLAlchemyError as e:
            raise click.ClickException(f"the archive failed: {describe_failure(e)}") from e


@contextmanager
def open_archive_or_warn(deployment: Deployment) -> Iterator[ArchiveDatabase | None]:
    """The archive; None if there is none, or it cannot be read, which is said on stderr."""
    with ExitStack() as stack:
        try:
            archive = stack.enter_context(
                closing(ArchiveDatabase(deployment.settings.archive_url, COMMAND_TIMEOUT_S))
            )
            found, why = _readable_archive(deployment, archive)
        except ConfigError as e:
            found, why = None, "; ".join(e.problems)
        except SQLAlchemyError as e:
            found, why = None, describe_failure(e)
        if why:
            click.echo(f"the archive cannot be read: {why}. What follows is what Redis still has.", err=True)
        yield found


def _readable_archive(deployment: Deployment, archive: ArchiveDatabase) -> tuple[ArchiveDatabase | None, str]:
    """Return the archive if it can be read, and else why not; nothing if there never was any. Raises ConfigError if it is of an
    older release, and SQLAlchemyError."""
    if archive_schema.has_schema(archive):
        archive_schema.require_schema(archive)
        with archive.reading() as connection:
            if is_of_another_deployment(deployment.lanes, connection):
                return None, "it is of another deployment"
        return archive, ""
    seen = event_stream.is_archived(deployment.lanes, deployment.settings.shards)
    return None, "it is not here, though it has been seen" if seen else ""
