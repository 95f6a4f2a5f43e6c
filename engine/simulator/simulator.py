"""A person who texts one channel, and the clock on their wall: the engine without a server.

Nothing happens unless they do it. Time goes by when they wait, alarms ring as they fall due, and the lane is encoded
and decoded between any two calls, as it is in production.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, assert_never
from zoneinfo import ZoneInfo

import msgspec

from engine.model.effects import Effects
from engine.model.events import (
    ArchiveRecord,
    Attachment,
    CancelSession,
    DeliveryReceipt,
    HandledCommand,
    InboundEvent,
    InboundSms,
    Invitation,
    Mail,
    OpeningRefused,
    OutboundSms,
    PersonOptedIn,
    PersonOptedOut,
    ProviderStop,
    SessionEnded,
    SessionOpened,
    SmsDecided,
    SmsPart,
    SmsState,
)
from engine.model.lane import ChannelLine, Lane, decode_lane, encode_lane
from engine.model.policy import ChannelPolicy
from engine.proofs.transcripts import (
    ChannelDetails,
    DecisionNote,
    MmsIn,
    PersonInvited,
    PersonUnreachable,
    ProviderOptOut,
    Remark,
    SessionCancelled,
    SmsIn,
    SmsOut,
    TimePassed,
    Transcript,
    TranscriptAction,
    TranscriptEntry,
    TranscriptError,
)
from engine.surveys.findings import InvalidSurveyError
from engine.surveys.keywords import is_start
from engine.surveys.program import Survey
from engine.surveys.step_graph import endless_statements
from engine.surveys.survey_reader import read_survey
from engine.surveys.survey_registry import SurveyRegistry
from engine.turns.advance import advance

SIMULATED_SENDER = "+33612345678"
SIMULATED_NUMBER = "+33700000001"
"""The channel's, where a conversation does not tell."""

SIMULATED_CHANNEL = "line"
DEFAULT_START_MS = 1_800_000_000_000
"""When a conversation begins that does not say when: 2027-01-15 08:00 UTC."""

DEFAULT_TIMEZONE = "Europe/Paris"
"""Whose calendar counts where none is given."""


class LaneMoment(msgspec.Struct, frozen=True):
    """One call of the engine: the lane before it, the event (None: an alarm fired), the time in ms, and the records
    it produced."""

    before: Lane
    event: InboundEvent | None
    at: int
    records: Sequence[ArchiveRecord]


class SimulatedPhone:
    """Simulates one person on one channel. `now` is in ms; `moments` holds every engine call since the last action
    began, that action's included."""

    def __init__(
        self,
        surveys: SurveyRegistry,
        policy: ChannelPolicy,
        *,
        channel: str = SIMULATED_CHANNEL,
        now: int = DEFAULT_START_MS,
    ) -> None:
        self.surveys = surveys
        self.policy = policy
        self.channel = channel
        self.now = now
        self.lane = Lane()
        self.last_advance: Effects | None = None
        self.records: list[ArchiveRecord] = []
        self.moments: list[LaneMoment] = []
        self._count = 0

    @property
    def channel_state(self) -> ChannelLine:
        """What the channel and the person share; a new one if nothing has happened."""
        return self.lane.lines.get(self.channel) or ChannelLine()

    def text(
        self, text: str, *, after_ms: int = 0, handled: HandledCommand = "", originator: str = ""
    ) -> list[str]:
        """Text the channel, or one of its sub-numbers, after a while; what it answers."""
        self.wait(after_ms)
        start = is_start(text, self.policy.surveys, self.surveys)
        sms = InboundSms(self._next_id(), self.channel, text, start, handled=handled, originator=originator)
        return [sms.text for sms in self.apply_event(sms)]

    def part(self, text: str, number: int, total: int, reference: str = "1") -> list[str]:
        """One part of a long text comes in; what is answered."""
        part = SmsPart(self._next_id(), self.channel, text, reference, number, total)
        return [sms.text for sms in self.apply_event(part)]

    def provider_stop(self, text: str = "stop", source: str = "") -> list[OutboundSms]:
        """The person opts out with the provider, or an operator's list says so."""
        return self.apply_event(ProviderStop(self._next_id(), self.channel, text, source))

    def cancel(self, session: str = "") -> list[OutboundSms]:
        """Whoever invited wants no more of a session; by default of the one that was opened last."""
        last = next((opened.session for opened in reversed(self.records_of(SessionOpened))), "")
        return self.apply_event(CancelSession(self._next_id(), self.channel, session or last))

    def receipt(
        self, state: SmsState, *, sms: str = "", ticket: str = "", permanent: bool = False, why: str = ""
    ) -> list[OutboundSms]:
        """The provider tells what has become of an SMS; by default of the last one that was said."""
        if not sms and not ticket:
            sms = next((said.id for said in reversed(self.records_of(SmsDecided))), "")
        return self.apply_event(
            DeliveryReceipt(
                self._next_id(), self.channel, ticket, state, state, why=why, permanent=permanent, sms=sms
            )
        )

    def receive_mms(self, media_type: str) -> list[OutboundSms]:
        """The person sends an attachment, and no text."""
        attached = (Attachment(media_type, ""),)
        return self.apply_event(InboundSms(self._next_id(), self.channel, "", attachments=attached))

    def invite(self, invited: PersonInvited) -> list[OutboundSms]:
        """Somebody asks the person to take a survey."""
        expires_at = 0 if invited.expires_in is None else max(1, self.now + invited.expires_in)
        return self.apply_event(
            Invitation(
                self._next_id(),
                self.channel,
                invited.survey or self.policy.surveys[0],
                invited.language,
                invited.content,
                invited.variables,
                expires_at,
                invited.reference,
            )
        )

    def apply_event(self, event: InboundEvent) -> list[OutboundSms]:
        """Let one event come in now."""
        self.moments = []
        return self._advance_lane(event)

    def set_details(self, told: ChannelDetails) -> list[str]:
        """Set the channel's number and the contact name of the person from now on. Sends nothing."""
        contacts = {SIMULATED_SENDER: told.contact} if told.contact else {}
        number = told.number or SIMULATED_NUMBER
        self.policy = msgspec.structs.replace(self.policy, number=number, contacts=contacts)
        self.moments = []
        return []

    def wait(self, ms: int) -> list[str]:
        """Let time go by, alarms ringing as they fall due; what is said meanwhile."""
        until, said = self.now + ms, []
        while (alarm := self.alarm) is not None and alarm <= until:
            self.now = max(self.now, alarm)
            said += [sms.text for sms in self._advance_lane(None)]
        self.now = until
        return said

    @property
    def alarm(self) -> int | None:
        """When something is due though nobody writes (ms)."""
        return (self.last_advance.alarm or None) if self.last_advance is not None else None

    def records_of(self, kind: type[Any]) -> list[Any]:
        """The records of one kind, oldest first."""
        return [record for record in self.records if isinstance(record, kind)]

    def clone(self) -> "SimulatedPhone":
        """Return an independent copy of this phone at the same moment."""
        twin = SimulatedPhone(self.surveys, self.policy, channel=self.channel, now=self.now)
        twin.lane, twin.last_advance = decode_lane(encode_lane(self.lane)), self.last_advance
        twin.records, twin.moments, twin._count = list(self.records), list(self.moments), self._count
        return twin

    def play_action(self, done: TranscriptAction) -> list[TranscriptEntry]:
        """Play one action of a transcript; return its outcome as entries, SMS first, then decisions."""
        noted = len(self.records)
        match done:
            case SmsIn(text):
                said = self.text(text)
            case MmsIn(media_type):
                said = [sms.text for sms in self.receive_mms(media_type)]
            case TimePassed(ms):
                said = self.wait(ms)
            case PersonInvited():
                said = [sms.text for sms in self.invite(done)]
            case ProviderOptOut(text):
                said = [sms.text for sms in self.provider_stop(text)]
            case SessionCancelled():
                said = [sms.text for sms in self.cancel()]
            case PersonUnreachable(why):
                said = [sms.text for sms in self.receipt("failed", permanent=True, why=why)]
            case ChannelDetails():
                said = self.set_details(done)
            case _:
                assert_never(done)
        return [*map(SmsOut, said), *decision_notes(self.records[noted:])]

    def _advance_lane(self, event: InboundEvent | None) -> list[OutboundSms]:
        mail = [Mail(self.now, event)] if event is not None else []
        before = decode_lane(encode_lane(self.lane))
        policy = {self.channel: self.policy}
        lane = decode_lane(encode_lane(before))
        self.last_advance = advance(lane, SIMULATED_SENDER, mail, self.now, self.surveys, policy)
        self.lane = decode_lane(encode_lane(lane))
        self.records += self.last_advance.records
        self.moments.append(LaneMoment(before, event, self.now, self.last_advance.records))
        return self.last_advance.outbox

    def _next_id(self) -> str:
        self._count += 1
        return f"{self._count:016x}"


def decision_notes(records: Sequence[ArchiveRecord]) -> list[DecisionNote]:
    """What was decided besides SMS, as a transcript notes it."""
    noted: list[DecisionNote] = []
    for record in records:
        match record:
            case SessionEnded(how=how, why=why):
                noted.append(DecisionNote(f"{how}: {why}" if why else how))
            case OpeningRefused(reason=reason):
                noted.append(DecisionNote(f"refused: {reason}"))
            case PersonOptedOut():
                noted.append(DecisionNote("opted out"))
            case PersonOptedIn():
                noted.append(DecisionNote("opted in"))
            case _:
                pass
    return noted


def playable_surveys(files: Mapping[str, bytes]) -> tuple[SurveyRegistry, list[str]]:
    """The surveys in `files` (file name -> content), and every problem of theirs, as sentences.

    What is merely proved to be wrong can be played, so that one sees it go wrong. What would talk for ever cannot.
    """
    found: dict[str, Survey] = {}
    problems: list[str] = []
    for file, source in files.items():
        try:
            survey, _ = read_survey(file, source)
        except InvalidSurveyError as e:
            problems += e.tell(file)
            continue
        if survey.most_sms is None:
            problems += [f"{file}: {problem}" for problem in endless_statements(survey.steps)]
        if (other := found.setdefault(survey.name, survey)) is not survey:
            problems.append(f"{file}: the survey '{survey.name}' is in {other.file} already")
    return SurveyRegistry(found.values()), problems


def phone_for(transcript: Transcript, surveys: SurveyRegistry, offered: Sequence[str] = ()) -> SimulatedPhone:
    """Whoever is to play `transcript` on a channel that offers its surveys, or `offered` if it names none.

    Raises engine.proofs.transcripts.TranscriptError if it is of a survey that `surveys` does not have.
    """
    names = transcript.surveys or tuple(offered)
    for name in names:
        if surveys.current(name) is None:
            known = ", ".join(surveys.current_names()) or "none"
            raise TranscriptError(
                f"the transcript is of the survey '{name}': expected one of those given, {known}"
            )
    begins = transcript.begins
    timezone = ZoneInfo(begins.timezone if begins is not None else DEFAULT_TIMEZONE)
    policy = ChannelPolicy(surveys=names, timezone=timezone, number=SIMULATED_NUMBER)
    return SimulatedPhone(surveys, policy, now=begins.at if begins is not None else DEFAULT_START_MS)


def play_transcript(transcript: Transcript, surveys: SurveyRegistry) -> Transcript:
    """The transcript of a phone that does what is done in `transcript`. Raises engine.proofs.transcripts.TranscriptError."""
    phone = phone_for(transcript, surveys)
    entries = tuple(entry for entries in play_entries(transcript.entries, phone) for entry in entries)
    return msgspec.structs.replace(transcript, entries=entries)


def play_entries(
    entries: Sequence[TranscriptEntry], phone: SimulatedPhone
) -> Iterator[list[TranscriptEntry]]:
    """Do what is done in `entries`, one after the other: each thing, and what came of it."""
    for entry in entries:
        match entry:
            case (
                SmsIn()
                | TimePassed()
                | PersonInvited()
                | ProviderOptOut()
                | SessionCancelled()
                | PersonUnreachable()
                | MmsIn()
                | ChannelDetails()
            ):
                yield [entry, *phone.play_action(entry)]
            case Remark():
                yield [entry]
            case SmsOut() | DecisionNote():
                pass
            case _:
                assert_never(entry)
