"""Can the archive be used from here, and for how long does it keep what people said? As `parley check` says it."""

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import sqlalchemy

from config.archive.archive_schema import require_schema
from config.archive.database import ArchiveDatabase, read_archive_url
from config.settings.config_errors import ConfigError
from config.settings.settings import Settings

CONNECT_TIMEOUT_S = 5
"""How long a server may take to answer."""

_DAY_MS = 86_400_000
_LOCAL_HOSTS = ("", "localhost", "127.0.0.1", "::1")


def archive_sentences(settings: Settings) -> Iterator[str]:
    """Yield what is to be said of the archive, warnings after it. Raises ConfigError if it can never be used as it is set."""
    url = read_archive_url(settings.archive_url)
    where = (
        url.database if url.get_backend_name() == "sqlite" else f"PostgreSQL at {url.host or 'this machine'}"
    )
    yield (
        f"archive: {where}; it keeps what people said for {settings.keep_ms // _DAY_MS} days after their "
        "session (PARLEY_KEEP_DAYS, which is yours to decide), or for as long as a survey's `keep` says"
    )
    for warning in _archive_warnings(settings, url):
        yield f"  warning: {warning}"


def _archive_warnings(settings: Settings, url: sqlalchemy.URL) -> Iterator[str]:
    if url.get_backend_name() == "sqlite":
        yield from _file_warnings(settings, Path(url.database or ""))
    yield from _schema_warnings(url)
    if settings.stream_ms > settings.keep_ms:
        yield (
            f"Redis keeps what happened for {settings.stream_ms // _DAY_MS} days (PARLEY_STREAM_DAYS), "
            "longer than the archive: expected no more days than PARLEY_KEEP_DAYS"
        )


def _file_warnings(settings: Settings, file: Path) -> Iterator[str]:
    folder = next(each for each in file.absolute().parents if each.exists())
    unwritable = [each for each in (file, folder) if each.exists() and not os.access(each, os.W_OK)]
    unwritable += [] if folder.is_dir() else [folder]
    if unwritable:
        yield f"{unwritable[0]} cannot be written here, which `archive` must"
    if (urlsplit(settings.redis_url).hostname or "") not in _LOCAL_HOSTS:
        yield (
            "the archive is a file, which processes on other machines do not have, and Redis is on another "
            "machine: expected PostgreSQL in PARLEY_ARCHIVE_URL, unless all that read answers run here"
        )


def _schema_warnings(url: sqlalchemy.URL) -> Iterator[str]:
    """Why nobody can read the archive now, if so. Raises ConfigError if nobody ever can from here."""
    if url.get_backend_name() == "sqlite" and not Path(url.database or "").exists():
        _open_archive(url).close()  # a network's disk is a mistake before there is a file
        return
    with closing(_open_archive(url)) as database:
        try:
            require_schema(database)
        except ConfigError as e:
            yield from e.problems
        except sqlalchemy.exc.SQLAlchemyError as e:
            yield f"the archive cannot be read ({type(e).__name__}), and is not looked at"


def _open_archive(url: sqlalchemy.URL) -> ArchiveDatabase:
    if url.get_backend_name() != "sqlite":
        url = url.update_query_dict({"connect_timeout": str(CONNECT_TIMEOUT_S)})
    return ArchiveDatabase(url.render_as_string(hide_password=False))
