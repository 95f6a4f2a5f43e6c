"""An export on its way to a browser: written by a thread, sent as it is written, and no faster than it is taken.

What fails midway ends the connection, so that no browser takes half a file for a whole one.
"""

import asyncio
import io
import tempfile
from collections.abc import AsyncIterator, Callable
from concurrent.futures import CancelledError as FutureCancelledError
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast

import msgspec
from sqlalchemy import Connection

from config.archive.database import ArchiveDatabase
from config.archive.pseudonyms import read_pseudonyms
from config.archive.result_filters import InvalidFilterError, ResultFilters
from config.archive.surveys_kept import read_surveys
from engine.model.errors import ParleyError
from engine.model.suggestions import expected_instead
from workers.console.console_archive import ArchiveAwayError
from workers.console.results.result_readings import require_filters
from workers.exporting.result_export import ExportChoices, describe_columns, export_table
from workers.history.readable_archive import open_readable_archive
from workers.results.written_filters import WrittenFilters
from workers.store.deployment import Deployment

MOST_EXPORTS = 2
"""At once: each reads the archive all the while."""

CHUNK_BYTES = 65_536
MOST_CHUNKS = 8
LONGEST_STALL_S = 120.0
"""A browser that takes nothing for so long has no more sent."""

LinkFormat = Literal["csv", "jsonl", "xlsx"]

CONTENT_TYPES: dict[LinkFormat, str] = {
    "csv": "text/csv; charset=utf-8",
    "jsonl": "application/x-ndjson",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
}


class ExportAbandonedError(ParleyError):
    """Nobody takes what is written any more."""


class ExportRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What is exported, and how."""

    survey: str
    written: WrittenFilters
    form: LinkFormat
    long: bool = False
    numbers: bool = False
    raw: bool = False
    language: str = ""


class ExportRunner:
    """Runs exports, MOST_EXPORTS at once."""

    def __init__(self, deployment: Deployment, stopping: asyncio.Event) -> None:
        self._deployment = deployment
        self._stopping = stopping
        self._threads = ThreadPoolExecutor(MOST_EXPORTS, thread_name_prefix="export")
        self._running = 0

    @property
    def is_full(self) -> bool:
        return self._running >= MOST_EXPORTS

    def require_sense(self, wanted: ExportRequest) -> ResultFilters:
        """What will be read. Waits; raises ArchiveAwayError, InvalidFilterError and SQLAlchemyError."""
        with open_readable_archive(self._deployment) as (archive, why):
            if archive is None:
                raise ArchiveAwayError(why)
            with archive.reading() as connection:
                return self._require_sense(connection, wanted)

    async def stream(self, wanted: ExportRequest) -> AsyncIterator[bytes]:
        """Yield the file. Raises whatever ends it early."""
        self._running += 1
        loop = asyncio.get_running_loop()
        output = ChunkedOutput(loop)
        work = loop.run_in_executor(self._threads, self._write, wanted, output)
        work.add_done_callback(lambda done: done.cancelled() or done.exception())  # asyncio would log it
        stopped = loop.create_task(self._stopping.wait())
        try:
            while True:
                following = loop.create_task(output.chunks.get())
                waited: set[asyncio.Future[Any]] = {following, work, stopped}
                await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
                if self._stopping.is_set():
                    following.cancel()
                    raise ExportAbandonedError("The console is told to stop")
                if following.done():
                    yield following.result()
                    continue
                following.cancel()
                await work  # raises what ended it
                while not output.chunks.empty():
                    yield output.chunks.get_nowait()
                return
        finally:
            stopped.cancel()
            output.abandon()
            self._running -= 1

    def _write(self, wanted: ExportRequest, output: "ChunkedOutput") -> None:
        with open_readable_archive(self._deployment) as (archive, why):
            if archive is None:
                raise ArchiveAwayError(why)
            if wanted.form == "xlsx":
                self._write_workbook(archive, wanted, output)
            else:
                self._export(archive, wanted, cast("BinaryIO", output))
        output.finish()

    def _write_workbook(
        self, archive: ArchiveDatabase, wanted: ExportRequest, output: "ChunkedOutput"
    ) -> None:
        """A workbook is one file in a zip: it is sent once it is whole."""
        with tempfile.TemporaryDirectory(prefix="parley-export-") as folder:
            path = Path(folder) / "results.xlsx"
            self._export(archive, wanted, path, output.require_taker)
            with path.open("rb") as written:
                while chunk := written.read(CHUNK_BYTES):
                    output.write(chunk)

    def _export(
        self,
        archive: ArchiveDatabase,
        wanted: ExportRequest,
        output: BinaryIO | Path,
        advance: Callable[[], None] = lambda: None,
    ) -> None:
        choices = ExportChoices(
            form=wanted.form,
            long=wanted.long,
            pseudonyms=None if wanted.numbers else read_pseudonyms(archive),
            language=wanted.language,
            raw=wanted.raw,
        )
        with archive.reading() as connection:
            filters = self._require_sense(connection, wanted)
            described = describe_columns(connection, filters, numbers=wanted.numbers)
            export_table(connection, filters, described, choices, output, lambda _: advance())

    def _require_sense(self, connection: Connection, wanted: ExportRequest) -> ResultFilters:
        filters = require_filters(connection, self._deployment, wanted.survey, wanted.written)
        known = sorted({tag for each in read_surveys(connection, wanted.survey) for tag in each.languages})
        if wanted.language and wanted.language not in known:
            instead = expected_instead(wanted.language, known)
            raise InvalidFilterError(f"{wanted.survey} has no language {wanted.language!r}{instead}")
        return filters


class ChunkedOutput(io.RawIOBase):
    """A file that a thread writes to, and whose chunks the event loop takes."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self.chunks: asyncio.Queue[bytes] = asyncio.Queue(MOST_CHUNKS)
        self._loop = loop
        self._waiting = bytearray()
        self._is_abandoned = False

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        """Raises ExportAbandonedError."""
        written = bytes(cast("bytes", data))
        self._waiting += written
        if len(self._waiting) >= CHUNK_BYTES:
            self._send()
        return len(written)

    def finish(self) -> None:
        """Send what is left."""
        if self._waiting:
            self._send()

    def abandon(self) -> None:
        """Nobody takes chunks any more. Called on the event loop."""
        self._is_abandoned = True
        while not self.chunks.empty():
            self.chunks.get_nowait()

    def require_taker(self) -> None:
        if self._is_abandoned:
            raise ExportAbandonedError("Nobody takes the export any more")

    def _send(self) -> None:
        self.require_taker()
        chunk, self._waiting = bytes(self._waiting), bytearray()
        put = asyncio.run_coroutine_threadsafe(self.chunks.put(chunk), self._loop)
        try:
            put.result(LONGEST_STALL_S)
        except (TimeoutError, FutureCancelledError) as e:
            put.cancel()
            raise ExportAbandonedError("Nobody takes the export any more") from e
