"""Joins the parts of a long SMS. They may come in any order; a repeated part changes nothing.

An SMS is taken when it is whole, or unfinished after ten minutes, or when a later SMS reuses its reference, or when a
ninth begins: its parts are joined in order, and nothing is dropped.
"""

from collections.abc import Sequence
from hashlib import blake2b

from engine.model.events import MOST_ATTACHMENTS, InboundSms, SmsPart
from engine.model.lane import Lane, PartialSms
from engine.surveys.keywords import is_start
from engine.surveys.survey_registry import SurveyRegistry

PARTS_TIMEOUT_MS = 600_000
_MOST_PARTIAL_SMS = 8
_MOST_PARTS_PER_SMS = 32
"""Twilio and Octopush allow ten or less; 255 is what the header could say (3GPP TS 23.040, 9.2.3.24.1)."""


def collect_part(lane: Lane, part: SmsPart, now: int) -> list[PartialSms]:
    """Add a part, and return the SMS that are to be taken now, oldest first, whole or not."""
    if not 1 <= part.number <= part.total <= _MOST_PARTS_PER_SMS:
        return [_start_partial_sms(part, now)]
    taken: list[PartialSms] = []
    of = next((each for each in lane.partial_sms if _is_part_of(part, each)), None)
    if of is not None and (before := of.parts.get(part.number)) is not None:
        if before[1] == part.text:
            return []
        lane.partial_sms.remove(of)
        taken.append(of)
        of = None
    if of is None:
        of = _start_partial_sms(part, now)
        if len(lane.partial_sms) >= _MOST_PARTIAL_SMS:
            taken.append(lane.partial_sms.pop(0))
        lane.partial_sms.append(of)
    else:
        _add_part(of, part)
    if len(of.parts) == of.total:
        lane.partial_sms.remove(of)
        taken.append(of)
    return taken


def join_parts(of: PartialSms, offered: Sequence[str], surveys: SurveyRegistry) -> InboundSms:
    """Join the parts to one SMS. Its id is a hash of theirs."""
    parts = [of.parts[number] for number in sorted(of.parts)]
    identity = blake2b(" ".join(part for part, _ in parts).encode(), digest_size=8).hexdigest()
    text = "".join(text for _, text in parts)
    attached = [each for number in sorted(of.attachments) for each in of.attachments[number]]
    return InboundSms(
        identity,
        of.channel,
        text,
        is_start(text, offered, surveys),
        originator=of.originator,
        attachments=tuple(attached[:MOST_ATTACHMENTS]),
    )


def _start_partial_sms(part: SmsPart, now: int) -> PartialSms:
    of = PartialSms(part.channel, part.originator, part.reference, part.total, now)
    _add_part(of, part)
    return of


def _add_part(of: PartialSms, part: SmsPart) -> None:
    of.parts[part.number] = (part.id, part.text)
    if part.attachments:
        of.attachments[part.number] = part.attachments


def _is_part_of(part: SmsPart, of: PartialSms) -> bool:
    return (part.channel, part.originator, part.reference, part.total) == (
        of.channel, of.originator, of.reference, of.total,
    )  # fmt: skip
