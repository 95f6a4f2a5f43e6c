"""Steps of SCAN and its like. Law: what is there from the first step to the last is answered, whatever comes and goes meanwhile.

A cursor is a place among hashes of names, so that no server remembers a scan, and those of one hash are answered at once.
"""

from collections.abc import Iterable
from zlib import crc32

from tests.simulated.server.command_table import ScanOptions
from tests.simulated.server.wire_words import glob_pattern


def scan_step(
    names: Iterable[bytes], options: ScanOptions, *, at_once: bool = False
) -> tuple[int, list[bytes]]:
    """Return the next cursor, 0 if all has been seen, and the names that fit."""
    cursor, seen = 0, [*names]
    if not at_once:
        places = sorted((place, name) for name in seen if (place := crc32(name) + 1) > options.cursor)
        seen = [name for _, name in places[: options.count]]
        rest = places[len(seen) :]
        if rest:
            cursor = places[len(seen) - 1][0]
            seen += [name for place, name in rest if place == cursor]
            cursor = cursor if rest[-1][0] > cursor else 0
    if options.pattern == b"*":
        return cursor, seen
    fits = glob_pattern(options.pattern).fullmatch
    return cursor, [name for name in seen if fits(name)]
