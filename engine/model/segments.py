"""What does a text cost? Its encoding and how many SMS segments it takes (3GPP TS 23.038, TS 23.040).

An escape pair or a surrogate pair never straddles two segments, so the count is not a mere division. Characters of
several code points (family emoji) may be split, as phones join the segments before they show them.
"""

from collections.abc import Sequence
from typing import Literal

import msgspec

GSM_BASIC = frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
GSM_EXTENSION = frozenset("\f^{}\\[~]|€")
_GSM_CHARACTERS = GSM_BASIC | GSM_EXTENSION

SEGMENT_OCTETS = 140
"""Octets of a segment."""

HEADER_OCTETS = 6
"""Octets of the header that joins segments, with a reference of 8 bits: 153 septets or 67 units of UCS-2 are left. A
reference of 16 bits makes it 7: 152 or 66."""

LONGEST_SMS = 1224
"""Characters of an SMS that we send: eight GSM-7 segments of 153, the most that Octopush accepts."""

SmsEncoding = Literal["GSM-7", "UCS-2"]


class SegmentCount(msgspec.Struct, frozen=True):
    """`units` are septets of GSM-7, or UTF-16 code units of UCS-2. An empty text still takes one segment."""

    encoding: SmsEncoding
    segments: int
    units: int


def is_gsm(text: str) -> bool:
    """Can all of `text` be written in GSM-7?"""
    return _GSM_CHARACTERS.issuperset(text)


def count_segments(text: str, header: int = HEADER_OCTETS) -> SegmentCount:
    """What `text` takes, if the header that joins its segments has `header` octets."""
    encoding, widths, bits = _unit_widths(text)
    return SegmentCount(encoding, len(_segment_starts(widths, bits, header)), sum(widths))


def split_segments(text: str, header: int = HEADER_OCTETS) -> list[str]:
    """`text` in the parts that go out, one for each segment."""
    _, widths, bits = _unit_widths(text)
    starts = _segment_starts(widths, bits, header)
    return [text[start:end] for start, end in zip(starts, [*starts[1:], len(text)], strict=True)]


def _unit_widths(text: str) -> tuple[SmsEncoding, list[int], int]:
    """How `text` is encoded, how many units each of its characters takes, and a unit's bits."""
    if is_gsm(text):
        return "GSM-7", [2 if c in GSM_EXTENSION else 1 for c in text], 7
    return "UCS-2", [2 if c > "\uffff" else 1 for c in text], 16


def _segment_starts(widths: Sequence[int], bits: int, header: int) -> list[int]:
    """The place of each segment's first character."""
    if sum(widths) <= SEGMENT_OCTETS * 8 // bits:
        return [0]
    room = (SEGMENT_OCTETS - header) * 8 // bits
    starts, used = [0], 0
    for place, width in enumerate(widths):
        if used + width > room:
            starts.append(place)
            used = 0
        used += width
    return starts
