"""An archive with sessions in it, written as the process `archive` writes them, from records as workers make them."""

from collections.abc import Iterable, Sequence
from typing import Literal

from sqlalchemy import insert

from config.archive import archive_schema, tables
from config.archive.database import ArchiveDatabase, Position
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
from engine.surveys.survey_reader import read_stored_survey
from workers.archiving.archive_rows import EntryPlace
from workers.archiving.page_writer import PageEntry, write_page

T0 = 1_767_225_600_000
"""2026-01-01 00:00 UTC, in ms."""

_CHANNEL = "clinic"


class ArchiveWriter:
    """Writes sessions into the archive at `url`, one after the other, a second apart."""

    def __init__(self, url: str) -> None:
        self.database = ArchiveDatabase(url)
        archive_schema.migrate(self.database)
        self._at = T0
        self._written = 0

    def add_survey(self, source: str, file: str = "clinic.yaml") -> str:
        """Keep a survey's file, as of when its first session began; answers its version."""
        survey = read_stored_survey(file, source.encode())
        with self.database.writing() as connection:
            row = {
                "version": survey.version,
                "name": survey.name,
                "file": file,
                "source": survey.source,
                "first_at": self._at,
            }
            connection.execute(insert(tables.surveys), row)
        self._at += 1000
        return survey.version

    def add_entries(self, sender: str, entries: Iterable[Sequence[ArchiveRecord]]) -> None:
        """Write the records of one person, entry by entry."""
        page = []
        for records in entries:
            self._at += 1
            stored = encode_event(list(records))
            page.append(PageEntry(EntryPlace(0, self._at, 0), sender, list(records), stored))
        with self.database.writing() as connection:
            self.database.lock_position(connection, "events", 0)
            write_page(connection, page, lambda number: f"hash of {number}")
            self.database.move_position(connection, "events", 0, Position(self._at, 0, self._at))

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
        self._written += 1
        session, at = f"{self._written:016x}", self._at + 1000
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
