"""Divides the archive as Redis is divided: its rows lie by shard too, and each shard has its position.

Rows move, rather than stay where they were archived, since a shard's history is read in the archive up to its position and in
its stream from there: by `parley replay`, for endpoints that are behind what was trimmed, and when a shard is rebuilt. An
entry's id stays, and whoever is in a part has no id of another's. What was told in the audit stays in the shard in which it was.

Law: a page of people in a transaction, and the positions in the last one, with the number by which the archive lies then. A row
that has moved is not moved again, so that a run that died is gone on with.
"""

from collections.abc import Callable, Iterator, Sequence

from sqlalchemy import Connection, Table, bindparam, func, select, update

from config.archive import tables
from config.archive.database import EVENTS_SOURCE, ArchiveDatabase, Position, read_position
from config.store import keyspace
from workers.archiving.deployment_pairing import read_archived_shards, store_archived_shards
from workers.resharding.shard_split import ShardSplit

PEOPLE_A_PAGE = 500

_TABLES = ("entries", "sessions", "messages", "sends", "receipts", "refusals")
"""Those whose rows bear a shard, and say whose they are."""

HashNumber = Callable[[str], str]


def count_rows(database: ArchiveDatabase) -> dict[str, int]:
    """How many rows there are of what is divided, by table."""
    with database.reading() as connection:
        return {
            table.name: connection.execute(select(func.count()).select_from(table)).scalar_one()
            for table in [*_divided_tables(), tables.opt_outs]
        }


def find_archive_split(database: ArchiveDatabase, split: ShardSplit) -> ShardSplit | None:
    """How the archive has to be divided for the lanes to be as `split` says; None if it is. One that does not say by how many
    it lies, lies as the lanes did."""
    with database.reading() as connection:
        shards = read_archived_shards(connection) or split.old
    return ShardSplit(shards, split.new) if shards != split.new else None


def split_archive(
    database: ArchiveDatabase,
    split: ShardSplit,
    hash_number: HashNumber | None,
    on_progress: Callable[[int], object],
) -> None:
    """Move every row to the shard of its person; of opt-outs, those of people of whom there are entries: `hash_number` hides
    them. `on_progress` is called with how many people more are done. Raises SQLAlchemyError."""
    for table in _divided_tables():
        last = ""
        while people := _people_after(database, table, last):
            with database.writing() as connection:
                _move_rows(connection, split, table, people)
                if table is tables.entries and hash_number is not None:
                    _move_opt_outs(connection, split, {hash_number(each): each for each in people})
            last = people[-1]
            on_progress(len(people))
    with database.writing() as connection:
        for k in range(split.old):
            position = read_position(connection, EVENTS_SOURCE, k)
            for part in split.parts(k):
                _put_position(database, connection, part, position)
        store_archived_shards(connection, split.new)


def _divided_tables() -> Iterator[Table]:
    return (tables.METADATA.tables[name] for name in _TABLES)


def _people_after(database: ArchiveDatabase, table: Table, last: str) -> Sequence[str]:
    """The next people of whom the table has rows, in the order of its index."""
    query = select(table.c.sender).where(table.c.sender > last).distinct()
    with database.reading() as connection:
        return connection.execute(query.order_by(table.c.sender).limit(PEOPLE_A_PAGE)).scalars().all()


def _move_rows(connection: Connection, split: ShardSplit, table: Table, people: Sequence[str]) -> None:
    """What does not lie by its person stays."""
    theirs = update(table).where(
        table.c.sender == bindparam("person"),
        table.c.shard == bindparam("whole"),
        table.c.shard != bindparam("part"),
    )
    connection.execute(theirs.values(shard=bindparam("part")), [_places(split, each) for each in people])


def _move_opt_outs(connection: Connection, split: ShardSplit, people: dict[str, str]) -> None:
    table = tables.opt_outs
    theirs = update(table).where(
        table.c.number_hash == bindparam("person"),
        table.c.shard == bindparam("whole"),
        table.c.shard != bindparam("part"),
    )
    places = [{**_places(split, sender), "person": hashed} for hashed, sender in people.items()]
    connection.execute(theirs.values(shard=bindparam("part")), places)


def _places(split: ShardSplit, sender: str) -> dict[str, str | int]:
    whole, part = keyspace.shard_of(sender, split.old), keyspace.shard_of(sender, split.new)
    return {"person": sender, "whole": whole, "part": part}


def _put_position(database: ArchiveDatabase, connection: Connection, shard: int, position: Position) -> None:
    database.lock_position(connection, EVENTS_SOURCE, shard)
    database.move_position(connection, EVENTS_SOURCE, shard, position)
