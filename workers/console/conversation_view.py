"""A person's conversation as a phone shows it: what they wrote, what they were sent, and between them what happened. Of an SMS to
them is told what became of it, as far as the page has it; what is told of an SMS that is on another page stands for itself."""

from collections.abc import Callable, Sequence
from typing import Literal

import msgspec

from engine.model.events import ArchiveRecord, ReceiptRecorded, SmsDecided, SmsNotSent, SmsReceived, SmsSent
from engine.model.plurals import pluralize
from workers.history.record_wording import format_record

BubbleSide = Literal["in", "out", "between"]


class Bubble(msgspec.Struct):
    """`text` at `at` (ms), on a `channel`. `notes` say what became of it; `is_failed`: that it did not arrive."""

    side: BubbleSide
    at: int
    text: str
    channel: str
    session: str = ""
    notes: list[str] = []
    is_failed: bool = False


def view_conversation(records: Sequence[ArchiveRecord], hide: Callable[[str], str]) -> list[Bubble]:
    """The records as bubbles, in their order; every text has gone through `hide`."""
    return _ConversationWriter(hide).write(records)


class _ConversationWriter:
    def __init__(self, hide: Callable[[str], str]) -> None:
        self._hide = hide
        self._bubbles: list[Bubble] = []
        self._by_sms: dict[str, Bubble] = {}
        self._sms_of_ticket: dict[str, str] = {}

    def write(self, records: Sequence[ArchiveRecord]) -> list[Bubble]:
        for record in records:
            match record:
                case SmsReceived():
                    self._add("in", record, record.text, _received_notes(record))
                case SmsDecided():
                    self._by_sms[record.id] = self._add("out", record, record.text, [])
                case SmsSent():
                    self._sms_of_ticket[record.ticket] = record.id
                    self._note(record, record.id, "sent" + _segments_clause(record.segments))
                case SmsNotSent():
                    because = f"{record.code} {record.why}".strip()
                    self._note(record, record.id, f"not sent: {because}", is_failed=True)
                case ReceiptRecorded():
                    sms = record.sms or self._sms_of_ticket.get(record.ticket, "")
                    self._note(record, sms, _receipt_note(record), is_failed=record.state == "failed")
                case _:
                    self._happening(record)
        return self._bubbles

    def _add(self, side: BubbleSide, record: ArchiveRecord, text: str, notes: list[str]) -> Bubble:
        session = getattr(record, "session", "")
        notes = [self._hide(note) for note in notes]
        bubble = Bubble(side, record.at, self._hide(text), record.channel, session, notes)
        self._bubbles.append(bubble)
        return bubble

    def _note(self, record: ArchiveRecord, sms: str, note: str, *, is_failed: bool = False) -> None:
        bubble = self._by_sms.get(sms)
        if bubble is None:
            self._happening(record)
            return
        bubble.notes.append(self._hide(note))
        bubble.is_failed |= is_failed

    def _happening(self, record: ArchiveRecord) -> None:
        self._add("between", record, format_record(record).removeprefix("-- "), [])


def _received_notes(record: SmsReceived) -> list[str]:
    notes = [each.media_type or "attachment" for each in record.attachments]
    if record.handled:
        notes.append(f"a {record.handled.upper()}, which the provider answered")
    return notes


def _receipt_note(record: ReceiptRecorded) -> str:
    because = " ".join(each for each in (record.code, record.why) if each)
    said = record.state or record.status
    return f"{said}{_segments_clause(record.segments)}" + (f": {because}" if because else "")


def _segments_clause(segments: int) -> str:
    return f" in {pluralize(segments, 'segment')}" if segments else ""
