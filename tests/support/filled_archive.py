"""An archive with what a test says happened in it, written as the process `archive` writes it."""

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import event, insert

from config.archive import archive_schema, tables
from config.archive.database import ArchiveDatabase, Position
from config.archive.pseudonyms import read_pseudonyms
from engine.model.events import (
    Answer,
    ArchiveRecord,
    Invitation,
    OpeningRefused,
    SessionEnded,
    SessionInvited,
    SessionOpened,
    SmsDecided,
    SmsReceived,
    SmsSent,
    encode_event,
)
from tests.support.closing import Closing
from workers.archiving.archive_rows import EntryPlace
from workers.archiving.page_writer import PageEntry, write_page

PERSON = "+33612345678"
VERSION = "v1"


class FilledArchive(Closing):
    """The archive at `url`, with the newest schema. Entries of a shard come in the order of their places."""

    def __init__(self, url: str, shards: int = 16) -> None:
        self.database = ArchiveDatabase(url)
        if self.database.is_sqlite:
            event.listen(self.database.engine, "connect", _write_at_leisure)
        self.url = url
        archive_schema.migrate(self.database)
        self.pseudonyms = read_pseudonyms(self.database)
        for shard in range(shards):
            self.read_until(shard, 0)

    def close(self) -> None:
        self.database.close()

    def add(self, shard: int, ms: int, sender: str, *records: ArchiveRecord, seq: int = 0) -> None:
        """Archive one entry, as far as which its shard is read then."""
        entry = PageEntry(EntryPlace(shard, ms, seq), sender, records, encode_event(list(records)))
        with self.database.writing() as connection:
            position = self.database.lock_position(connection, "events", shard)
            write_page(connection, [entry], str)
            read_until_ms = max(position.read_until_ms, ms)
            self.database.move_position(connection, "events", shard, Position(ms, seq, read_until_ms))

    def read_until(self, shard: int, ms: int) -> None:
        """All that the shard had at this time is here."""
        with self.database.writing() as connection:
            position = self.database.lock_position(connection, "events", shard)
            moved = msgspec.structs.replace(position, read_until_ms=ms)
            self.database.move_position(connection, "events", shard, moved)

    def read_all_until(self, ms: int, shards: int = 16) -> None:
        for shard in range(shards):
            self.read_until(shard, ms)

    def keep_survey(self, name: str, version: str, file: str, source: bytes, first_at: int = 1) -> None:
        row = {"name": name, "version": version, "file": file, "source": source, "first_at": first_at}
        with self.database.writing() as connection:
            connection.execute(insert(tables.surveys), row)

    def erase(self, session: str) -> None:
        """Remove what results are read from."""
        with self.database.writing() as connection:
            for table in (tables.sessions, tables.answers, tables.variables):
                connection.execute(table.delete().where(table.c.session == session))


def _write_at_leisure(connection: Any, _record: object) -> None:
    """A test's archive need not outlive the machine."""
    connection.execute("PRAGMA synchronous=OFF")


def finished_session(session: str, at: int, **more: Any) -> Sequence[ArchiveRecord]:
    """The records of a session in which a temperature is asked for, misread, and told."""
    channel, survey = more.get("channel", "clinic"), more.get("survey", "clinic")
    language = more.get("language", "en")
    temperature = Answer(str(more.get("temperature", 98.6)), more.get("temperature", 98.6))
    variables = more.get("variables", {"agentId": "7"})
    invitation = Invitation(
        session,
        channel,
        survey,
        variables=variables,
        reference=more.get("reference", ""),
        campaign=more.get("campaign", ""),
    )
    kept = {f"${name.lower()}": Answer(value, value) for name, value in variables.items()}
    return [
        SessionOpened(at, channel, session, survey, VERSION, language),
        SessionInvited(at, channel, session, invitation),
        SmsDecided(at, channel, session, f"{session}x0", "temperature", "Your temperature?", "ask"),
        SmsSent(at, channel, session, f"{session}x0", "t" + session, 1, 50_000, "EUR"),
        SmsReceived(
            at + 1_500,
            channel,
            session,
            session + "a",
            temperature.raw,
            step="temperature",
            answer=temperature,
            answer_type="number",
        ),
        SessionEnded(
            at + 1_500,
            channel,
            session,
            more.get("how", "completed"),
            {"temperature": temperature} | kept,
        ),
    ]


def refused_invitation(session: str, at: int, channel: str = "clinic") -> ArchiveRecord:
    invitation = Invitation(session, channel, "clinic", reference="r", campaign="spring")
    return OpeningRefused(at, channel, session, "opted_out", invitation)
