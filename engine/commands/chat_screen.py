"""What `parley chat` shows of a conversation: what is said and costs, what is waited for, what is yet to come."""

from collections.abc import Iterator, Sequence
from decimal import Decimal

from rich.console import Console
from rich.text import Text

from engine.model.events import Answer, Ended, Heard, Record, Said
from engine.model.lane import Session
from engine.model.segments import Segments, count
from engine.proofs.transcripts import Came, Entry, Noted, Passed, Remark, Told, Went, lasting, written
from engine.simulator.explanations import ENDING
from engine.simulator.simulator import Phone, notes
from engine.surveys.program import Ask, Survey
from engine.surveys.variables import TOLD, is_variable
from engine.surveys.wording import describe_reader

_ALONE = {"GSM-7": 160, "UCS-2": 70}
_JOINED = {"GSM-7": 153, "UCS-2": 67}
_MOST_DEADLINES = 8


class Screen:
    """Shows what a phone does, and what comes of it."""

    def __init__(self, console: Console, phone: Phone, price: Decimal | None) -> None:
        self.console = console
        self._price = price
        self._phone = phone
        self._shown = 0

    def look_at(self, phone: Phone) -> None:
        """From here on show this phone, whose past is known."""
        self._phone, self._shown = phone, len(phone.records)

    def dim(self, text: str) -> None:
        self.console.print(Text(text, "dim"))

    def entry(self, entry: Entry) -> None:
        """Something that a script does."""
        style = "dim" if isinstance(entry, Remark) else "bold cyan"
        self.console.print(Text(written(entry), style))

    def outcome(self, done: Entry) -> None:
        """What came of it, with what it costs, how long it took if time went by, and what is waited for."""
        if isinstance(done, (Remark, Told)):
            return
        phone = self._phone
        records, self._shown = phone.records[self._shown :], len(phone.records)
        if isinstance(done, Passed):
            since = phone.now - done.ms
        else:
            since = None
            records.sort(key=lambda record: not isinstance(record, Said))  # as a transcript has it
        noted = [self._record(record, _offset(record.at, since)) for record in records]
        self._standing(in_silence=isinstance(done, Came) and not any(noted))

    def _record(self, record: Record, offset: str) -> bool:
        """Show it; False if there is nothing to show."""
        if isinstance(record, Said):
            self._said(record.text, offset)
        for noted in (found := notes([record])):
            self._noted(noted, offset)
        if isinstance(record, Ended):
            of_session = [each for each in self._phone.records if _session_of(each) == record.session]
            self.dim(f"  the session is over, as {ENDING[record.how]}: {self._sum(of_session)}")
        return isinstance(record, Said) or bool(found)

    def _said(self, text: str, offset: str) -> None:
        line = Text().append(offset, "dim")
        line.append(written(Went(text)), "green")
        line.append(f"  [{cost(count(text))}]", "dim")
        self.console.print(line)

    def _noted(self, noted: Noted, offset: str) -> None:
        self.console.print(Text().append(offset, "dim").append(written(noted), "yellow"))

    def _standing(self, *, in_silence: bool) -> None:
        step = _asked(self._phone)
        waits = f"waits for {describe_reader(step.reader)}; " if step is not None else ""
        silence = "nothing is said; " if in_silence else ""
        self.dim(f"  {silence}{waits}so far {self._sum(self._phone.records)}")

    def _sum(self, records: Sequence[Record]) -> str:
        """What they come to."""
        said = [count(record.text).segments for record in records if isinstance(record, Said)]
        heard = sum(isinstance(record, Heard) for record in records)
        money = f", {sum(said) * self._price}" if self._price is not None else ""
        return f"{heard} SMS in, {len(said)} out, {_many(sum(said), 'segment')}{money}"


def cost(segments: Segments) -> str:
    """`1 segment GSM-7, 34/160`: what a text takes, of what that many segments hold."""
    holds = (
        _ALONE[segments.encoding]
        if segments.segments == 1
        else _JOINED[segments.encoding] * segments.segments
    )
    return f"{_many(segments.segments, 'segment')} {segments.encoding}, {segments.units}/{holds}"


def keywords(survey: Survey) -> str:
    """What begins the survey."""
    several = len(survey.start.languages) > 1
    named = [(f"{word.upper()}", language) for word, language in survey.start.words.items()]
    named += [
        (f"what matches /{getattr(pattern, 'pattern', pattern)}/", language)
        for pattern, language in survey.start.patterns
    ]
    named += [("anything", survey.start.anything)] if survey.start.anything else []
    return f"Text {' or '.join(what + (f' ({language})' if several else '') for what, language in named)} to begin."


def state(phone: Phone) -> Iterator[str]:
    """Where the session stands, what was answered, and what is due, a line each."""
    line = phone.line
    if line.opted_out_at:
        yield "opted out"
    session = line.session
    if session is None:
        yield (
            f"no session is open; the last one ended: {line.ended_how}"
            if line.ended_how
            else "no session is open"
        )
        return
    step = _asked(phone)
    yield f"session of '{session.survey}', version {session.version}, in {session.language}"
    if step is not None:
        yield f"waits at '{step.id}' for {describe_reader(step.reader)}{_counted(session)}"
    for place, answer in session.answers.items():
        name = place[1:] if place in TOLD else place
        yield f"{'' if is_variable(place) else '  '}{name} = {_shown(answer)}"
    yield from _due(phone)


def _counted(session: Session) -> str:
    counts = [_many(session.misread, "invalid answer")] if session.misread else []
    counts += [_many(session.reminded, "reminder")] if session.reminded else []
    return f" ({', '.join(counts)})" if counts else ""


def _shown(answer: Answer) -> str:
    value = answer.value
    shown = " + ".join(value) if isinstance(value, tuple) else str(value)
    return shown if answer.raw == shown else f"{shown}   (written {answer.raw!r})"


def _due(phone: Phone) -> Iterator[str]:
    """What comes if nobody writes: it is simply tried."""
    twin = phone.twin()
    for _ in range(_MOST_DEADLINES):
        alarm = twin.alarm
        if alarm is None:
            return
        known = len(twin.records)
        twin.wait(max(0, alarm - twin.now))
        offset = _offset(twin.now, phone.now)
        for record in twin.records[known:]:
            if isinstance(record, Said):
                yield offset + written(Went(record.text))
            yield from (offset + written(noted) for noted in notes([record]))
    yield "and so on"


def _asked(phone: Phone) -> Ask | None:
    """What is waited for."""
    session = phone.line.session
    survey = phone.surveys.version(session.version) if session is not None else None
    step = survey.steps[session.step] if survey is not None and session is not None else None
    return step if isinstance(step, Ask) else None


def _session_of(record: Record) -> str:
    return getattr(record, "session", "")


def _offset(at: int, since: int | None) -> str:
    return "" if since is None else f"+{lasting((at - since) // 1000 * 1000)} "


def _many(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
