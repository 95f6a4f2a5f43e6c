"""A small curve of counts, as SVG without a style of its own: console.css has it."""

from collections.abc import Sequence

from markupsafe import Markup

WIDTH, HEIGHT = 100, 24


def sparkline(counts: Sequence[float], title: str) -> Markup:
    """Draw `counts`, oldest first, with 0 at the foot; `title` says what they are, for who does not see it."""
    if len(counts) < 2:
        return Markup()
    most = max(*counts, 1)
    step = WIDTH / (len(counts) - 1)
    points = " ".join(
        f"{place * step:.1f},{HEIGHT - 1 - count / most * (HEIGHT - 2):.1f}"
        for place, count in enumerate(counts)
    )
    return Markup(
        '<svg class="spark" viewBox="0 0 {width} {height}" preserveAspectRatio="none" role="img" '
        'aria-label="{title}: {words}">'
        '<path class="area" d="M0,{height} L{points} L{width},{height} Z"/><path d="M{points}"/></svg>'
    ).format(width=WIDTH, height=HEIGHT, title=title, words=", ".join(map(str, counts)), points=points)
