"""A person who texts one channel, and the clock on their wall: the engine without a server.

Nothing happens unless they do it. Time goes by when they wait, alarms ring as they fall due, and the lane is encoded
and decoded between any two calls, as it is in production.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, assert_never
from zoneinfo import ZoneInfo

import msgspec

from engine.model.events import (
    Cancel,
    Command,
    Ended,
    Inbound,
    Invitation,
    Mail,
    Opened,
    OptedIn,
    OptedOut,
    Outbound,
    Part,
    ProviderStop,
    Receipt,
    Record,
    Refused,
    Said,
    Sms,
    SmsState,
)
from engine.model.lane import Lane, Line, decode, encode
from engine.model.policy import ChannelPolicy
from engine.proofs.transcripts import (
    Came,
    Cancelled,
    Done,
    Entry,
    Invited,
    Noted,
    Passed,
    Remark,
    Stopped,
    Told,
    Transcript,
    Unreachable,
    Unreadable,
    Went,
)
from engine.surveys.findings import Rejected
from engine.surveys.keywords import is_start
from engine.surveys.program import Survey
from engine.surveys.step_graph import chatter
from engine.surveys.survey_reader import read_survey
from engine.surveys.survey_registry import Surveys
from engine.turns.advance import Advance, advance

SENDER = "+33612345678"
NUMBER = "+33700000001"
"""The channel's, where a conversation does not tell."""

CHANNEL = "line"
BEGINS_AT = 1_800_000_000_000
"""When a conversation begins that does not say when: 2027-01-15 08:00 UTC."""

TIMEZONE = "Europe/Paris"
"""Whose calendar counts where none is given."""


class Moment(msgspec.Struct, frozen=True):
    """One thing that happened to the lane: as it was before, the event (None: an alarm rang), when (ms), and what
    was recorded."""

    before: Lane
    event: Inbound | None
    at: int
    records: Sequence[Record]


class Phone:
    """One person on one channel. `now` is in ms; `moments` is all that happened since something was last done, that
    included."""

    def __init__(
        self, surveys: Surveys, policy: ChannelPolicy, *, channel: str = CHANNEL, now: int = BEGINS_AT
    ) -> None:
        self.surveys = surveys
        self.policy = policy
        self.channel = channel
        self.now = now
        self.lane = Lane()
        self.last: Advance | None = None
        self.records: list[Record] = []
        self.moments: list[Moment] = []
        self._count = 0

    @property
    def line(self) -> Line:
        """What the channel and the person share; a new one if nothing has happened."""
        return self.lane.lines.get(self.channel) or Line()

    def text(self, text: str, *, after_ms: int = 0, handled: Command = "", originator: str = "") -> list[str]:
        """Text the channel, or one of its sub-numbers, after a while; what it answers."""
        self.wait(after_ms)
        start = is_start(text, self.policy.surveys, self.surveys)
        sms = Sms(self._identity(), self.channel, text, start, handled=handled, originator=originator)
        return [sms.text for sms in self.apply(sms)]

    def part(self, text: str, number: int, total: int, reference: str = "1") -> list[str]:
        """One part of a long text comes in; what is answered."""
        part = Part(self._identity(), self.channel, text, reference, number, total)
        return [sms.text for sms in self.apply(part)]

    def provider_stop(self, text: str = "stop", source: str = "") -> list[Outbound]:
        """The person opts out with the provider, or an operator's list says so."""
        return self.apply(ProviderStop(self._identity(), self.channel, text, source))

    def cancel(self, session: str = "") -> list[Outbound]:
        """Whoever invited wants no more of a session; by default of the one that was opened last."""
        last = next((opened.session for opened in reversed(self.seen(Opened))), "")
        return self.apply(Cancel(self._identity(), self.channel, session or last))

    def receipt(
        self, state: SmsState, *, sms: str = "", ticket: str = "", permanent: bool = False, why: str = ""
    ) -> list[Outbound]:
        """The provider tells what has become of an SMS; by default of the last one that was said."""
        if not sms and not ticket:
            sms = next((said.id for said in reversed(self.seen(Said))), "")
        return self.apply(
            Receipt(
                self._identity(), self.channel, ticket, state, state, why=why, permanent=permanent, sms=sms
            )
        )

    def invite(self, invited: Invited) -> list[Outbound]:
        """Somebody asks the person to take a survey."""
        expires_at = 0 if invited.expires_in is None else max(1, self.now + invited.expires_in)
        return self.apply(
            Invitation(
                self._identity(),
                self.channel,
                invited.survey or self.policy.surveys[0],
                invited.language,
                invited.content,
                invited.variables,
                expires_at,
                invited.reference,
            )
        )

    def apply(self, event: Inbound) -> list[Outbound]:
        """Let one event come in now."""
        self.moments = []
        return self._advance(event)

    def told(self, told: Told) -> list[str]:
        """From here on the channel has this number, and knows the person by this name. Nothing is said."""
        contacts = {SENDER: told.contact} if told.contact else {}
        number = told.number or NUMBER
        self.policy = msgspec.structs.replace(self.policy, number=number, contacts=contacts)
        self.moments = []
        return []

    def wait(self, ms: int) -> list[str]:
        """Let time go by, alarms ringing as they fall due; what is said meanwhile."""
        until, said = self.now + ms, []
        while (alarm := self.alarm) is not None and alarm <= until:
            self.now = max(self.now, alarm)
            said += [sms.text for sms in self._advance(None)]
        self.now = until
        return said

    @property
    def alarm(self) -> int | None:
        """When something is due though nobody writes (ms)."""
        return self.last.alarm if self.last is not None else None

    def seen(self, kind: type[Any]) -> list[Any]:
        """The records of one kind, oldest first."""
        return [record for record in self.records if isinstance(record, kind)]

    def twin(self) -> "Phone":
        """The same person at the same moment, whose future is their own."""
        twin = Phone(self.surveys, self.policy, channel=self.channel, now=self.now)
        twin.lane, twin.last = decode(encode(self.lane)), self.last
        twin.records, twin.moments, twin._count = list(self.records), list(self.moments), self._count
        return twin

    def do(self, done: Done) -> list[Entry]:
        """What a transcript says is done, and what a transcript says came of it: SMS first, then what was decided."""
        noted = len(self.records)
        match done:
            case Came(text):
                said = self.text(text)
            case Passed(ms):
                said = self.wait(ms)
            case Invited():
                said = [sms.text for sms in self.invite(done)]
            case Stopped(text):
                said = [sms.text for sms in self.provider_stop(text)]
            case Cancelled():
                said = [sms.text for sms in self.cancel()]
            case Unreachable(why):
                said = [sms.text for sms in self.receipt("failed", permanent=True, why=why)]
            case Told():
                said = self.told(done)
            case _:
                assert_never(done)
        return [*map(Went, said), *notes(self.records[noted:])]

    def _advance(self, event: Inbound | None) -> list[Outbound]:
        mail = [Mail(self.now, event)] if event is not None else []
        before = decode(encode(self.lane))
        policy = {self.channel: self.policy}
        self.last = advance(decode(encode(before)), SENDER, mail, self.now, self.surveys, policy)
        self.lane = decode(encode(self.last.lane))
        self.records += self.last.records
        self.moments.append(Moment(before, event, self.now, self.last.records))
        return self.last.outbox

    def _identity(self) -> str:
        self._count += 1
        return f"{self._count:016x}"


def notes(records: Sequence[Record]) -> list[Noted]:
    """What was decided besides SMS, as a transcript notes it."""
    noted: list[Noted] = []
    for record in records:
        match record:
            case Ended(how=how, why=why):
                noted.append(Noted(f"{how}: {why}" if why else how))
            case Refused(reason=reason):
                noted.append(Noted(f"refused: {reason}"))
            case OptedOut():
                noted.append(Noted("opted out"))
            case OptedIn():
                noted.append(Noted("opted in"))
            case _:
                pass
    return noted


def playable(files: Mapping[str, bytes]) -> tuple[Surveys, list[str]]:
    """The surveys in `files` (file name -> content), and every problem of theirs, as sentences.

    What is merely proved to be wrong can be played, so that one sees it go wrong. What would talk for ever cannot.
    """
    found: dict[str, Survey] = {}
    problems: list[str] = []
    for file, source in files.items():
        try:
            survey, _ = read_survey(file, source)
        except Rejected as e:
            problems += [f"{file}: {problem}" for problem in e.problems]
            continue
        if survey.most_sms is None:
            problems += [f"{file}: {problem}" for problem in chatter(survey.steps)]
        if (other := found.setdefault(survey.name, survey)) is not survey:
            problems.append(f"{file}: the survey '{survey.name}' is in {other.file} already")
    return Surveys(found.values()), problems


def phone_for(transcript: Transcript, surveys: Surveys, offered: Sequence[str] = ()) -> Phone:
    """Whoever is to play `transcript` on a channel that offers its surveys, or `offered` if it names none.

    Raises engine.proofs.transcripts.Unreadable if it is of a survey that `surveys` does not have.
    """
    names = transcript.surveys or tuple(offered)
    for name in names:
        if surveys.current(name) is None:
            known = ", ".join(surveys.names()) or "none"
            raise Unreadable(
                f"the transcript is of the survey '{name}': expected one of those given, {known}"
            )
    begins = transcript.begins
    timezone = ZoneInfo(begins.timezone if begins is not None else TIMEZONE)
    policy = ChannelPolicy(surveys=names, timezone=timezone, number=NUMBER)
    return Phone(surveys, policy, now=begins.at if begins is not None else BEGINS_AT)


def play(transcript: Transcript, surveys: Surveys) -> Transcript:
    """The transcript of a phone that does what is done in `transcript`. Raises engine.proofs.transcripts.Unreadable."""
    phone = phone_for(transcript, surveys)
    entries = tuple(entry for entries in playing(transcript.entries, phone) for entry in entries)
    return msgspec.structs.replace(transcript, entries=entries)


def playing(entries: Sequence[Entry], phone: Phone) -> Iterator[list[Entry]]:
    """Do what is done in `entries`, one after the other: each thing, and what came of it."""
    for entry in entries:
        match entry:
            case Came() | Passed() | Invited() | Stopped() | Cancelled() | Unreachable() | Told():
                yield [entry, *phone.do(entry)]
            case Remark():
                yield [entry]
            case Went() | Noted():
                pass
            case _:
                assert_never(entry)
