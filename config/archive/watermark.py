"""Until when is everything in the archive? A listing that is to miss nothing, and to show nothing twice, ends there."""

from sqlalchemy import Connection, func, select

from config.archive import tables
from config.archive.database import EVENTS_SOURCE


def read_watermark(connection: Connection) -> int:
    """The moment (ms, by Redis' clock) below which no entry is added to the archive any more, nor a row made of one: all that
    happened before it is there. 0: nothing is.

    It moves on while anything happens, in whichever shard; a shard that is held back, or an archive that is away, keeps it
    where it is. What it cannot know: a clock of Redis that is set back, while a shard whose last entry is older than that
    was idle; the entries of the time that comes again are below it.
    """
    table = tables.positions.c
    found = connection.execute(select(func.min(table.read_until_ms)).where(table.source == EVENTS_SOURCE))
    return found.scalar() or 0
