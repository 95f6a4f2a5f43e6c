"""What does a text cost? Its encoding and how many SMS segments it takes (3GPP TS 23.038, TS 23.040).

An escape pair or a surrogate pair never straddles two segments, so the count is not a mere division. Characters of
several code points (family emoji) may be split, as phones join the segments before they show them.
"""

from collections.abc import Iterable
from typing import Literal

import msgspec

_BASIC = frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
_EXTENSION = frozenset("\f^{}\\[~]|€")
_GSM_7 = _BASIC | _EXTENSION

Encoding = Literal["GSM-7", "UCS-2"]


class Segments(msgspec.Struct, frozen=True):
    """`units` are septets of GSM-7, or UTF-16 code units of UCS-2. An empty text still takes one segment."""

    encoding: Encoding
    segments: int
    units: int


def count(text: str) -> Segments:
    if _GSM_7.issuperset(text):
        return _count("GSM-7", [2 if c in _EXTENSION else 1 for c in text], alone=160, joined=153)
    return _count("UCS-2", [2 if c > "\uffff" else 1 for c in text], alone=70, joined=67)


def _count(encoding: Encoding, widths: list[int], alone: int, joined: int) -> Segments:
    units = sum(widths)
    return Segments(encoding, 1 if units <= alone else _pack(widths, joined), units)


def _pack(widths: Iterable[int], room: int) -> int:
    segments, used = 1, 0
    for width in widths:
        if used + width > room:
            segments, used = segments + 1, 0
        used += width
    return segments
