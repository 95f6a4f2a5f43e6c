"""Is a bound attained? The conversation that belongs to it, played with the very engine that will run it.

A walk is turned into what a person texts and how long they are silent; what the engine then says is counted.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import assert_never
from zoneinfo import ZoneInfo

import msgspec

from engine.answers import (
    AnythingReader,
    ChoiceReader,
    ChoicesReader,
    DateReader,
    NumberReader,
    PhoneReader,
    PhpNumberReader,
    Reader,
    ScaleReader,
    TextReader,
    Unread,
    Why,
    YesNoReader,
    read,
)
from engine.model.events import Ended, Invitation, Mail, Outbound, Said, Sms
from engine.model.lane import Lane
from engine.model.policy import ChannelPolicy
from engine.model.segments import count
from engine.model.text_normalization import fold, fold_word
from engine.proofs.regions import LONGEST_NUMBER, TODAY
from engine.proofs.transcripts import Begins, Came, Entry, Invited, Passed, Told, Transcript, compose
from engine.proofs.weighing import Visit, Weights
from engine.surveys.program import Ask, Reask, Survey
from engine.surveys.survey_registry import Surveys
from engine.surveys.variables import CONTACT, NUMBER, TOLD, place_of
from engine.turns.advance import Advance, advance
from engine.turns.turn import DAY_MS

CHANNEL = "channel"
SENDER = "+33600000000"
START_MS = int(datetime(TODAY.year, TODAY.month, TODAY.day, 8, tzinfo=UTC).timestamp() * 1000)


class Played(msgspec.Struct, frozen=True):
    """`script` is what the person does, as a transcript that `parley chat` plays."""

    sms_out: int
    sms_in: int
    segments: int
    script: str


class Unplayable(Exception):
    """Nobody knows an SMS that takes the walk where it goes."""


def play(
    survey: Survey,
    visits: Sequence[Visit],
    language: str,
    variables: Mapping[str, str],
    weights: Weights,
) -> Played:
    """Raises Unplayable. Of `variables`, those that begin with $ are told by the channel, the others by an inviter."""
    told = {key: value for key, value in variables.items() if place_of(key) in TOLD}
    person = _Person(survey, told)
    silences = [(visit.reminders, survey.steps[visit.step]) for visit in visits]
    lasts_ms = sum(n * step.remind.after_ms for n, step in silences if isinstance(step, Ask) and step.remind)
    invited = {key: value for key, value in variables.items() if key not in told}
    person.open(language, invited, lasts_ms + DAY_MS if lasts_ms > survey.expires_ms - DAY_MS else None)
    for visit in visits:
        step = survey.steps[visit.step]
        if isinstance(step, Ask) and person.is_asked:
            person.take_time(visit.reminders)
            for text in _texts_for(visit, step, weights):
                if person.is_asked:
                    person.text(text)
    return person.played(f"a conversation that comes to the bound, in {language}")


class _Person:
    """Somebody who texts one survey, on a lane of their own."""

    def __init__(self, survey: Survey, told: Mapping[str, str]) -> None:
        self._survey = survey
        self._surveys = Surveys([survey])
        line = Told(told.get(NUMBER[1:], LONGEST_NUMBER), told.get(CONTACT[1:], ""))
        self._policy = {
            CHANNEL: ChannelPolicy(
                surveys=(survey.name,),
                timezone=ZoneInfo("UTC"),
                start_burst=0,
                number=line.number,
                contacts={SENDER: line.contact} if line.contact else {},
            )
        }
        self._lane = Lane()
        self._now = START_MS
        self._alarm: int | None = None
        self._out: list[Outbound] = []
        self._script: list[Entry] = [line] if survey.told else []
        self._count = 0
        self._heard = 0

    @property
    def is_asked(self) -> bool:
        return self._lane.lines[CHANNEL].session is not None

    def open(self, language: str, variables: Mapping[str, str], expires_in: int | None) -> None:
        """START, or an invitation where a START would not do."""
        start = self._survey.start
        keywords = {start.anything: "x"} | {of: word for word, of in reversed(list(start.words.items()))}
        if variables or language not in keywords or expires_in is not None:
            self._script.append(Invited(language=language, variables=dict(variables), expires_in=expires_in))
            invitation = Invitation(
                self._identity(), CHANNEL, self._survey.name, language, variables=dict(variables),
                expires_at=0 if expires_in is None else self._now + expires_in,
            )  # fmt: skip
            self._take(advance(
                self._lane, SENDER, [Mail(self._now, invitation)], self._now, self._surveys, self._policy
            ))  # fmt: skip
        else:
            self.text(keywords[language], start=True)

    def text(self, text: str, *, start: bool = False) -> None:
        self._script.append(Came(text))
        keyword = self._survey.start.match(fold(text), fold_word(text)) is not None
        sms = Sms(self._identity(), CHANNEL, text, start or keyword)
        self._take(advance(
            self._lane, SENDER, [Mail(self._now, sms)], self._now, self._surveys, self._policy
        ))  # fmt: skip

    def take_time(self, reminders: int) -> None:
        """Be silent until so many reminders have come."""
        for _ in range(reminders):
            if self._alarm is None:
                return
            waited = self._alarm - self._now
            self._script.append(Passed(waited))
            self._now += waited
            self._take(advance(self._lane, SENDER, [], self._now, self._surveys, self._policy), came=False)

    def played(self, title: str) -> Played:
        return Played(
            sms_out=len(self._out),
            sms_in=self._heard,
            segments=sum(count(sms.text).segments for sms in self._out),
            script=compose(
                Transcript((self._survey.name,), title, tuple(self._script), Begins(START_MS, "UTC"))
            ),
        )

    def _identity(self) -> str:
        self._count += 1
        return f"{self._count:016x}"

    def _take(self, advanced: Advance, *, came: bool = True) -> None:
        """An SMS counts as heard if it moved the session: STOP, HELP and a START that is ignored do not."""
        moved = any(
            (isinstance(record, Said) and record.session)
            or (isinstance(record, Ended) and record.how != "stopped")
            for record in advanced.records
        )
        self._heard += came and moved
        self._out += [sms for sms in advanced.outbox if sms.session]
        self._alarm = advanced.alarm


def _texts_for(visit: Visit, step: Ask, weights: Weights) -> Iterator[str]:
    """What is texted while the session is at the step: invalid answers, then what leads on."""
    gave_up = visit.move is not None and visit.move.gave_up
    if visit.repeats or gave_up:
        yield from [_misread(step, weights)] * (visit.repeats + gave_up)
    if visit.move is not None and visit.move.region is not None:
        if visit.move.region.sms is None:
            raise Unplayable
        yield visit.move.region.sms


def _misread(step: Ask, weights: Weights) -> str:
    """The invalid answer that weighs most."""
    if not isinstance(step.invalid, Reask):
        raise Unplayable
    found: dict[Why, str] = {}
    for text in _invalid(step.reader):
        answer = read(step.reader, text, lambda: TODAY)
        if isinstance(answer, Unread):
            found.setdefault(answer.why, text)
    known = [why for why in found if why in step.invalid.texts]
    if not known:
        raise Unplayable
    texts = step.invalid.texts
    return found[max(known, key=lambda why: weights.text(texts[why], {}))]


def _invalid(reader: Reader) -> Iterator[str]:
    """SMS that are no answers, for every reason that there may be."""
    match reader:
        case TextReader(max=longest):
            yield from ("x" * (longest + 1), "", "?", "0", "x")
        case NumberReader(min=low, max=high) | ScaleReader(low=low, high=high):
            yield from ("?", "1,250", "0.1234567890123")
            yield from (
                f"{low - 1:f}" if low is not None else "",
                f"{high + 1:f}" if high is not None else "",
            )
            yield from (
                f"{low - 1:.0f}" if low is not None else "",
                f"{high + 1:.0f}" if high is not None else "",
            )
        case ChoicesReader(ids=ids):
            yield from ("?", " ".join(str(number + 1) for number in range(len(ids))), "1", "0")
        case DateReader():
            yield from ("?", "1/1", "31/02/2030", "31/2", "0001-01-01", "9999-12-31")
        case ChoiceReader() | YesNoReader() | PhoneReader() | PhpNumberReader():
            yield from ("?", "0")
        case AnythingReader():
            return
        case _:
            assert_never(reader)
