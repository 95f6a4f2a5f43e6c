"""What `parley chat` shows of a conversation: what is said and costs, what is waited for, what is yet to come."""

from collections.abc import Iterator, Sequence
from decimal import Decimal

from rich.console import Console
from rich.text import Text

from engine.commands.sms_lines import MARK_WIDTH, SENT_STYLE, print_received
from engine.commands.terminal import print_wrapped
from engine.model.durations import compact_duration
from engine.model.events import Answer, ArchiveRecord, SessionEnded, SmsDecided, SmsReceived
from engine.model.lane import Session
from engine.model.plurals import pluralize
from engine.model.segments import count_segments
from engine.proofs.transcripts import (
    ChannelDetails,
    DecisionNote,
    Remark,
    SmsIn,
    SmsOut,
    TimePassed,
    TranscriptEntry,
    format_entry,
)
from engine.simulator.explanations import ENDING_REASONS
from engine.simulator.simulator import SimulatedPhone, decision_notes
from engine.surveys.program import QuestionStep, Survey
from engine.surveys.variables import BUILTIN_VARIABLES, is_variable

_MOST_DEADLINES = 8


class ChatScreen:
    """Prints what a simulated phone does, and what comes of it."""

    def __init__(self, console: Console, phone: SimulatedPhone, price: Decimal | None) -> None:
        self.console = console
        self._price = price
        self._phone = phone
        self._shown_count = 0

    def switch_phone(self, phone: SimulatedPhone) -> None:
        """From here on show this phone, whose past is known."""
        self._phone, self._shown_count = phone, len(phone.records)

    def print_dim(self, text: str) -> None:
        print_wrapped(self.console, Text(text, "dim"), len(text) - len(text.lstrip()))

    def print_entry(self, entry: TranscriptEntry) -> None:
        """Something that a script does."""
        style = "dim" if isinstance(entry, Remark) else SENT_STYLE
        print_wrapped(self.console, Text(format_entry(entry), style), MARK_WIDTH)

    def print_outcome(self, done: TranscriptEntry) -> None:
        """Print the SMS and decisions that followed, their cost, how long they took if time went by, and what is waited for."""
        if isinstance(done, (Remark, ChannelDetails)):
            return
        phone = self._phone
        records, self._shown_count = phone.records[self._shown_count :], len(phone.records)
        if isinstance(done, TimePassed):
            since = phone.now - done.ms
        else:
            since = None
            records.sort(key=lambda record: not isinstance(record, SmsDecided))  # as a transcript has it
        noted = [self._print_record(record, _format_offset(record.at, since)) for record in records]
        self._print_status(in_silence=isinstance(done, SmsIn) and not any(noted))

    def _print_record(self, record: ArchiveRecord, offset: str) -> bool:
        """Show it; False if there is nothing to show."""
        if isinstance(record, SmsDecided):
            print_received(self.console, record.text, offset)
        for noted in (found := decision_notes([record])):
            self._print_note(noted, offset)
        if isinstance(record, SessionEnded):
            of_session = [each for each in self._phone.records if _session_of(each) == record.session]
            self.print_dim(
                f"  the session is over, as {ENDING_REASONS[record.how]}: "
                f"{self._summarize_records(of_session)}"
            )
        return isinstance(record, SmsDecided) or bool(found)

    def _print_note(self, noted: DecisionNote, offset: str) -> None:
        line = Text().append(offset, "dim").append(format_entry(noted), "yellow")
        print_wrapped(self.console, line, len(offset) + MARK_WIDTH)

    def _print_status(self, *, in_silence: bool) -> None:
        step = _open_question(self._phone)
        waits = f"waits for {step.reader.describe_answers()}; " if step is not None else ""
        silence = "nothing is said; " if in_silence else ""
        self.print_dim(f"  {silence}{waits}so far {self._summarize_records(self._phone.records)}")

    def _summarize_records(self, records: Sequence[ArchiveRecord]) -> str:
        """Sum up records: SMS in and out, segments, and money if a price is known."""
        said = [count_segments(record.text).segments for record in records if isinstance(record, SmsDecided)]
        heard = sum(isinstance(record, SmsReceived) for record in records)
        money = f", {sum(said) * self._price}" if self._price is not None else ""
        return f"{heard} SMS in, {len(said)} out, {pluralize(sum(said), 'segment')}{money}"


def describe_keywords(survey: Survey) -> str:
    """What begins the survey."""
    several = len(survey.start.languages) > 1
    named = [(f"{word.upper()}", language) for word, language in survey.start.words.items()]
    named += [
        (f"what matches /{getattr(pattern, 'pattern', pattern)}/", language)
        for pattern, language in survey.start.patterns
    ]
    named += [("anything", survey.start.any_sms_language)] if survey.start.any_sms_language else []
    return (
        f"Text {' or '.join(what + (f' ({language})' if several else '') for what, language in named)} to "
        "begin."
    )


def describe_state(phone: SimulatedPhone) -> Iterator[str]:
    """Where the session stands, what was answered, and what is due, a line each."""
    line = phone.channel_state
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
    step = _open_question(phone)
    yield f"session of '{session.survey}', version {session.version}, in {session.language}"
    if step is not None:
        yield f"waits at '{step.id}' for {step.reader.describe_answers()}{_describe_counts(session)}"
    for place, answer in session.answers.items():
        name = place[1:] if place in BUILTIN_VARIABLES else place
        yield f"{'' if is_variable(place) else '  '}{name} = {_format_answer(answer)}"
    yield from _due_lines(phone)


def _describe_counts(session: Session) -> str:
    counts = [pluralize(session.invalid_answers, "invalid answer")] if session.invalid_answers else []
    counts += [pluralize(session.reminders_sent, "reminder")] if session.reminders_sent else []
    return f" ({', '.join(counts)})" if counts else ""


def _format_answer(answer: Answer) -> str:
    value = answer.value
    shown = " + ".join(value) if isinstance(value, tuple) else str(value)
    return shown if answer.raw == shown else f"{shown}   (written {answer.raw!r})"


def _due_lines(phone: SimulatedPhone) -> Iterator[str]:
    """What comes if nobody writes: it is simply tried."""
    twin = phone.clone()
    for _ in range(_MOST_DEADLINES):
        alarm = twin.alarm
        if alarm is None:
            return
        known = len(twin.records)
        twin.wait(max(0, alarm - twin.now))
        offset = _format_offset(twin.now, phone.now)
        for record in twin.records[known:]:
            if isinstance(record, SmsDecided):
                yield offset + format_entry(SmsOut(record.text))
            yield from (offset + format_entry(noted) for noted in decision_notes([record]))
    yield "and so on"


def _open_question(phone: SimulatedPhone) -> QuestionStep | None:
    """What is waited for."""
    session = phone.channel_state.session
    survey = phone.surveys.by_version(session.version) if session is not None else None
    step = survey.steps[session.step] if survey is not None and session is not None else None
    return step if isinstance(step, QuestionStep) else None


def _session_of(record: ArchiveRecord) -> str:
    return getattr(record, "session", "")


def _format_offset(at: int, since: int | None) -> str:
    return "" if since is None else f"+{compact_duration((at - since) // 1000 * 1000)} "
