"""Opens the archive for a command that shows people's answers: told in the audit first, and as of one moment."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click
import redis
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from config.archive.archive_schema import require_schema
from config.archive.database import ArchiveDatabase
from config.archive.surveys_kept import survey_names
from config.settings.settings import Settings, exit_on_config_error
from config.store.audit import record_operator
from engine.model.suggestions import expected_instead
from workers.store.deployment import Deployment


@contextmanager
def open_archive(settings: Settings) -> Iterator[ArchiveDatabase]:
    """The archive, whose schema this release knows. Ends the command with a sentence if it cannot be read."""
    with exit_on_config_error(), _explain_failures():
        database = ArchiveDatabase(settings.archive_url)
        try:
            require_schema(database)
            yield database
        finally:
            database.close()


@contextmanager
def _explain_failures() -> Iterator[None]:
    try:
        yield
    except DBAPIError as e:
        raise click.ClickException(
            f"the archive cannot be read ({type(e.orig).__name__}): look at PARLEY_ARCHIVE_URL, and whether "
            "its database is up"
        ) from e


def require_survey(connection: Connection, settings: Settings, survey: str) -> None:
    """End the command with a sentence if neither the archive nor a channel knows the survey."""
    known = sorted({*survey_names(connection), *settings.offered_surveys})
    if survey not in known:
        raise click.ClickException(f"no survey is called {survey!r}{expected_instead(survey, known)}")


def record_reading(deployment: Deployment, action: str, survey: str, **detail: Any) -> None:
    """Tell the audit what is going to be read; if Redis does not take it, end the command, so that nothing is."""
    try:
        record_operator(deployment.lanes, action, survey, **detail)
    except redis.exceptions.NoPermissionError:
        raise  # config/cli.py says which right is missing
    except redis.RedisError as e:
        raise click.ClickException(
            f"Redis does not take the audit's entry ({type(e).__name__}), "
            "and nobody's answers are read without it"
        ) from e
