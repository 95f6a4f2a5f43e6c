"""An archive with what a test says happened in it, written as the process `archive` writes it."""

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import msgspec
from sqlalchemy import delete, event, insert

from config.archive import archive_schema, tables
from config.archive.database import EVENTS_SOURCE, ArchiveDatabase, Position
from config.archive.pseudonyms import read_pseudonyms
from engine.model.events import (
    Answer,
    AnswerRejected,
    ArchiveRecord,
    Invitation,
    OpeningRefused,
    SessionEnded,
    SessionEnding,
    SessionInvited,
    SessionOpened,
    SmsDecided,
    SmsReceived,
    SmsSent,
    encode_event,
)
from engine.surveys.program import Survey
from engine.surveys.survey_reader import read_stored_survey
from tests.support.archiving import hash_number
from tests.support.closing import Closing
from workers.archiving.archive_rows import EntryPlace
from workers.archiving.page_writer import PageEntry, write_page
from workers.store.session_records import group_by_session

T0 = 1_767_225_600_000
"""2026-01-01 00:00 UTC, in ms."""

PERSON = "+33612345678"
VERSION = "v1"

_CHANNEL = "clinic"


class ArchiveWriter(Closing):
    """Writes into the archive at `url`, which gets the newest schema: one entry after the other into shard 0, from T0 on, or at
    the places that a test says. `shards` of them are known from the beginning, and read until 0."""

    def __init__(self, url: str, shards: int = 0) -> None:
        self.url = url
        self.database = ArchiveDatabase(url)
        if self.database.is_sqlite:
            event.listen(self.database.engine, "connect", _write_at_leisure)
        archive_schema.migrate(self.database)
        self.pseudonyms = read_pseudonyms(self.database)
        self._shards = range(shards)
        self._at = T0
        self._sessions = 0
        self.read_all_until(0)

    def close(self) -> None:
        self.database.close()

    # Places that a test says

    def add(self, shard: int, ms: int, sender: str, *records: ArchiveRecord, seq: int = 0) -> None:
        """Write one entry, as far as which its shard is read then."""
        entry = PageEntry(EntryPlace(shard, ms, seq), sender, records, encode_event(list(records)))
        with self.database.writing() as connection:
            position = self.database.lock_position(connection, EVENTS_SOURCE, shard)
            write_page(connection, [entry], hash_number)
            read_until_ms = max(position.read_until_ms, ms)
            self.database.move_position(connection, EVENTS_SOURCE, shard, Position(ms, seq, read_until_ms))

    def read_until(self, shard: int, ms: int) -> None:
        """All that the shard had at this time is here."""
        with self.database.writing() as connection:
            position = self.database.lock_position(connection, EVENTS_SOURCE, shard)
            moved = msgspec.structs.replace(position, read_until_ms=ms)
            self.database.move_position(connection, EVENTS_SOURCE, shard, moved)

    def read_all_until(self, ms: int) -> None:
        for shard in self._shards:
            self.read_until(shard, ms)

    # One after the other

    def keep_survey(self, survey: Survey) -> None:
        """Keep a version, newer than those that are kept, as of when its first session began."""
        self._at += 1000
        row = {
            "version": survey.version,
            "name": survey.name,
            "file": survey.file,
            "source": survey.source,
            "first_at": self._at,
        }
        with self.database.writing() as connection:
            connection.execute(delete(tables.surveys).where(tables.surveys.c.version == survey.version))
            connection.execute(insert(tables.surveys), row)

    def add_survey(self, source: str, file: str = "clinic.yaml") -> str:
        """Keep a survey's file; answers its version."""
        survey = read_stored_survey(file, source.encode())
        self.keep_survey(survey)
        return survey.version

    def add_turns(self, sender: str, turns: Iterable[Sequence[ArchiveRecord]]) -> None:
        """Write the records of one person, turn by turn, as commits cut them into entries."""
        self.add_entries(sender, (group for records in turns for group in group_by_session(records)))

    def add_entries(self, sender: str, entries: Iterable[Sequence[ArchiveRecord]]) -> None:
        """Write the records of one person, entry by entry."""
        page = []
        for records in entries:
            self._at += 1
            stored = encode_event(list(records))
            page.append(PageEntry(EntryPlace(0, self._at, 0), sender, list(records), stored))
        with self.database.writing() as connection:
            self.database.lock_position(connection, EVENTS_SOURCE, 0)
            write_page(connection, page, hash_number)
            self.database.move_position(connection, EVENTS_SOURCE, 0, Position(self._at, 0, self._at))

    def add_session(
        self,
        answers: Sequence[tuple[str, Answer, str]] = (),
        *,
        sender: str = "+33612345678",
        survey: str = "clinic",
        version: str = "",
        language: str = "en",
        how: SessionEnding | Literal[""] = "completed",
        invitation: Invitation | None = None,
        misread: str = "",
    ) -> str:
        """Write a session that opened, heard these answers (step, answer, type), and ended unless `how` is empty; answers its
        id. `misread` is an SMS that came before the first answer, and was none."""
        self._sessions += 1
        session, at = f"{self._sessions:016x}", self._at + 1000
        self._at = at
        opened = SessionOpened(at, _CHANNEL, session, survey, version, language)
        invited = [SessionInvited(at, _CHANNEL, session, invitation)] if invitation is not None else []
        heard = [] if invited else [SmsReceived(at, _CHANNEL, session, f"{session}s", "START")]
        steps = [step for step, _, _ in answers]
        said = (
            [SmsDecided(at, _CHANNEL, session, f"{session}x0", steps[0], f"{steps[0]}?", "ask")]
            if steps
            else []
        )
        entries: list[list[ArchiveRecord]] = [[opened, *invited, *heard, *said]]
        entries.append([SmsSent(at, _CHANNEL, session, f"{session}x0", "t", 1, 50_000, "EUR")])
        if misread:
            entries.append(
                [
                    SmsReceived(at + 1000, _CHANNEL, session, f"{session}m", misread),
                    AnswerRejected(at + 1000, _CHANNEL, session, steps[0], "not_a_number"),
                ]
            )
        for n, (step, answer, kind) in enumerate(answers, 1):
            at += 5000
            following = steps[n] if n < len(steps) else "bye"
            entries.append(
                [
                    SmsReceived(
                        at,
                        _CHANNEL,
                        session,
                        f"{session}a{n}",
                        answer.raw,
                        step=step,
                        answer=answer,
                        answer_type=kind,
                    ),
                    SmsDecided(at, _CHANNEL, session, f"{session}x{n}", following, f"{following}?", "ask"),
                ]
            )
        if how:
            entries[-1].append(
                SessionEnded(at, _CHANNEL, session, how, {step: each for step, each, _ in answers})
            )
        self.add_entries(sender, entries)
        return session

    def add_refusal(self, invitation: Invitation, sender: str = "+33699999999") -> None:
        """Write that an invitation opened nothing."""
        refused = OpeningRefused(self._at, _CHANNEL, invitation.id, "opted_out", invitation)
        self.add_entries(sender, [[refused]])

    # What goes

    def erase(self, session: str) -> None:
        """Remove what results are read from."""
        with self.database.writing() as connection:
            for table in (tables.sessions, tables.answers, tables.variables):
                connection.execute(delete(table).where(table.c.session == session))

    def clear(self) -> None:
        """Leave nothing in it but how far it is."""
        with self.database.writing() as connection:
            for table in tables.METADATA.sorted_tables:
                if table.name not in ("positions", "deployment"):
                    connection.execute(delete(table))


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
