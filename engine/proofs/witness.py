"""Is a bound attained? The conversation that belongs to it, played with the very engine that will run it.

A walk is turned into what a person texts and how long they are silent; what the engine then says is counted.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import msgspec

from engine.answers import NO_MEDIA, InvalidAnswer, InvalidReason, read_answer
from engine.model.effects import Effects
from engine.model.errors import ParleyError
from engine.model.events import (
    Attachment,
    InboundSms,
    Invitation,
    Mail,
    OutboundSms,
    SessionEnded,
    SmsDecided,
)
from engine.model.lane import Lane
from engine.model.policy import ChannelPolicy
from engine.model.segments import most_segments
from engine.model.text_normalization import fold_text, fold_word
from engine.proofs.regions import LONGEST_CHANNEL_NUMBER, PROOF_DAY
from engine.proofs.transcripts import (
    ChannelDetails,
    MmsIn,
    PersonInvited,
    SmsIn,
    TimePassed,
    Transcript,
    TranscriptEntry,
    TranscriptStart,
    format_transcript,
)
from engine.proofs.weighing import StepVisit, WalkWeights
from engine.surveys.program import QuestionStep, ReaskInvalid, Survey
from engine.surveys.survey_registry import SurveyRegistry
from engine.surveys.variables import BUILTIN_VARIABLES, CONTACT_KEY, NUMBER_KEY, answer_key
from engine.turns.advance import advance
from engine.turns.turn import DAY_MS

PROOF_CHANNEL = "channel"
PROOF_SENDER = "+33600000000"
PROOF_START_MS = int(
    datetime(PROOF_DAY.year, PROOF_DAY.month, PROOF_DAY.day, 8, tzinfo=UTC).timestamp() * 1000
)


class PlayedWalk(msgspec.Struct, frozen=True):
    """Counts of a played conversation. `script` is what its person does, as a transcript that `parley chat --script`
    plays."""

    sms_out: int
    sms_in: int
    segments: int
    script: str


class UnplayableWalkError(ParleyError):
    """The walk needs an SMS, or a value of a variable, that is not known."""


def play_walk(
    survey: Survey,
    visits: Sequence[StepVisit],
    language: str,
    variables: Mapping[str, str],
    weights: WalkWeights,
) -> PlayedWalk:
    """Play `visits` with the engine, and count SMS and segments. Raises UnplayableWalkError.

    `variables` with a $ are supplied by the channel, all others by the invitation."""
    told = {key: value for key, value in variables.items() if answer_key(key) in BUILTIN_VARIABLES}
    person = _SimulatedPerson(survey, told)
    silences = [(visit.reminders, survey.steps[visit.step]) for visit in visits]
    lasts_ms = sum(
        n * step.remind.after_ms for n, step in silences if isinstance(step, QuestionStep) and step.remind
    )
    invited = {key: value for key, value in variables.items() if key not in told}
    person.open_session(
        language, invited, lasts_ms + DAY_MS if lasts_ms > survey.expires_ms - DAY_MS else None
    )
    for visit in visits:
        step = survey.steps[visit.step]
        if isinstance(step, QuestionStep) and person.is_asked:
            person.wait_for_reminders(visit.reminders)
            for sent in _replies_for(visit, step, weights):
                if person.is_asked:
                    person.send(sent)
    return person.summarize_walk(f"a conversation that comes to the bound, in {language}")


class _SimulatedPerson:
    """Somebody who texts one survey, on a lane of their own."""

    def __init__(self, survey: Survey, told: Mapping[str, str]) -> None:
        self._survey = survey
        self._surveys = SurveyRegistry([survey])
        line = ChannelDetails(told.get(NUMBER_KEY[1:], LONGEST_CHANNEL_NUMBER), told.get(CONTACT_KEY[1:], ""))
        self._policy = {
            PROOF_CHANNEL: ChannelPolicy(
                surveys=(survey.name,),
                timezone=ZoneInfo("UTC"),
                start_burst=0,
                number=line.number,
                contacts={PROOF_SENDER: line.contact} if line.contact else {},
            )
        }
        self._lane = Lane()
        self._now = PROOF_START_MS
        self._alarm: int | None = None
        self._sms_out: list[OutboundSms] = []
        self._script: list[TranscriptEntry] = [line] if survey.told else []
        self._count = 0
        self._sms_in = 0

    @property
    def is_asked(self) -> bool:
        return self._lane.lines[PROOF_CHANNEL].session is not None

    def open_session(self, language: str, variables: Mapping[str, str], expires_in: int | None) -> None:
        """START, or an invitation where a START would not do."""
        start = self._survey.start
        keywords = {start.any_sms_language: "x"} | {
            of: word for word, of in reversed(list(start.words.items()))
        }
        if variables or language not in keywords or expires_in is not None:
            self._script.append(
                PersonInvited(language=language, variables=dict(variables), expires_in=expires_in)
            )
            invitation = Invitation(
                self._next_id(), PROOF_CHANNEL, self._survey.name, language, variables=dict(variables),
                expires_at=0 if expires_in is None else self._now + expires_in,
            )  # fmt: skip
            self._record_advance(
                advance(
                    self._lane,
                    PROOF_SENDER,
                    [Mail(self._now, invitation)],
                    self._now,
                    self._surveys,
                    self._policy,
                )
            )
        else:
            self.send_sms(keywords[language], start=True)

    def send(self, sent: SmsIn | MmsIn) -> None:
        match sent:
            case SmsIn(text):
                self.send_sms(text)
            case MmsIn(media_type):
                self._script.append(sent)
                attached = (Attachment(media_type, ""),)
                self._receive(InboundSms(self._next_id(), PROOF_CHANNEL, "", attachments=attached))

    def send_sms(self, text: str, *, start: bool = False) -> None:
        self._script.append(SmsIn(text))
        keyword = self._survey.start.match_language(fold_text(text), fold_word(text)) is not None
        self._receive(InboundSms(self._next_id(), PROOF_CHANNEL, text, start or keyword))

    def _receive(self, sms: InboundSms) -> None:
        self._record_advance(advance(
            self._lane, PROOF_SENDER, [Mail(self._now, sms)], self._now, self._surveys, self._policy
        ))  # fmt: skip

    def wait_for_reminders(self, reminders: int) -> None:
        """Be silent until so many reminders have come."""
        for _ in range(reminders):
            if self._alarm is None:
                return
            waited = self._alarm - self._now
            self._script.append(TimePassed(waited))
            self._now += waited
            self._record_advance(
                advance(self._lane, PROOF_SENDER, [], self._now, self._surveys, self._policy), came=False
            )

    def summarize_walk(self, title: str) -> PlayedWalk:
        return PlayedWalk(
            sms_out=len(self._sms_out),
            sms_in=self._sms_in,
            segments=sum(most_segments(sms.text) for sms in self._sms_out),
            script=format_transcript(
                Transcript(
                    (self._survey.name,), title, tuple(self._script), TranscriptStart(PROOF_START_MS, "UTC")
                )
            ),
        )

    def _next_id(self) -> str:
        self._count += 1
        return f"{self._count:016x}"

    def _record_advance(self, advanced: Effects, *, came: bool = True) -> None:
        """An SMS counts as heard if it moved the session: STOP, HELP and a START that is ignored do not."""
        moved = any(
            (isinstance(record, SmsDecided) and record.session)
            or (isinstance(record, SessionEnded) and record.how != "stopped")
            for record in advanced.records
        )
        self._sms_in += came and moved
        self._sms_out += [sms for sms in advanced.outbox if sms.session]
        self._alarm = advanced.alarm or None


def _replies_for(visit: StepVisit, step: QuestionStep, weights: WalkWeights) -> Iterator[SmsIn | MmsIn]:
    """What is sent while the session is at the step: invalid answers, then what leads on."""
    gave_up = visit.move is not None and visit.move.gave_up
    if visit.repeats or gave_up:
        yield from [_dearest_invalid(step, weights)] * (visit.repeats + gave_up)
    if visit.move is not None and visit.move.region is not None:
        if visit.move.region.sms is None:
            raise UnplayableWalkError
        yield SmsIn(visit.move.region.sms)


def _dearest_invalid(step: QuestionStep, weights: WalkWeights) -> SmsIn | MmsIn:
    """The invalid answer that weighs most."""
    if not isinstance(step.invalid, ReaskInvalid):
        raise UnplayableWalkError
    found: dict[InvalidReason, SmsIn | MmsIn] = {}
    for text in step.reader.invalid_replies():
        answer = read_answer(step.reader, text, lambda: PROOF_DAY)
        if isinstance(answer, InvalidAnswer):
            found.setdefault(answer.reason, SmsIn(text))
    found[NO_MEDIA] = MmsIn()
    known = [why for why in found if why in step.invalid.texts]
    if not known:
        raise UnplayableWalkError
    texts = step.invalid.texts
    return found[max(known, key=lambda why: weights.text(texts[why], {}))]
