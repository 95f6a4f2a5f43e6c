"""Does a stored session come out the same again, and what would another version of its survey have made of it?

A session runs alone, on a new lane, at its recorded times, deadlines ringing in between, though others may have run
beside it. Whatever decided whether it might open, where, and what was known of the person lies outside it, so it is
let in as it was; and what is answered outside it, in fixed texts, is not compared.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, assert_never

import msgspec

from engine.model.events import (
    Cancel,
    Delivered,
    Ended,
    Ending,
    Heard,
    Invitation,
    Invited,
    Mail,
    Misread,
    Opened,
    OptedIn,
    OptedOut,
    ProviderStop,
    Receipt,
    Record,
    Refused,
    Said,
    Sent,
    Sms,
    Unsent,
    encode,
)
from engine.model.lane import Lane
from engine.model.lane import decode as decode_lane
from engine.model.lane import encode as encode_lane
from engine.model.policy import ChannelPolicy, Policy
from engine.model.segments import count
from engine.surveys.program import Survey
from engine.surveys.survey_registry import Surveys
from engine.turns.advance import Advance, advance


class Stored(msgspec.Struct):
    """One session as the archive has it: what was recorded of it, and the mail that this came of.

    Its first record is Opened, unless its beginning is no longer stored. `successor` is the session that a START
    opened in its place; `stopped_by` the STOP that ended it though it belonged to another session or to none.
    """

    sender: str
    channel: str
    id: str
    records: list[Record] = []
    mail: list[Mail] = []
    successor: Opened | None = None
    stopped_by: str = ""

    @property
    def opened(self) -> Opened | None:
        first = self.records[0] if self.records else None
        return first if isinstance(first, Opened) else None

    @property
    def ended(self) -> Ended | None:
        last = self.records[-1] if self.records else None
        return last if isinstance(last, Ended) else None


class Sessions:
    """Sessions as they are found in the archive, read from its beginning. Only those that have not ended are held."""

    def __init__(self) -> None:
        self._open: dict[tuple[str, str], dict[str, Stored]] = {}
        self._replaced: dict[tuple[str, str], Stored] = {}

    def add(self, sender: str, records: Iterable[Record]) -> Iterator[Stored]:
        """The sessions of `sender` that end with these next `records`."""
        for record in records:
            yield from self._add((sender, record.channel), record)

    def rest(self) -> Iterator[Stored]:
        """Those that have not ended."""
        yield from self._replaced.values()
        for sessions in self._open.values():
            yield from sessions.values()

    def _add(self, line: tuple[str, str], record: Record) -> Iterator[Stored]:
        match record:
            case Opened():
                yield from self._unended(line, record.originator)
                self._of(line, record.session).records.append(record)
                if (replaced := self._replaced.get(line)) is not None:
                    replaced.successor = record
            case Invited(at=at, invitation=invitation):
                stored = self._of(line, record.session)
                stored.mail.append(Mail(at, invitation))
                stored.records.append(record)
            case Heard(session=session) if session:
                sms = _heard(record)
                yield from self._replace(line, sms)
                stored = self._of(line, session)
                stored.mail.append(sms)
                stored.records.append(record)
            case Misread(session=session) | Said(session=session) if session:
                self._of(line, session).records.append(record)
            case OptedOut():
                for stored in self._open.get(line, {}).values():
                    _opt_out(stored, record)
            case Ended():
                yield from self._end(line, record)
            case Heard() | Said() | Misread() | Refused() | OptedIn() | Sent() | Unsent() | Delivered():
                pass
            case _:
                assert_never(record)

    def _of(self, line: tuple[str, str], session: str) -> Stored:
        return self._open.setdefault(line, {}).setdefault(session, Stored(*line, session))

    def _unended(self, line: tuple[str, str], originator: str) -> Iterator[Stored]:
        """Those on the same address of ours: another opens there, so they have ended, unrecorded."""
        sessions = self._open.get(line, {})
        for stored in list(sessions.values()):
            if (stored.opened.originator if stored.opened is not None else "") == originator:
                yield sessions.pop(stored.id)

    def _end(self, line: tuple[str, str], record: Ended) -> Iterator[Stored]:
        stored = self._of(line, record.session)
        stored.records.append(record)
        match record.how:
            case "cancelled":
                stored.mail.append(Mail(record.at, Cancel("", record.channel, record.session)))
            case "unreachable":
                stored.mail.append(Mail(record.at, _failed(record)))
            case _:
                pass
        del self._open[line][record.session]
        if not self._open[line]:
            del self._open[line]
        if record.how == "restarted":
            self._replaced[line] = stored
        else:
            yield stored

    def _replace(self, line: tuple[str, str], sms: Mail) -> Iterator[Stored]:
        """The session that this START ended, if it did."""
        if (replaced := self._replaced.pop(line, None)) is not None:
            replaced.mail.append(sms)
            yield replaced


def _opt_out(stored: Stored, record: OptedOut) -> None:
    """An opt-out ends the session, and the STOP was an SMS to it, to another one, or none at all."""
    stored.records.append(record)
    if record.by_provider or not stored.mail or stored.mail[-1].event.id != record.id:
        stop = ProviderStop(record.id, record.channel, record.text, record.source)
        stored.mail.append(Mail(record.at, stop))
        stored.stopped_by = "" if record.by_provider else record.id


def _failed(record: Ended) -> Receipt:
    return Receipt(
        "", record.channel, "", "", "failed", why=record.why, permanent=True, sms=f"{record.session}x0"
    )


def sessions_of(sender: str, records: Iterable[Record]) -> Iterator[Stored]:
    """The sessions in one sender's records, in the order in which they ended; then those that have not."""
    found = Sessions()
    yield from found.add(sender, records)
    yield from found.rest()


def _heard(record: Heard) -> Mail:
    start = record.id == record.session
    sms = Sms(
        record.id, record.channel, record.text, start, record.reply_to, record.handled, record.originator
    )
    return Mail(record.at, sms)


class Same(msgspec.Struct, frozen=True):
    """It came out byte for byte."""


class Different(msgspec.Struct, frozen=True):
    """At `place`, from 0, of the session's records: what was stored and what came out; None where there is no more."""

    place: int
    stored: Record | None
    came_out: Record | None


class Impossible(msgspec.Struct, frozen=True):
    """It cannot be run again. `why` is a sentence."""

    why: str


Replayed = Same | Different | Impossible


def replay(stored: Stored, surveys: Surveys, policy: Policy) -> Replayed:
    """Run a session again, on the version that it began with. `surveys` knows its versions."""
    if stored.opened is None:
        return _CUT
    survey = surveys.version(stored.opened.version)
    if survey is None:
        return _unknown(stored.opened)
    came_out = _run(stored, survey, stored.successor, surveys, policy)
    return came_out if isinstance(came_out, Impossible) else _first_difference(stored.records, came_out)


def _first_difference(stored: Sequence[Record], came_out: Sequence[Record]) -> Same | Different:
    for place in range(max(len(stored), len(came_out))):
        was = stored[place] if place < len(stored) else None
        now = came_out[place] if place < len(came_out) else None
        if encode(was) != encode(_as_old(was, now)):
            return Different(place, was, now)
    return Same()


def _as_old(was: Record | None, now: Record | None) -> Record | None:
    """What came out, as an earlier release recorded it: the end of a session without its result."""
    if isinstance(was, Ended) and isinstance(now, Ended) and not was.answers:
        return msgspec.structs.replace(now, answers={})
    return now


Outcome = Ending | Literal["open", "not opened"]


class Course(msgspec.Struct, frozen=True):
    """How a session went: the steps in the order in which they were said, how it ended, the SMS that it sent and
    their segments, and the replies that were no answers, as event -> (step, why)."""

    path: tuple[str, ...]
    outcome: Outcome
    sms: int
    segments: int
    misread: dict[str, tuple[str, str]]


class Compared(msgspec.Struct, frozen=True):
    """One session as it was stored, and as it goes on another version of its survey."""

    sender: str
    id: str
    before: Course
    after: Course

    @property
    def same(self) -> bool:
        """Same path, outcome, cost and replies. Texts may differ."""
        return self.before == self.after

    @property
    def parts_at(self) -> int | None:
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


def compare(stored: Stored, other: Survey, surveys: Surveys, policy: Policy) -> Compared | Impossible:
    """Run a session's mail, at the same times, on `other`. `surveys` knows the version that it began with."""
    if stored.opened is None:
        return _CUT
    if stored.opened.survey != other.name:
        return Impossible(f"it is of the survey '{stored.opened.survey}', not of '{other.name}'")
    after = stored.successor
    successor = after if after is not None and after.survey != other.name else None
    came_out = _run(stored, other, successor, surveys, policy)
    if isinstance(came_out, Impossible):
        return came_out
    return Compared(stored.sender, stored.id, course_of(stored.records), course_of(came_out))


def course_of(records: Sequence[Record]) -> Course:
    """How the session went whose `records` these are."""
    said = [record for record in records if isinstance(record, Said)]
    misread: dict[str, tuple[str, str]] = {}
    outcome: Outcome = "open" if records else "not opened"
    event = ""
    for record in records:
        match record:
            case Heard(id=event):
                pass
            case Misread(step=step, why=why):
                misread[event] = (step, why)
            case Ended(how=how):
                outcome = how
            case _:
                pass
    path = tuple(record.step for record in said)
    return Course(path, outcome, len(said), sum(count(record.text).segments for record in said), misread)


_CUT = Impossible("its beginning is no longer stored")


def _unknown(opened: Opened) -> Impossible:
    return Impossible(f"version {opened.version} of the survey '{opened.survey}' is no longer stored")


def _run(
    stored: Stored, survey: Survey, successor: Opened | None, surveys: Surveys, policy: Policy
) -> list[Record] | Impossible:
    """What is recorded of the session when `survey` is what it begins with, and `successor`, if it is another, what
    the START that ends it opens."""
    channel = policy.get(stored.channel)
    if channel is None:
        return Impossible(f"its channel '{stored.channel}' is not in the settings any more")
    later = survey
    if successor is not None:
        found = surveys.version(successor.version)
        if found is None:
            return _unknown(successor)
        later = found
    try:
        return _Run(stored, survey, later, channel).records()
    except Exception as e:  # noqa: BLE001 (one session that breaks the engine must not hide the others)
        return Impossible(f"the engine fails on it: {type(e).__name__}: {e}")


class _Run:
    """One session's mail, going through the engine once more."""

    def __init__(self, stored: Stored, survey: Survey, successor: Survey, channel: ChannelPolicy) -> None:
        self._stored = stored
        self._surveys = Surveys([survey])
        self._successor = successor
        self._policy = _open_door(channel, survey.name, stored)
        self._channel = channel
        self._lane = Lane()
        self._alarm: int | None = None
        self._records: list[Record] = []

    def records(self) -> list[Record]:
        for mail in self._stored.mail:
            self._ring(mail.at)
            if self._stored.successor is not None and mail is self._stored.mail[-1]:
                self._surveys.replace([self._successor])
                self._policy = _open_door(self._channel, self._successor.name, self._stored)
            self._advance([self._as_it_went(mail)], mail.at)
        self._ring(None if self._stored.ended is not None else self._stored.records[-1].at)
        return self._records

    def _ring(self, until: int | None) -> None:
        """Whatever is due at `until` or before, or up to the session's end."""
        while self._alarm is not None and (self._is_open() if until is None else self._alarm <= until):
            self._advance([], self._alarm)

    def _is_open(self) -> bool:
        return any(
            line.session is not None and line.session.id == self._stored.id
            for line in self._lane.lines.values()
        )

    def _as_it_went(self, mail: Mail) -> Mail:
        """An invitation opened its session on an address that was free then."""
        opened = self._stored.opened
        if opened is None or not isinstance(mail.event, Invitation):
            return mail
        event = msgspec.structs.replace(mail.event, originator=opened.originator)
        return msgspec.structs.replace(mail, event=event)

    def _advance(self, mail: Sequence[Mail], now: int) -> None:
        lane = decode_lane(encode_lane(self._lane))
        lane.seen.clear()  # what is stored was applied
        channel = self._stored.channel
        came: Advance = advance(lane, self._stored.sender, mail, now, self._surveys, {channel: self._policy})
        self._lane, self._alarm = came.lane, came.alarm
        self._records += [self._as_stored(record) for record in came.records if self._is_ours(record)]

    def _as_stored(self, record: Record) -> Record:
        """What stands in for something that lay outside the session is recorded as that was."""
        match record:
            case Invited():
                asked = next(
                    (mail.event for mail in self._stored.mail if mail.event.id == record.session), None
                )
                if isinstance(asked, Invitation):
                    return msgspec.structs.replace(record, invitation=asked)
            case OptedOut(id=stop) if stop == self._stored.stopped_by:
                return msgspec.structs.replace(record, by_provider=False)
            case _:
                pass
        return record

    def _is_ours(self, record: Record) -> bool:
        match record:
            case Sent() | Unsent() | Delivered():
                return False
            case OptedOut():
                return True
            case _:
                return getattr(record, "session", "") == self._stored.id


def _open_door(channel: ChannelPolicy, survey: str, stored: Stored) -> ChannelPolicy:
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
