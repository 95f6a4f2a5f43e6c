"""When is a long SMS whole? When all its parts have come, in any order; or when they have had time enough.

A part that comes again changes nothing. What is still not whole ten minutes after its first part, or in the way of a
later SMS with its reference or of the ninth at once, is taken as it is, joined in order: nothing is dropped.
"""

from collections.abc import Sequence
from hashlib import blake2b

from engine.model.events import Part, Sms
from engine.model.lane import Gathered, Lane
from engine.surveys.keywords import is_start
from engine.surveys.survey_registry import Surveys

PATIENCE_MS = 600_000
_MOST_AT_ONCE = 8
_MOST_PARTS = 32
"""Twilio and Octopush allow ten or less; 255 is what the header could say (3GPP TS 23.040, 9.2.3.24.1)."""


def gather(lane: Lane, part: Part, now: int) -> list[Gathered]:
    """Put a part to those that have come; what is to be taken as an SMS now, oldest first."""
    if not 1 <= part.number <= part.total <= _MOST_PARTS:
        return [_begin(part, now)]
    taken: list[Gathered] = []
    of = next((each for each in lane.gathered if _belongs(part, each)), None)
    if of is not None and (before := of.parts.get(part.number)) is not None:
        if before[1] == part.text:
            return []
        lane.gathered.remove(of)
        taken.append(of)
        of = None
    if of is None:
        of = _begin(part, now)
        if len(lane.gathered) >= _MOST_AT_ONCE:
            taken.append(lane.gathered.pop(0))
        lane.gathered.append(of)
    else:
        of.parts[part.number] = (part.id, part.text)
    if len(of.parts) == of.total:
        lane.gathered.remove(of)
        taken.append(of)
    return taken


def joined(of: Gathered, offered: Sequence[str], surveys: Surveys) -> Sms:
    """The SMS that the parts make. Its id comes of theirs."""
    parts = [of.parts[number] for number in sorted(of.parts)]
    identity = blake2b(" ".join(part for part, _ in parts).encode(), digest_size=8).hexdigest()
    text = "".join(text for _, text in parts)
    return Sms(identity, of.channel, text, is_start(text, offered, surveys), originator=of.originator)


def _begin(part: Part, now: int) -> Gathered:
    first = {part.number: (part.id, part.text)}
    return Gathered(part.channel, part.originator, part.reference, part.total, now, first)


def _belongs(part: Part, of: Gathered) -> bool:
    return (part.channel, part.originator, part.reference, part.total) == (
        of.channel, of.originator, of.reference, of.total,
    )  # fmt: skip
