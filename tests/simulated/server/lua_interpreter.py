"""One Lua for all servers of this process, and the libraries of functions that run in it.

Law: what a library keeps between calls is in its own local variables, and its chunk run again makes new ones; globals are
protected. So each server has a Lua of its own, in effect, and a text is compiled once.
"""

import struct
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from lupa import lua51

from tests.simulated.server.wire_words import ServerError, Status, format_double, response_error

_FOLDER = Path(__file__).parent

_MOST = 5_000
"""Words of a call, and elements of an answer, that go to Lua at once."""

_LEAST_INTEGER = -(1 << 63)
"""What C makes of a number that is none, or too large."""

_NOT_WORDS = (None, b"err", b"ERR Command arguments must be strings or integers")
_NO_WORDS = (None, b"err", b"ERR Please specify at least one argument for this call")

Answerer = Callable[[list[bytes]], Any]
"""Answers a command that a function makes. Raises ServerError."""


class LibraryFunction(NamedTuple):
    callback: Any
    flags: frozenset[bytes]


class LuaInterpreter:
    """Its functions are called by one server at a time."""

    def __init__(self) -> None:
        self._runtime = lua51.LuaRuntime(
            encoding=None, unpack_returned_tuples=True, register_eval=False, register_builtins=False
        )
        cmsgpack = self._run("message_pack.lua", _pack_double, _unpack_double)
        api = self._run("redis_library.lua", self._answer_lua, cmsgpack, self._run("json_text.lua"))
        self._compile, self._load = api[b"compile"], api[b"load"]
        self._gather, self._invoke, self._fetch = api[b"gather"], api[b"invoke"], api[b"fetch"]
        self._table_of, self._extend = api[b"table_of"], api[b"extend"]
        self._answer: Answerer | None = None
        self._defect: BaseException | None = None
        self._chunks: dict[bytes, Any] = {}

    def _run(self, file: str, *arguments: Any) -> Any:
        compiled = self._runtime.compile((_FOLDER / file).read_bytes())
        return compiled(*arguments)

    def load(self, text: bytes) -> dict[bytes, LibraryFunction]:
        """Run a library's text, without its first line, anew. Raises ServerError."""
        chunk = self._chunks.get(text)
        if chunk is None:
            chunk = self._compile(text)
            if type(chunk) is tuple:
                raise ServerError(f"ERR Error compiling function: {chunk[1].decode(errors='replace')}")
            self._chunks[text] = chunk
        registered = self._load(chunk)
        if registered is None:
            raise ServerError("ERR No functions registered")
        if registered[0] is None:
            raise ServerError(f"ERR Error registering functions: {registered[1].decode(errors='replace')}")
        return {
            name: LibraryFunction(callback, frozenset(flags.split()))
            for name, callback, flags in zip(registered[::3], registered[1::3], registered[2::3], strict=True)
        }

    def call(self, callback: Any, number_of_keys: int, words: Sequence[bytes], answer: Answerer) -> Any:
        """Return what a function answers, as redis-py would have it from the wire. Raises ServerError."""
        self._answer, self._defect = answer, None
        if len(words) > _MOST:
            for at in range(0, len(words), _MOST):
                self._gather(*words[at : at + _MOST])
            words = ()
        try:
            found = self._invoke(callback, number_of_keys, *words)
        except lua51.LuaError as e:
            raise NotImplementedError(str(e)) from e
        if self._defect is not None:
            raise self._defect
        kind = type(found)
        if kind is bytes or kind is int:
            return found
        if kind is not tuple:
            return None if found is False else _integer(found)
        if found[0] is None and found[1] == b"raised":
            raise ServerError(found[2].decode(errors="replace"))
        if found[0] is None and found[1] == b"long":
            total = int(found[2])
            found = [
                each
                for first in range(1, total + 1, _MOST)
                for each in self._fetch(first, min(total, first + _MOST - 1))
            ]
        if found[0] is None:
            raise ServerError(found[2].decode(errors="replace"))
        return _built(iter(found))

    def _answer_lua(self, *words: Any) -> Any:
        """Answer a command, as redis_library.lua says. What is wrong with the model itself is raised when the call is over:
        a function could catch it."""
        try:
            sent = [*words]
            for at, word in enumerate(sent):
                if type(word) is not bytes:
                    if type(word) is not int and type(word) is not float:
                        return _NOT_WORDS
                    sent[at] = format_double(word)
            if not sent:
                return _NO_WORDS
            assert self._answer is not None
            return self._to_lua(self._answer(sent))
        except ServerError as e:
            return None, b"err", str(e).encode()
        except BaseException as e:  # noqa: BLE001 (raised by `call`)
            self._defect = e
            return None, b"err", b"ERR the model of the server is at fault"

    def _to_lua(self, answer: Any) -> Any:
        kind = type(answer)
        if kind is bytes or kind is int:
            return answer
        if answer is None:
            return False
        if kind is Status:
            return None, b"ok", bytes(answer)
        if len(answer) > _MOST:
            return None, b"table", self._table(answer)
        return True, *map(self._element, answer)

    def _element(self, value: Any) -> Any:
        if type(value) is list:
            return self._table(value)
        return False if value is None else value

    def _table(self, values: list[Any]) -> Any:
        table = self._table_of(*map(self._element, values[:_MOST]))
        for at in range(_MOST, len(values), _MOST):
            self._extend(table, *map(self._element, values[at : at + _MOST]))
        return table


@cache
def interpreter() -> LuaInterpreter:
    """Return the one of this process."""
    return LuaInterpreter()


def _built(values: Any) -> Any:
    value = next(values)
    if value is True:
        return [_built(values) for _ in range(int(next(values)))]
    if value is None:
        next(values)
        return response_error(next(values).decode(errors="replace"))
    if value is False:
        return None
    return _integer(value) if type(value) is float else value


def _integer(number: float) -> int:
    return int(number) if abs(number) < 1 << 63 else _LEAST_INTEGER


def _pack_double(number: float) -> bytes:
    try:
        short = struct.pack(">f", number)
    except OverflowError:
        return b"\xcb" + struct.pack(">d", number)
    if struct.unpack(">f", short)[0] == number:
        return b"\xca" + short
    return b"\xcb" + struct.pack(">d", number)


def _unpack_double(written: bytes) -> float:
    return float(struct.unpack(">f" if len(written) == 4 else ">d", written)[0])
