"""Does a stored session come out the same again, and what would another version of its survey have made of it?

A session runs alone, on a new lane, at its recorded times, deadlines ringing in between, though others may have run
beside it. Whatever decided whether it might open, where, and what was known of the person lies outside it, so it is
let in as it was; and what is answered outside it, in fixed texts, is not compared.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, assert_never

import msgspec

from engine.model.events import (
    AnswerRejected,
    ArchiveRecord,
    CancelSession,
    DeadLetterAdded,
    DeliveryReceipt,
    InboundSms,
    Invitation,
    Mail,
    OpeningRefused,
    PersonOptedIn,
    PersonOptedOut,
    ProviderStop,
    ReceiptRecorded,
    SessionEnded,
    SessionEnding,
    SessionInvited,
    SessionOpened,
    SmsDecided,
    SmsNotSent,
    SmsReceived,
    SmsSent,
    encode_event,
)
from engine.model.lane import Lane, decode_lane, encode_lane
from engine.model.policy import ChannelPolicies, ChannelPolicy
from engine.model.segments import count_segments
from engine.surveys.program import Survey
from engine.surveys.survey_registry import SurveyRegistry
from engine.turns.advance import advance


class RecordedSession(msgspec.Struct):
    """One session as the archive has it: what was recorded of it, and the mail that this came of.

    Its first record is Opened, unless its beginning is no longer stored. `successor` is the session that a START
    opened in its place; `stopped_by` the STOP that ended it though it belonged to another session or to none.
    """

    sender: str
    channel: str
    id: str
    records: list[ArchiveRecord] = []
    mail: list[Mail] = []
    successor: SessionOpened | None = None
    stopped_by: str = ""

    @property
    def opened(self) -> SessionOpened | None:
        first = self.records[0] if self.records else None
        return first if isinstance(first, SessionOpened) else None

    @property
    def ended(self) -> SessionEnded | None:
        last = self.records[-1] if self.records else None
        return last if isinstance(last, SessionEnded) else None


class SessionCollector:
    """Collects sessions from the archive's records, read from its beginning. Holds only those that have not ended."""

    def __init__(self) -> None:
        self._open: dict[tuple[str, str], dict[str, RecordedSession]] = {}
        self._replaced: dict[tuple[str, str], RecordedSession] = {}

    def add_records(self, sender: str, records: Iterable[ArchiveRecord]) -> Iterator[RecordedSession]:
        """The sessions of `sender` that end with these next `records`."""
        for record in records:
            yield from self._add_record((sender, record.channel), record)

    def unended_sessions(self) -> Iterator[RecordedSession]:
        """Those that have not ended."""
        yield from self._replaced.values()
        for sessions in self._open.values():
            yield from sessions.values()

    def _add_record(self, line: tuple[str, str], record: ArchiveRecord) -> Iterator[RecordedSession]:
        match record:
            case SessionOpened():
                yield from self._pop_unended(line, record.originator)
                self._open_session(line, record.session).records.append(record)
                if (replaced := self._replaced.get(line)) is not None:
                    replaced.successor = record
            case SessionInvited(at=at, invitation=invitation):
                stored = self._open_session(line, record.session)
                stored.mail.append(Mail(at, invitation))
                stored.records.append(record)
            case SmsReceived(session=session) if session:
                sms = _heard_mail(record)
                yield from self._pop_replaced(line, sms)
                stored = self._open_session(line, session)
                stored.mail.append(sms)
                stored.records.append(record)
            case AnswerRejected(session=session) | SmsDecided(session=session) if session:
                self._open_session(line, session).records.append(record)
            case PersonOptedOut():
                for stored in self._open.get(line, {}).values():
                    _end_by_optout(stored, record)
            case SessionEnded():
                yield from self._end_session(line, record)
            case (
                SmsReceived()
                | SmsDecided()
                | AnswerRejected()
                | OpeningRefused()
                | PersonOptedIn()
                | SmsSent()
                | SmsNotSent()
                | ReceiptRecorded()
                | DeadLetterAdded()
            ):
                pass
            case _:
                assert_never(record)

    def _open_session(self, line: tuple[str, str], session: str) -> RecordedSession:
        return self._open.setdefault(line, {}).setdefault(session, RecordedSession(*line, session))

    def _pop_unended(self, line: tuple[str, str], originator: str) -> Iterator[RecordedSession]:
        """Those on the same address of ours: another opens there, so they have ended, unrecorded."""
        sessions = self._open.get(line, {})
        for stored in list(sessions.values()):
            if (stored.opened.originator if stored.opened is not None else "") == originator:
                yield sessions.pop(stored.id)

    def _end_session(self, line: tuple[str, str], record: SessionEnded) -> Iterator[RecordedSession]:
        stored = self._open_session(line, record.session)
        stored.records.append(record)
        match record.how:
            case "cancelled":
                stored.mail.append(Mail(record.at, CancelSession("", record.channel, record.session)))
            case "unreachable":
                stored.mail.append(Mail(record.at, _failed_receipt(record)))
            case _:
                pass
        del self._open[line][record.session]
        if not self._open[line]:
            del self._open[line]
        if record.how == "restarted":
            self._replaced[line] = stored
        else:
            yield stored

    def _pop_replaced(self, line: tuple[str, str], sms: Mail) -> Iterator[RecordedSession]:
        """The session that this START ended, if it did."""
        if (replaced := self._replaced.pop(line, None)) is not None:
            replaced.mail.append(sms)
            yield replaced


def _end_by_optout(stored: RecordedSession, record: PersonOptedOut) -> None:
    """An opt-out ends the session, and the STOP was an SMS to it, to another one, or none at all."""
    stored.records.append(record)
    if record.by_provider or not stored.mail or stored.mail[-1].event.id != record.id:
        stop = ProviderStop(record.id, record.channel, record.text, record.source)
        stored.mail.append(Mail(record.at, stop))
        stored.stopped_by = "" if record.by_provider else record.id


def _failed_receipt(record: SessionEnded) -> DeliveryReceipt:
    return DeliveryReceipt(
        "", record.channel, "", "", "failed", why=record.why, permanent=True, sms=f"{record.session}x0"
    )


def sessions_of(sender: str, records: Iterable[ArchiveRecord]) -> Iterator[RecordedSession]:
    """The sessions in one sender's records, in the order in which they ended; then those that have not."""
    found = SessionCollector()
    yield from found.add_records(sender, records)
    yield from found.unended_sessions()


def _heard_mail(record: SmsReceived) -> Mail:
    start = record.id == record.session
    sms = InboundSms(
        record.id,
        record.channel,
        record.text,
        start,
        record.reply_to,
        record.handled,
        record.originator,
        attachments=record.attachments,
    )
    return Mail(record.at, sms)


class ReplayedSame(msgspec.Struct, frozen=True):
    """It came out byte for byte, but for what an earlier release did not record."""


class ReplayedDifferent(msgspec.Struct, frozen=True):
    """At `place`, from 0, of the session's records: what was stored and what came out; None where there is no more."""

    place: int
    stored: ArchiveRecord | None
    came_out: ArchiveRecord | None


class ReplayImpossible(msgspec.Struct, frozen=True):
    """It cannot be run again. `why` is a sentence."""

    why: str


SessionReplayResult = ReplayedSame | ReplayedDifferent | ReplayImpossible


def replay_session(
    stored: RecordedSession, surveys: SurveyRegistry, policy: ChannelPolicies
) -> SessionReplayResult:
    """Run a session again, on the version that it began with. `surveys` knows its versions."""
    if stored.opened is None:
        return _BEGINNING_LOST
    survey = surveys.by_version(stored.opened.version)
    if survey is None:
        return _unknown_version(stored.opened)
    came_out = _run_session(stored, survey, stored.successor, surveys, policy)
    return came_out if isinstance(came_out, ReplayImpossible) else _first_difference(stored.records, came_out)


def _first_difference(
    stored: Sequence[ArchiveRecord], came_out: Sequence[ArchiveRecord]
) -> ReplayedSame | ReplayedDifferent:
    came_out = _without_unsaid(stored, came_out)
    for place in range(max(len(stored), len(came_out))):
        was = stored[place] if place < len(stored) else None
        now = came_out[place] if place < len(came_out) else None
        now = _without_unrecorded(was, now)
        if encode_event(was) != encode_event(now):
            return ReplayedDifferent(place, was, now)
    return ReplayedSame()


def _without_unsaid(
    stored: Sequence[ArchiveRecord], came_out: Sequence[ArchiveRecord]
) -> Sequence[ArchiveRecord]:
    """Return what came out without the fixed text `gave_up` if it was not said: 0.1.0 gave up without a word."""
    if any(map(_is_farewell, stored)):
        return came_out
    return [record for record in came_out if not _is_farewell(record)]


def _is_farewell(record: ArchiveRecord) -> bool:
    return isinstance(record, SmsDecided) and (record.step, record.kind) == ("gave_up", "fixed")


def _without_unrecorded(stored: ArchiveRecord | None, came_out: ArchiveRecord | None) -> ArchiveRecord | None:
    """Return what came out without what the release that stored its record did not record: 0.1.0 knew no kind of an SMS,
    and not what one answered. Each record is judged by itself, as a session may have been of two releases at once.

    A record of today of an SMS that answered nothing looks like one of 0.1.0; that it answers now shows in what follows.
    """
    match stored, came_out:
        case SmsDecided(kind=""), SmsDecided():
            return msgspec.structs.replace(came_out, kind="")
        case SmsReceived(answer=None), SmsReceived():
            return msgspec.structs.replace(came_out, step="", answer=None, answer_type="")
        case _:
            return came_out


SessionOutcome = SessionEnding | Literal["open", "not opened"]


class SessionCourse(msgspec.Struct, frozen=True):
    """How a session went: the steps in the order in which they were said, how it ended, the SMS that it sent and
    their segments, and the replies that were no answers, as event -> (step, why)."""

    path: tuple[str, ...]
    outcome: SessionOutcome
    sms: int
    segments: int
    misread: dict[str, tuple[str, str]]


class SessionComparison(msgspec.Struct, frozen=True):
    """One session as it was stored, and as it goes on another version of its survey."""

    sender: str
    id: str
    before: SessionCourse
    after: SessionCourse

    @property
    def is_same(self) -> bool:
        """Same path, outcome, cost and replies. Texts may differ."""
        return self.before == self.after

    @property
    def diverges_at(self) -> int | None:
        """Where the paths part, as a place in both; None if they do not."""
        before, after = self.before.path, self.after.path
        if before == after:
            return None
        pairs = enumerate(zip(before, after, strict=False))
        return next((place for place, (was, now) in pairs if was != now), min(len(before), len(after)))

    @property
    def no_longer_read(self) -> list[tuple[str, str]]:
        """(step, why) of the replies that were answers, and are none any more."""
        return [told for event, told in self.after.misread.items() if event not in self.before.misread]


def replay_on_version(
    stored: RecordedSession, other: Survey, surveys: SurveyRegistry, policy: ChannelPolicies
) -> SessionComparison | ReplayImpossible:
    """Run a session's mail, at the same times, on `other`. `surveys` knows the version that it began with."""
    if stored.opened is None:
        return _BEGINNING_LOST
    if stored.opened.survey != other.name:
        return ReplayImpossible(f"it is of the survey '{stored.opened.survey}', not of '{other.name}'")
    after = stored.successor
    successor = after if after is not None and after.survey != other.name else None
    came_out = _run_session(stored, other, successor, surveys, policy)
    if isinstance(came_out, ReplayImpossible):
        return came_out
    return SessionComparison(stored.sender, stored.id, course_of(stored.records), course_of(came_out))


def course_of(records: Sequence[ArchiveRecord]) -> SessionCourse:
    """How the session went whose `records` these are."""
    said = [record for record in records if isinstance(record, SmsDecided)]
    misread: dict[str, tuple[str, str]] = {}
    outcome: SessionOutcome = "open" if records else "not opened"
    event = ""
    for record in records:
        match record:
            case SmsReceived(id=event):
                pass
            case AnswerRejected(step=step, why=why):
                misread[event] = (step, why)
            case SessionEnded(how=how):
                outcome = how
            case _:
                pass
    path = tuple(record.step for record in said)
    return SessionCourse(
        path, outcome, len(said), sum(count_segments(record.text).segments for record in said), misread
    )


_BEGINNING_LOST = ReplayImpossible("its beginning is no longer stored")


def _unknown_version(opened: SessionOpened) -> ReplayImpossible:
    return ReplayImpossible(f"version {opened.version} of the survey '{opened.survey}' is no longer stored")


def _run_session(
    stored: RecordedSession,
    survey: Survey,
    successor: SessionOpened | None,
    surveys: SurveyRegistry,
    policy: ChannelPolicies,
) -> list[ArchiveRecord] | ReplayImpossible:
    """What is recorded of the session when `survey` is what it begins with, and `successor`, if it is another, what
    the START that ends it opens."""
    channel = policy.get(stored.channel)
    if channel is None:
        return ReplayImpossible(f"its channel '{stored.channel}' is not in the settings any more")
    later = survey
    if successor is not None:
        found = surveys.by_version(successor.version)
        if found is None:
            return _unknown_version(successor)
        later = found
    try:
        return _SessionRun(stored, survey, later, channel).run_mail()
    except Exception as e:  # noqa: BLE001 (one session that breaks the engine must not hide the others)
        return ReplayImpossible(f"the engine fails on it: {type(e).__name__}: {e}")


class _SessionRun:
    """One session's mail, going through the engine once more."""

    def __init__(
        self, stored: RecordedSession, survey: Survey, successor: Survey, channel: ChannelPolicy
    ) -> None:
        self._stored = stored
        self._surveys = SurveyRegistry([survey])
        self._successor = successor
        self._policy = _without_limits(channel, survey.name, stored)
        self._channel = channel
        self._lane = Lane()
        self._alarm: int | None = None
        self._records: list[ArchiveRecord] = []

    def run_mail(self) -> list[ArchiveRecord]:
        for mail in self._stored.mail:
            self._fire_alarms(mail.at)
            if self._stored.successor is not None and mail is self._stored.mail[-1]:
                self._surveys.replace_current([self._successor])
                self._policy = _without_limits(self._channel, self._successor.name, self._stored)
            self._advance_lane([self._with_original_address(mail)], mail.at)
        self._fire_alarms(None if self._stored.ended is not None else self._stored.records[-1].at)
        return self._records

    def _fire_alarms(self, until: int | None) -> None:
        """Whatever is due at `until` or before, or up to the session's end."""
        while self._alarm is not None and (self._is_open() if until is None else self._alarm <= until):
            self._advance_lane([], self._alarm)

    def _is_open(self) -> bool:
        return any(
            line.session is not None and line.session.id == self._stored.id
            for line in self._lane.lines.values()
        )

    def _with_original_address(self, mail: Mail) -> Mail:
        """An invitation opened its session on an address that was free then."""
        opened = self._stored.opened
        if opened is None or not isinstance(mail.event, Invitation):
            return mail
        event = msgspec.structs.replace(mail.event, originator=opened.originator)
        return msgspec.structs.replace(mail, event=event)

    def _advance_lane(self, mail: Sequence[Mail], now: int) -> None:
        lane = decode_lane(encode_lane(self._lane))
        lane.applied_events.clear()  # what is stored was applied
        channel = self._stored.channel
        effects = advance(lane, self._stored.sender, mail, now, self._surveys, {channel: self._policy})
        self._lane, self._alarm = lane, effects.alarm or None
        self._records += [self._as_stored(record) for record in effects.records if self._is_ours(record)]

    def _as_stored(self, record: ArchiveRecord) -> ArchiveRecord:
        """Return the record with the original values of what the run replaced: the invitation's originator, and a
        STOP that belonged to another session."""
        match record:
            case SessionInvited():
                asked = next(
                    (mail.event for mail in self._stored.mail if mail.event.id == record.session), None
                )
                if isinstance(asked, Invitation):
                    return msgspec.structs.replace(record, invitation=asked)
            case PersonOptedOut(id=stop) if stop == self._stored.stopped_by:
                return msgspec.structs.replace(record, by_provider=False)
            case _:
                pass
        return record

    def _is_ours(self, record: ArchiveRecord) -> bool:
        match record:
            case SmsSent() | SmsNotSent() | ReceiptRecorded() | DeadLetterAdded():
                return False
            case PersonOptedOut():
                return True
            case _:
                return getattr(record, "session", "") == self._stored.id


def _without_limits(channel: ChannelPolicy, survey: str, stored: RecordedSession) -> ChannelPolicy:
    """The channel without its limits, and as it knew the person: the session was let in when it was stored."""
    opened = stored.opened
    told = opened.variables if opened is not None else {}
    originator = opened.originator if opened is not None else ""
    return msgspec.structs.replace(
        channel,
        surveys=(survey,),
        sessions_per_sender_per_day=0,
        start_burst=0,
        closed=None,
        number="" if originator else told.get("number", ""),
        originators=(originator,) if originator else (),
        contacts={stored.sender: told["contact"]} if "contact" in told else {},
    )
