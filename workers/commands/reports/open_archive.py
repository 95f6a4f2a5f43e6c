"""Opens the archive for a command that reads history. One that cannot be read is told, and the command goes on with what
Redis still has."""

from collections.abc import Iterator
from contextlib import contextmanager

import click
from sqlalchemy.exc import SQLAlchemyError

from config.archive.database import ArchiveDatabase, describe_failure
from workers.history.joined_history import HistoryReader
from workers.history.readable_archive import open_readable_archive
from workers.store.deployment import Deployment


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
    with open_readable_archive(deployment) as (found, why):
        if why:
            click.echo(f"the archive cannot be read: {why}. What follows is what Redis still has.", err=True)
        yield found
