"""A kind of answer and its limits in an author's words: "number 80-115" with an en dash, "date from today"."""


def show_number(number: int | float) -> str:  # noqa: PYI041 (an int is told apart)
    """As an author would write it: 7, 98.6."""
    if isinstance(number, float) and number.is_integer() and abs(number) < 2**53:
        return str(int(number))
    return str(number)


def range_phrase(kind: str, low: str | None, high: str | None, both: str) -> str:
    """`kind`, and what it is limited to; by `both` if it is at both ends."""
    match low, high:
        case None, None:
            return kind
        case _, None:
            return f"{kind} from {low}"
        case None, _:
            return f"{kind} up to {high}"
        case _:
            return f"{kind} {both}"


def format_range(low: float, high: float) -> str:
    """With an en dash, where no minus sign can be mistaken for one."""
    joint = "\N{EN DASH}" if low >= 0 else " to "
    return f"{show_number(low)}{joint}{show_number(high)}"
