"""One file, two files: a count and its noun."""


def pluralize(count: int, one: str, many: str = "") -> str:
    """`1 file`, `2 files`; `many` is the plural where it is not `one` and an s."""
    return f"{count} {one if count == 1 else many or one + 's'}"
