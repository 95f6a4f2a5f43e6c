"""Numbers as bars in a terminal: Unicode blocks, eighths of a column, which read without any colour."""

_EIGHTHS = " ▏▎▍▌▋▊▉█"
_HEIGHTS = " ▁▂▃▄▅▆▇█"


def horizontal_bar(part: float, whole: float, width: int) -> str:
    """A bar of at most `width` columns, as long as `part` of `whole`; whatever is more than nothing can be seen."""
    if whole <= 0 or part <= 0:
        return ""
    eighths = max(1, round(min(part / whole, 1) * width * 8))
    full, rest = divmod(eighths, 8)
    return "█" * full + (_EIGHTHS[rest] if rest else "")


def sparkline(numbers: list[int]) -> str:
    """A column for each number, as high as it is beside the greatest."""
    most = max(numbers, default=0)
    return "".join(_HEIGHTS[max(1, round(number / most * 8)) if number else 0] for number in numbers)
