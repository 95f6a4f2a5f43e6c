"""A server, as clients know it: commands in, answers out; its faults; and what a failover makes of it."""

import random
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from redis.exceptions import ResponseError

from tests.simulated.server import lua_interpreter
from tests.simulated.server.command_table import ModelCommand, Words, reads, wrong_number
from tests.simulated.server.hash_commands import HASH_COMMANDS
from tests.simulated.server.key_commands import KEY_COMMANDS
from tests.simulated.server.list_commands import LIST_COMMANDS
from tests.simulated.server.lua_interpreter import LibraryFunction
from tests.simulated.server.server_data import Before, ServerData
from tests.simulated.server.sorted_set_commands import SORTED_SET_COMMANDS
from tests.simulated.server.stored_types import EntryStream, SortedSet
from tests.simulated.server.stream_commands import STREAM_COMMANDS
from tests.simulated.server.string_commands import STRING_COMMANDS
from tests.simulated.server.wire_words import (
    IDENTIFIER,
    OK,
    OUT_OF_MEMORY,
    READ_ONLY,
    ServerError,
    Status,
    encode_word,
    fail,
    flat,
    glob_pattern,
    parse_integer,
    response_error,
)

CALLS_REMEMBERED = 200
"""Changes that may be lost."""

NO_HISTORY = "0" * 40

CONFIG = {
    "appendonly": "yes",
    "appendfsync": "always",
    "maxmemory": "0",
    "maxmemory-policy": "noeviction",
    "save": "",
}


class _Library(NamedTuple):
    name: bytes
    source: bytes
    functions: dict[bytes, LibraryFunction]


class _Change(NamedTuple):
    """What a call has changed: keys, and the libraries as they were, if it was them; or nothing, but replicas got it."""

    number: int
    before: Before
    libraries: Mapping[bytes, _Library] | None


class Connection:
    """A connection to a server, which remembers the `last_change` that was made on it."""

    def __init__(self) -> None:
        self.last_change = 0


class ServerModel:
    """One server, and how many `replicas` follow it. Whoever sends it a command waits for nothing: one that would block
    answers what it would in a transaction."""

    def __init__(self, now_us: Callable[[], int], seed: int = 0) -> None:
        """`now_us` is its clock, which may be set back and ahead."""
        self.is_full = False
        self.is_read_only = False
        self.replicas = 0
        self.changes = 0
        """How many were made: how far its stream of replication has come."""
        self.config = dict(CONFIG)
        self._now_us = now_us
        self._chance = random.Random(seed)
        self._data = ServerData()
        self._history = deque[_Change](maxlen=CALLS_REMEMBERED)
        self._kept = 0
        self._cut_off_at: int | None = None
        self._connection = Connection()
        self._libraries: dict[bytes, _Library] = {}
        self._functions: dict[bytes, LibraryFunction] = {}
        self._libraries_before: Mapping[bytes, _Library] | None = None
        self._function: LibraryFunction | None = None
        self.run_id, self.replid, self.replid2 = self._identity(), self._identity(), NO_HISTORY
        self._commands = {
            **_COMMANDS,
            b"TIME": reads(self._time, 1),
            b"PING": reads(self._ping, -1),
            b"ECHO": reads(self._echo, 2),
            b"INFO": reads(self._info, -1),
            b"CONFIG": reads(self._config, -2),
            b"FCALL": reads(self._fcall, -3),
            b"FUNCTION": reads(self._function_command, -2),
            b"CLUSTER": reads(self._cluster, -2),
            b"SPUBLISH": reads(self._spublish, 3),
            b"WAIT": reads(self._wait, 3),
        }

    # Commands

    def execute(self, command: Sequence[Any], connection: Connection | None = None) -> Any:
        """Answer a command, as redis-py's parser would without callbacks. Raises redis.ResponseError."""
        self._data.set_clock(self._now_us())
        self._connection = connection or Connection()
        return self._execute(command)

    def execute_many(self, commands: Iterable[Sequence[Any]]) -> list[Any]:
        """Answer commands that are all of one moment, with errors in the places of answers."""
        self._data.set_clock(self._now_us())
        self._connection = Connection()
        answers: list[Any] = []
        for command in commands:
            try:
                answers.append(self._execute(command))
            except ResponseError as e:
                answers.append(e)
        return answers

    def transact(self, commands: Iterable[Sequence[Any]]) -> list[Any]:
        """Answer commands of one MULTI, which a replica has all or none of."""
        changes = self.changes
        answers = self.execute_many(commands)
        merged: Before = {}
        parts = [self._history.pop() for _ in range(self.changes - changes)]
        for part in reversed(parts):
            merged = part.before | merged
        if parts:
            self.changes = changes + 1
            self._history.append(_Change(self.changes, merged, None))
        return answers

    def has_changed(self, key: str, since: int) -> bool:
        """Whether a key was changed after the change number `since`."""
        return any(key.encode() in each.before for each in self._history if each.number > since)

    def _execute(self, command: Sequence[Any]) -> Any:
        words = [*map(encode_word, command)]
        name = words[0].upper()
        if b" " in name:
            name, *rest = name.split()
            words[:1] = [name, *rest]
        try:
            answer = self._answer(name, words)
        except ServerError as e:
            raise response_error(str(e)) from None
        finally:
            if self._data.before or self._libraries_before is not None:
                self._note_change()
        return bytes(answer) if type(answer) is Status else answer

    def _answer(self, name: bytes, words: list[bytes]) -> Any:
        command = self._commands.get(name)
        if command is None:
            raise NotImplementedError(f"the model has no command {name.decode(errors='replace')}")
        del words[0]
        arity = command.arity
        if len(words) + 1 != arity if arity > 0 else len(words) + 1 < -arity:
            fail(wrong_number(name))
        if self.is_full and command.takes_in:
            fail(OUT_OF_MEMORY)
        if self.is_read_only and command.writes:
            fail(READ_ONLY)
        return command.answer(self._data, words)

    def _answer_function(self, words: list[bytes]) -> Any:
        """Answer a command that a function makes."""
        name = words[0]
        command = _COMMANDS.get(name) or _COMMANDS.get(name.upper()) or self._commands.get(name.upper())
        if command is None or name.upper() in _NOT_IN_FUNCTIONS:
            raise NotImplementedError(
                f"the model has no command {name.decode(errors='replace')} in functions"
            )
        arity = command.arity
        if len(words) != arity if arity > 0 else len(words) < -arity:
            fail("ERR Wrong number of args calling command from script")
        if command.writes:
            assert self._function is not None
            flags = self._function.flags
            if b"no-writes" in flags:
                fail("ERR Write commands are not allowed from read-only scripts.")
            if self.is_full and command.takes_in and b"allow-oom" not in flags:
                fail(OUT_OF_MEMORY)
        del words[0]
        return command.answer(self._data, words)

    # What it was before

    def _note_change(self) -> None:
        self.changes += 1
        self._history.append(_Change(self.changes, self._data.before, self._libraries_before))
        self._data.before, self._libraries_before = {}, None
        self._connection.last_change = self.changes

    def replicate(self) -> None:
        """Let replicas have all that was done until now."""
        self._kept = self.changes

    def cut_off(self) -> None:
        """Let replicas have nothing of what is done from now on."""
        if self._cut_off_at is None:
            self._cut_off_at = self.changes

    def catch_up(self) -> None:
        """Let replicas follow again."""
        self._cut_off_at = None

    def count_confirming(self, connection: Connection) -> int:
        """Return how many replicas say that they have what the connection changed last, which no failover takes back then, nor
        what was changed before. One that has changed nothing is told of all of them."""
        if self._cut_off_at is not None and connection.last_change > self._cut_off_at:
            return 0
        if self.replicas:
            self._kept = max(self._kept, connection.last_change)
        return self.replicas

    def count_losable(self, calls: int) -> int:
        """Return how many a failover takes back of the last `calls` that changed anything: no more than replicas may lack, and
        no fewer than they lack."""
        lacking = self._count_after(self.changes if self._cut_off_at is None else self._cut_off_at)
        return min(max(calls, lacking), self._count_after(self._kept))

    def _count_after(self, number: int) -> int:
        return sum(change.number > number for change in self._history)

    def lose_last(self, calls: int) -> int:
        """Be as before the last `calls` that changed anything, as a replica that lacks them. Answers how many those were."""
        lost = self.count_losable(calls)
        for _ in range(lost):
            change = self._history.pop()
            self._data.take_back(change.before)
            if change.libraries is not None:
                self._libraries = dict(change.libraries)
                self._index_functions()
        return lost

    # What it is

    def promote(self) -> None:
        """Be another process from now on, whose history goes on from that of before, and which replicas follow."""
        self.catch_up()
        self.replid2 = self.replid
        self._begin()

    def restart(self) -> None:
        """Be another process with the same keys, and a history of its own."""
        self.replid2 = NO_HISTORY
        self._begin()

    def _begin(self) -> None:
        self.run_id, self.replid = self._identity(), self._identity()
        self._libraries = {name: _loaded(name, known.source) for name, known in self._libraries.items()}
        self._index_functions()

    def _identity(self) -> str:
        return f"{self._chance.getrandbits(160):040x}"

    @property
    def values(self) -> Mapping[bytes, Any]:
        """What lies at each key: see stored_types.py. What has ended may be there until the next command."""
        return self._data.values

    @property
    def known_commands(self) -> set[bytes]:
        return {*self._commands}

    def keys(self) -> list[bytes]:
        return sorted(key for key, _, _ in self._data.living(self._now_us() // 1000))

    def dump(self) -> dict[bytes, tuple[Any, int | None]]:
        """Return all that is there, of plain types, and when it ends (ms)."""
        living = self._data.living(self._now_us() // 1000)
        return {key: (_plain(value), end) for key, value, end in living}

    # Commands of the server itself

    def _time(self, data: ServerData, words: Words) -> Any:
        return [b"%d" % (data.now_us // 1_000_000), b"%d" % (data.now_us % 1_000_000)]

    def _ping(self, data: ServerData, words: Words) -> Any:
        if len(words) > 1:
            fail(wrong_number(b"PING"))
        return words[0] if words else Status(b"PONG")

    def _echo(self, data: ServerData, words: Words) -> Any:
        return words[0]

    def _cluster(self, data: ServerData, words: Words) -> Any:
        if words[0].upper() != b"MYID":
            fail(f"ERR unknown subcommand '{words[0].decode()}'. Try CLUSTER HELP.")
        if len(words) > 1:
            fail(wrong_number(b"CLUSTER|MYID"))
        fail("ERR This instance has cluster support disabled")

    def _spublish(self, data: ServerData, words: Words) -> Any:
        """Nobody listens; but replicas are told."""
        if not self.is_read_only:
            self._note_change()
        return 0

    def _wait(self, data: ServerData, words: Words) -> Any:
        if self.is_read_only:
            fail(
                "ERR WAIT cannot be used with replica instances. Please also note that if a replica is configured to be writable "
                "(which is not the default) writes to replicas are just local and are not propagated."
            )
        parse_integer(words[0])
        if parse_integer(words[1], "ERR timeout is not an integer or out of range") < 0:
            fail("ERR timeout is negative")
        return self.count_confirming(self._connection)

    def _info(self, data: ServerData, words: Words) -> Any:
        sections = {
            b"server": {"redis_version": "7.2.4", "server_name": "valkey", "run_id": self.run_id},
            b"memory": {"used_memory": 1_000_000, "maxmemory": self.config["maxmemory"]},
            b"replication": {
                "role": "slave" if self.is_read_only else "master",
                "master_replid": self.replid,
                "master_replid2": self.replid2,
            },
        }
        asked = [word.lower() for word in words] or [*sections]
        if unknown := [each for each in asked if each not in sections]:
            raise NotImplementedError(f"INFO of {unknown} is not modelled")
        shown = (
            "".join(
                f"{line}\r\n"
                for line in [f"# {name.decode().title()}", *map(_info_line, sections[name].items())]
            )
            for name in asked
        )
        return "\r\n".join(shown).encode()

    def _config(self, data: ServerData, words: Words) -> Any:
        if words[0].upper() != b"GET" or len(words) < 2:
            raise NotImplementedError("of CONFIG, only GET is modelled")
        fits = [glob_pattern(word.lower()).fullmatch for word in words[1:]]
        return flat(
            [
                (name.encode(), value.encode())
                for name, value in self.config.items()
                if any(fit(name.encode()) for fit in fits)
            ]
        )

    def _fcall(self, data: ServerData, words: Words) -> Any:
        function = self._functions.get(words[0])
        if function is None:
            fail("ERR Function not found")
        number_of_keys = parse_integer(words[1], "ERR Bad number of keys provided")
        if number_of_keys > len(words) - 2:
            fail("ERR Number of keys can't be greater than number of args")
        if number_of_keys < 0:
            fail("ERR Number of keys can't be negative")
        if b"no-writes" not in function.flags:
            if self.is_read_only:
                fail(READ_ONLY)
            if self.is_full and b"allow-oom" not in function.flags:
                fail(OUT_OF_MEMORY)
        self._function = function
        return lua_interpreter.interpreter().call(
            function.callback, number_of_keys, words[2:], self._answer_function
        )

    # Libraries

    def _function_command(self, data: ServerData, words: Words) -> Any:
        """FUNCTION LOAD, LIST, DELETE and FLUSH."""
        name, rest = words[0].upper(), words[1:]
        if name == b"LIST":
            return self._list_libraries(rest)
        if self.is_full and name == b"LOAD":
            fail(OUT_OF_MEMORY)
        if self.is_read_only and name in (b"LOAD", b"DELETE", b"FLUSH"):
            fail(READ_ONLY)
        if name == b"LOAD" and rest:
            return self._load_library(rest)
        if name == b"FLUSH" and rest in ([], [b"SYNC"]):
            self._change_libraries()
            self._libraries = {}
            self._index_functions()
            return OK
        if name == b"DELETE" and len(rest) == 1:
            if rest[0] not in self._libraries:
                fail("ERR Library not found")
            self._change_libraries()
            del self._libraries[rest[0]]
            self._index_functions()
            return OK
        raise NotImplementedError(f"FUNCTION {name.decode()} {rest!r} is not modelled")

    def _load_library(self, words: Words) -> Any:
        *options, source = words
        for option in options:
            if option.upper() != b"REPLACE":
                fail(f"ERR Unknown option given: {option.decode(errors='replace')}")
        name = _library_name(source)
        if name in self._libraries and not options:
            fail(f"ERR Library '{name.decode()}' already exists")
        library = _loaded(name, source)
        for function in library.functions:
            owner = next((each for each in self._libraries.values() if function in each.functions), None)
            if owner is not None and owner.name != name:
                fail(f"ERR Function {function.decode()} already exists")
        self._change_libraries()
        self._libraries[name] = library
        self._index_functions()
        return name

    def _list_libraries(self, words: Words) -> Any:
        pattern, with_code, at = b"*", False, 0
        while at < len(words):
            option = words[at].upper()
            if option == b"WITHCODE":
                with_code = True
            elif option == b"LIBRARYNAME":
                at += 1
                if at == len(words):
                    fail("ERR library name argument was not given")
                pattern = words[at]
            else:
                fail(f"ERR Unknown argument {words[at].decode(errors='replace')}")
            at += 1
        fits = glob_pattern(pattern).fullmatch
        return [
            [
                b"library_name", each.name, b"engine", b"LUA", b"functions",
                [
                    [b"name", name, b"description", None, b"flags", sorted(function.flags)]
                    for name, function in each.functions.items()
                ],
                *([b"library_code", each.source] if with_code else []),
            ]
            for each in self._libraries.values()
            if fits(each.name)
        ]  # fmt: skip

    def _change_libraries(self) -> None:
        if self._libraries_before is None:
            self._libraries_before = dict(self._libraries)

    def _index_functions(self) -> None:
        self._functions = {
            name: function for each in self._libraries.values() for name, function in each.functions.items()
        }


def _info_line(field: tuple[str, object]) -> str:
    return f"{field[0]}:{field[1]}"


def _library_name(source: bytes) -> bytes:
    first = source.partition(b"\n")[0]
    if not first.startswith(b"#!"):
        fail("ERR Missing library metadata")
    engine, *given = first[2:].split()
    if engine.lower() != b"lua":
        fail(f"ERR Engine '{engine.decode(errors='replace')}' not found")
    for each in given:
        if not each.startswith(b"name="):
            fail(f"ERR Invalid metadata value given: {each.decode(errors='replace')}")
    if len(given) != 1:
        raise NotImplementedError(f"{first!r} is not modelled")
    name = given[0].removeprefix(b"name=")
    if not name or not IDENTIFIER.issuperset(name):
        fail(
            "ERR Library names can only contain letters, numbers, or underscores(_) and must be at least one character long"
        )
    return name


def _loaded(name: bytes, source: bytes) -> _Library:
    """Load a library anew, so that it remembers nothing. Raises ServerError."""
    _, newline, text = source.partition(b"\n")
    functions = lua_interpreter.interpreter().load(newline + text)
    for function in functions:
        if not function or not IDENTIFIER.issuperset(function):
            fail(
                "ERR Function names can only contain letters, numbers, or underscores(_) and must be at least one character long"
            )
    return _Library(name, source, functions)


def _plain(value: Any) -> Any:
    match value:
        case SortedSet():
            return [*value.order]
        case EntryStream():
            return {
                "entries": [(number, [*fields]) for number, fields in value.entries],
                "last": value.last,
                "added": value.added,
                "greatest_deleted": value.greatest_deleted,
            }
        case bytes():
            return value
        case _:
            return value.copy()


_COMMANDS: dict[bytes, ModelCommand] = (
    STRING_COMMANDS | HASH_COMMANDS | LIST_COMMANDS | KEY_COMMANDS | SORTED_SET_COMMANDS | STREAM_COMMANDS
)


_NOT_IN_FUNCTIONS = frozenset((b"FCALL", b"FUNCTION", b"CONFIG", b"SPUBLISH", b"WAIT"))
