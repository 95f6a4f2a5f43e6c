"""What does a text cost? Its encoding and how many SMS segments it takes (3GPP TS 23.038, TS 23.040).

An escape pair or a surrogate pair never straddles two segments, so the count is not a mere division. Characters of
several code points (family emoji) may be split, as phones join the segments before they show them. Twilio's calculator
(npm sms-segments-calculator) does not split them, and may count more, or fewer, as it lets one that is longer than a
segment overflow: so a bound is the larger of the two counts, `most_segments`.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Literal
from unicodedata import category

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


def most_segments(text: str) -> int:
    """The most segments that anybody counts for `text`: operators, who split a grapheme, or Twilio, who does not."""
    counted = count_segments(text).segments
    if is_gsm(text):
        return counted
    _, widths, bits = _unit_widths(text)
    starts = [*_grapheme_starts(text), len(text)]
    joined = [sum(widths[start:end]) for start, end in pairwise(starts)]
    return max(counted, len(_segment_starts(joined, bits, HEADER_OCTETS)))


def _grapheme_starts(text: str) -> Iterator[int]:
    """The place of the first code point of each character as a person sees it (UAX #29, a little coarser; CR LF are two,
    as they are to Twilio)."""
    flags = 0  # regional indicators in a row before
    for place, c in enumerate(text):
        flag = "\U0001f1e6" <= c <= "\U0001f1ff"
        if not place or not (_extends(c) or _follows(text[place - 1], c) or (flag and flags % 2)):
            yield place
        flags = flags + 1 if flag else 0


def _extends(c: str) -> bool:
    """Does `c` belong to whatever is before it: an accent, a joiner, a skin's tone, a tag?"""
    return (
        category(c)[0] == "M"
        or c in "\u200c\u200d\uff9e\uff9f"
        or "\U0001f3fb" <= c <= "\U0001f3ff"
        or "\U000e0020" <= c <= "\U000e007f"
    )


def _follows(before: str, c: str) -> bool:
    """Does `c` belong to the code point before it?"""
    if before == "\u200d":
        return c > "\u2000"
    if before in "\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u08e2\u0d4e":
        return True
    return _is_hangul(before) and (
        "\u1160" <= c <= "\u11ff"  # a vowel or a final consonant
        or "\ud7b0" <= c <= "\ud7fb"
        or (_is_first_consonant(before) and _is_hangul(c))
    )


def _is_hangul(c: str) -> bool:
    return "\u1100" <= c <= "\u11ff" or "\ua960" <= c <= "\ua97c" or "\uac00" <= c <= "\ud7fb"


def _is_first_consonant(c: str) -> bool:
    return "\u1100" <= c <= "\u115f" or "\ua960" <= c <= "\ua97c"


def split_segments(text: str, header: int = HEADER_OCTETS) -> list[str]:
    """`text` in the parts that go out, one for each segment."""
    _, widths, bits = _unit_widths(text)
    starts = _segment_starts(widths, bits, header)
    return [text[start:end] for start, end in zip(starts, [*starts[1:], len(text)], strict=True)]


def _unit_widths(text: str) -> tuple[SmsEncoding, list[int], int]:
    """How `text` is encoded, how many units each of its characters takes, and a unit's bits."""
    if is_gsm(text):
        if GSM_EXTENSION.isdisjoint(text):
            return "GSM-7", [1] * len(text), 7
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
