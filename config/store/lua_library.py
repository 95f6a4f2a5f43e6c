"""The library of server-side functions: its text, made of lua/, and its name.

Law: no Lua file knows a position, or how a state is spelled. When the text is made,

- in a function `f(keys, args)`, `keys.NAME`, `args.NAME`, `keys.GROUP[i].NAME`, `args.GROUP[i]` and `#args.GROUP` become
  positions, by the declaration of `f` in server_functions.py;
- `SMS.FIELD` becomes the number of a field of OutboundSms in its msgpack array, `INBOUND.FIELD` of InboundSms in its own,
  whose first element is its tag; `STATE.NAME` becomes the name of an outbox's state, and `BELL.QUEUE` the key of a queue's bell;
- `each_commit_lane(keys, args)` and the like, which read groups with lists in them, are put before it.

So this costs a call nothing, and a name that is not declared is an error here, not a nil at night.
"""

import re
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from pathlib import Path

from config.store import keyspace
from config.store.function_layout import ArgumentLayout, GroupLayout, layout_of
from config.store.outbox_states import OUTBOX_STATES, TAG_GAPS
from config.store.server_functions import FUNCTIONS, JOINED_FUNCTIONS, ServerFunction
from engine.model.events import InboundSms, OutboundSms

_LUA_FILES = (
    "values", "calls", "outbox_locks", "servers", "dead_letters", "mailboxes", "applied_events", "optouts",
    "campaigns", "lanes", "dead_letter_replay", "outboxes", "channels", "invitations", "inline_replies",
    "event_streams", "hooks", "uploads",
)  # fmt: skip

_FUNCTION = re.compile(r"^local function (\w+)\(keys(?:, args)?\)\n.*?^end$", re.MULTILINE | re.DOTALL)
_ARGUMENT = re.compile(r"(#?)\b(keys|args)\.(\w+)(?:\[([^\]]+)\](?:\.(\w+))?)?")
_CONSTANT = re.compile(r"\b(SMS|INBOUND|STATE|BELL)\.(\w+)")
_COMMENT = re.compile(r"--.*")

_STATE_NAMES = {state.name for state in OUTBOX_STATES}


def library_text(source: str, functions: Iterable[type[ServerFunction]] = FUNCTIONS) -> str:
    """Make the text of a library of `source`: without its first line, which has its name. Raises LookupError for a name that
    is not declared."""
    layouts = {layout.name: layout for layout in map(layout_of, functions)}
    readers = [
        "\n".join(_reader_lines(layout, group))
        for layout in layouts.values()
        for group in layout.groups
        if group.variable
    ]
    text = _CONSTANT.sub(_constant, _COMMENT.sub("", source))
    text = _FUNCTION.sub(lambda found: _with_positions(found[0], layouts[found[1]]), text)
    if (left := _ARGUMENT.search(text)) is not None:
        raise LookupError(f"{left[0]} stands outside of a server-side function")
    return "\n".join([_tag_gaps(), _joined(), *readers, text])


def _constant(found: re.Match[str]) -> str:
    kind, name = found.groups()
    if kind == "SMS" and name in OutboundSms.__struct_fields__:
        return str(1 + OutboundSms.__struct_fields__.index(name))
    if kind == "INBOUND" and name in InboundSms.__struct_fields__:
        return str(2 + InboundSms.__struct_fields__.index(name))
    if kind == "STATE" and name in _STATE_NAMES:
        return f"'{name}'"
    if kind == "BELL" and name in keyspace.QUEUES:
        return f"'{keyspace.wakeup_queue_key(name)}'"
    raise LookupError(f"{found[0]} is not declared")


def _tag_gaps() -> str:
    gaps = ", ".join(f"{name} = '{gap}'" for name, gap in TAG_GAPS.items())
    return f"local TAG_GAPS = {{{gaps}}}"


def _joined() -> str:
    names = ", ".join(f"{layout_of(function).name} = true" for function in JOINED_FUNCTIONS)
    return f"local JOINED = {{{names}}}"


# Positions in a function whose groups have elements of one length


def _with_positions(function: str, layout: ArgumentLayout) -> str:
    return _ARGUMENT.sub(lambda found: _position(layout, *found.groups()), function)


def _position(
    layout: ArgumentLayout, length: str, array: str, name: str, index: str | None, member: str | None
) -> str:
    """Write an argument, or a group's number of elements if there is a `length` sign, with positions for names."""
    written = f"{length}{array}.{name}{f'[{index}]' if index else ''}{f'.{member}' if member else ''}"
    single = layout.keys if array == "keys" else layout.args
    try:
        if length:
            return f"({_count(layout, _group_named(layout, name))})"
        if index is None:
            return f"{array}[{single.index(name) + 1}]"
        return _element_position(layout, array, name, index, member or "")
    except (ValueError, LookupError):
        raise LookupError(f"{written} is not declared") from None


def _element_position(layout: ArgumentLayout, array: str, name: str, index: str, member: str) -> str:
    group = _group_named(layout, name)
    members = group.keys if array == "keys" else group.args
    if group.variable:
        raise LookupError
    step, offset = len(members), members.index(member) + 1 - len(members)
    at = index if re.fullmatch(r"\w+", index) else f"({index})"
    before = _before(layout, group, array)
    first = before[0] + offset
    sign = "-" if first < 0 else "+"
    terms = [at if step == 1 else f"{step} * {at}", *before[1]]
    return f"{array}[{' + '.join(terms)}{f' {sign} {abs(first)}' if first else ''}]"


def _before(layout: ArgumentLayout, group: GroupLayout, array: str) -> tuple[int, list[str]]:
    """How many arguments are before a group: so many, and as many as these expressions say."""
    fixed, expressions = len(layout.keys if array == "keys" else layout.args), list[str]()
    for each in layout.groups[: layout.groups.index(group)]:
        if width := len(each.keys if array == "keys" else each.args):
            expressions.append(f"{width} * ({_count(layout, each)})")
    return fixed, expressions


def _count(layout: ArgumentLayout, group: GroupLayout) -> str:
    """Write how many elements a group has."""
    array = "keys" if group.keys else "args"
    fixed, expressions = _before(layout, group, array)
    width = len(group.keys or group.args)
    rest = " - ".join([f"#{array}", *([str(fixed)] if fixed else []), *expressions])
    return rest if width == 1 else f"({rest}) / {width}"


def _group_named(layout: ArgumentLayout, name: str) -> GroupLayout:
    return next(group for group in layout.groups if group.name == name)


# Readers of groups whose elements have lists in them


def _reader_lines(layout: ArgumentLayout, group: GroupLayout) -> Iterator[str]:
    """Write an iterator of a call's elements, each a table: of single fields; of `NAME_from` and `NAME_to`, the positions in
    ARGV of a list of plain values; and of lists of tables."""
    assert group.element is not None  # noqa: S101 - a variable group has one
    yield f"local function each_{group.element.name}(keys, args)"
    yield f"  local k, a = {len(layout.keys)}, {len(layout.args)}"
    yield "  return function()"
    yield "    if k >= #keys then return nil end"
    yield from _element_lines("e", group.element, "    ")
    yield "    return e"
    yield "  end"
    yield "end"


def _element_lines(table: str, layout: ArgumentLayout, indent: str) -> Iterator[str]:
    fields = [f"{name} = keys[k + {at}]" for at, name in enumerate(layout.keys, 1)]
    fields += [f"{name} = args[a + {at}]" for at, name in enumerate(layout.args, 1)]
    yield f"{indent}local {table} = {{{', '.join(fields)}}}"
    yield f"{indent}k, a = k + {len(layout.keys)}, a + {len(layout.args)}"
    for group in layout.groups:
        name, inner = f"{table}.{group.name}", f"{table}{table[0]}"
        if group.element is None:
            yield f"{indent}{name}_from, {name}_to = a + 2, a + 1 + args[a + 1]"
            yield f"{indent}a = {name}_to"
        elif group.optional:
            yield f"{indent}a = a + 1"
            yield f"{indent}if args[a] == '1' then"
            yield from _element_lines(inner, group.element, f"{indent}  ")
            yield f"{indent}  {name} = {inner}"
            yield f"{indent}end"
        else:
            yield f"{indent}a, {name} = a + 1, {{}}"
            yield f"{indent}for i = 1, tonumber(args[a]) do"
            yield from _element_lines(inner, group.element, f"{indent}  ")
            yield f"{indent}  {name}[i] = {inner}"
            yield f"{indent}end"


LUA_FOLDER = Path(__file__).with_name("lua")

_LUA_SOURCE = library_text("\n".join(LUA_FOLDER.joinpath(f"{name}.lua").read_text() for name in _LUA_FILES))

LIBRARY_NAME = f"parley_{blake2b(_LUA_SOURCE.encode(), digest_size=4).hexdigest()}"
"""What our server-side functions are called in Redis: by their text, so that those of two releases live side by side
in a rolling deployment. Each release calls its own, on the same keys."""

LIBRARY_SOURCE = f"#!lua name={LIBRARY_NAME}\n{_LUA_SOURCE.replace('@library@', LIBRARY_NAME)}"
