"""A chart of bars as SVG: one below the other, each with its label and its number. What it shows stands in a table beside it, too.

Colours are the page's (classes `bar` and `rule`); there is no style in it, and no script.
"""

from collections.abc import Iterator, Sequence
from xml.sax.saxutils import escape

import msgspec
from markupsafe import Markup

from engine.drawing import plain_line
from engine.drawing.lettering import text_width, wrap_lines

_NAMESPACE = "http://www.w3.org/2000/svg"
_WIDTH = 360
_SIZE = 12
_ROW = 20
_LONG_ROW = 34
_SHORT_LABEL = 8.0
"""Of a label that has room beside its bar, in em."""

_LONGEST_LABEL = 24.0
_GAP = 6
_NUMBER_ROOM = 92
_LEAST_BAR = 1.5
"""Whatever is more than nothing can be seen."""


class ChartBar(msgspec.Struct, frozen=True):
    """`note` stands behind the number: `12 %`."""

    label: str
    count: int
    note: str = ""


def draw_bars(bars: Sequence[ChartBar], title: str, description: str, identity: str) -> Markup:
    """`identity` is one of its own on the page, of letters, digits and hyphens."""
    is_short = all(text_width(bar.label) <= _SHORT_LABEL for bar in bars)
    row = _ROW if is_short else _LONG_ROW
    room = max((text_width(bar.label) for bar in bars), default=0) * _SIZE if is_short else 0.0
    left = room + _GAP if is_short else 0.0
    most = max((bar.count for bar in bars), default=0)
    tall, named = row * len(bars), f'aria-labelledby="{identity}-title {identity}-about"'
    parts = [
        f'<svg xmlns="{_NAMESPACE}" class="chart" viewBox="0 0 {_WIDTH} {tall + 2}" role="img" {named}>',
        f'<title id="{identity}-title">{_text(title)}</title>',
        f'<desc id="{identity}-about">{_text(description)}</desc>',
        f'<path class="rule" d="M{left:.1f} 0v{tall}"/>',
    ]
    for place, bar in enumerate(bars):
        parts += _bar_elements(bar, row * place, left, most, is_short=is_short)
    return Markup("".join([*parts, "</svg>"]))  # noqa: S704 (all texts are escaped)


def _bar_elements(bar: ChartBar, y: float, left: float, most: int, *, is_short: bool) -> Iterator[str]:
    longest = _WIDTH - left - _NUMBER_ROOM
    width = max(_LEAST_BAR, bar.count / most * longest) if bar.count else 0.0
    top = y + (3 if is_short else 16)
    (label, *_) = wrap_lines(plain_line(bar.label), _LONGEST_LABEL, 1) or [""]
    if is_short:
        place = f'x="{left - _GAP:.1f}" y="{y + 14}" text-anchor="end"'
        yield f'<text {place} font-size="{_SIZE}">{_text(label)}</text>'
    else:
        yield f'<text x="0" y="{y + 12}" font-size="{_SIZE}">{_text(label)}</text>'
    yield f'<rect class="bar" x="{left:.1f}" y="{top}" width="{width:.1f}" height="13"/>'
    number = f"{bar.count:,}" + (f" ({bar.note})" if bar.note else "")
    yield f'<text x="{left + width + _GAP:.1f}" y="{top + 11}" font-size="{_SIZE}">{_text(number)}</text>'


def _text(text: str) -> str:
    return escape(plain_line(text))
