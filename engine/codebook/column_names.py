"""How are columns called? Each by a name that no other has, in spreadsheets and in statistics programs."""

import re
import unicodedata

LONGEST_COLUMN = 32
"""Characters of a variable's name in Stata; SPSS takes 64 bytes."""

_RESERVED_IN_SPSS = frozenset(
    ("all", "and", "by", "eq", "ge", "gt", "le", "lt", "ne", "not", "or", "to", "with")
)
_RESERVED_IN_STATA = frozenset(("byte", "double", "float", "if", "in", "int", "long", "strl", "using"))
_RESERVED = _RESERVED_IN_SPSS | _RESERVED_IN_STATA


class ColumnNames:
    """Allots names, each once, whatever the case of its letters."""

    def __init__(self) -> None:
        self._names: set[str] = set()
        self._columns: set[str] = set()

    def allot(self, wanted: str, prefix: str) -> tuple[str, str]:
        """The name that heads the column, `wanted` itself or behind `prefix` and a point, and its name for statistics programs."""
        name, n = wanted, 1
        while name.lower() in self._names:
            name, n = f"{prefix}.{wanted}" if n == 1 else f"{prefix}.{wanted}.{n}", n + 1
        self._names.add(name.lower())
        return name, self._allot_column(wanted)

    def _allot_column(self, wanted: str) -> str:
        safe = safe_column(wanted)
        column, n = safe, 1
        while column.lower() in self._columns:
            n += 1
            column = f"{safe[: LONGEST_COLUMN - len(str(n)) - 1]}_{n}"
        self._columns.add(column.lower())
        return column


def safe_column(wanted: str) -> str:
    """`wanted` as every statistics program takes it: letters and digits of ASCII and `_`, a letter first, no reserved word."""
    letters = unicodedata.normalize("NFKD", wanted).encode("ascii", "ignore").decode()
    words = re.sub(r"[^A-Za-z0-9]+", "_", letters).strip("_")
    named = words if words[:1].isalpha() else f"q{words}"
    return (f"{named}_" if named.lower() in _RESERVED else named)[:LONGEST_COLUMN]
