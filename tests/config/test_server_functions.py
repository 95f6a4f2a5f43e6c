"""One declaration is what Python packs and what Lua reads: for every function, on a real server."""

import re
from itertools import count

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from config.store import function_calls, lua_library, server_functions
from config.store.function_layout import layout_of
from config.store.lua_library import library_text
from config.store.server_functions import FUNCTIONS, CommitLane, IndexedSession, RareEffects
from engine.model.events import OutboundSms, encode_event

LUA = {path.name: path.read_text() for path in lua_library.LUA_FOLDER.glob("*.lua")}
NAMES = {layout_of(each).name: each for each in FUNCTIONS}


def registered():
    return {name for text in LUA.values() for name in re.findall(r"^register\('(\w+)'", text, re.MULTILINE)}


def body_of(name):
    """The text of a server-side function, without comments."""
    (body,) = (
        found
        for text in LUA.values()
        for found in re.findall(rf"^local function {name}\(keys.*?^end$", text, re.MULTILINE | re.DOTALL)
    )
    return re.sub(r"--.*", "", body)


def test_what_is_declared_is_registered_and_called_in_lua_as_its_class():
    assert registered() == set(NAMES)
    assert len(NAMES) == len(FUNCTIONS)
    declared = {
        each
        for each in vars(server_functions).values()
        if isinstance(each, type) and issubclass(each, server_functions.ServerFunction)
    }
    assert declared == {*FUNCTIONS, server_functions.ServerFunction}


@pytest.mark.parametrize("name", NAMES)
def test_lua_reads_everything_that_is_declared(name):
    body = body_of(name)
    layout = layout_of(NAMES[name])
    read = set(re.findall(r"\b(keys|args)\.(\w+)(?:\[[^\]]+\])?(?:\.(\w+))?", body))
    expected = {("keys", each, "") for each in layout.keys} | {("args", each, "") for each in layout.args}
    for group in layout.groups:
        if group.variable:
            assert f"each_{group.element.name}(keys, args)" in body
            continue
        expected |= {("keys", group.name, member) for member in group.keys}
        expected |= {("args", group.name, member) for member in group.args}
    assert {each for each in read if each[2] or (each[0], each[1], "") in expected} >= expected
    assert not {each for each in read if each[1] not in {name for _, name, _ in expected}}


def test_layouts_keep_their_law():
    for function in FUNCTIONS:
        groups = layout_of(function).groups
        assert sum(bool(group.keys) for group in groups) <= 1, function
        assert all(group.keys for group in groups if group.args and group is not groups[-1]), function
    declared = filter(is_group, vars(server_functions).values())
    for each in {*FUNCTIONS, *declared} - {server_functions.ArgumentGroup}:
        layout = layout_of(each)
        in_order = (*layout.keys, *layout.args, *(group.name for group in layout.groups))
        assert each.__struct_fields__ == in_order, each


# A function of the same declaration that answers what it reads


def echo(function):
    """Lua text of a function that answers all its arguments, by name, and each group's length."""
    layout = layout_of(function)
    reads = [
        f"'{array}:{each}', {array}.{each}" for array in ("keys", "args") for each in getattr(layout, array)
    ]
    lines = [f"local function {layout.name}(keys, args)", f"  local all = {{{', '.join(reads)}}}"]
    for group in layout.groups:
        if group.variable:
            continue
        for array in ("keys", "args"):
            for member in getattr(group, array):
                path = f"{array}.{group.name}[i]{f'.{member}' if member else ''}"
                name = f"{array}:{group.name}:{member}"
                lines.append(f"  for i = 1, #{array}.{group.name} do")
                lines.append(f"    all[#all + 1], all[#all + 2] = '{name}', {path}")
                lines.append("  end")
    return "\n".join([*lines, "  return all", "end", f"register('{layout.name}', {layout.name})"])


REGISTER = """
local function register(name, callback)
  redis.register_function{function_name = 'echo_' .. name, callback = callback}
end
"""


@pytest.fixture
def client(valkey):
    client = valkey.client()
    yield client
    client.function_flush()


@pytest.fixture
def lanes_echoed(client):
    load(client, ECHO_LANES)
    return client


def load(client, source):
    client.function_load(f"#!lua name=echo\n{library_text(REGISTER + source)}", replace=True)


def call_echo(client, call):
    command = [*function_calls.function_call(call)]
    command[1] = command[1].replace(lua_library.LIBRARY_NAME, "echo")
    return client.execute_command(*command)


def filled(declared, values, elements):
    """A call, or an element of a group, each of whose arguments is another; groups have so many elements."""
    layout = layout_of(declared)
    fields = {name: f"{next(values)}" for name in (*layout.keys, *layout.args)}
    for group in layout.groups:
        if group.element is None:
            fields[group.name] = [f"{next(values)}" for _ in range(elements)]
        elif group.optional:
            fields[group.name] = filled(RareEffects, values, elements)
        else:
            types = {layout_of(each).name: each for each in vars(server_functions).values() if is_group(each)}
            fields[group.name] = [
                filled(types[group.element.name], values, elements) for _ in range(elements)
            ]
    return declared(**fields)


def is_group(each):
    return isinstance(each, type) and issubclass(each, server_functions.ArgumentGroup)


def said(declared, call):
    """(name, value) of each argument, as `echo` answers."""
    layout = layout_of(declared)
    for array in ("keys", "args"):
        for name in getattr(layout, array):
            yield f"{array}:{name}", getattr(call, name)
    for group in layout.groups:
        for array in ("keys", "args"):
            for member in getattr(group, array):
                for element in getattr(call, group.name):
                    value = getattr(element, member) if member else element
                    yield f"{array}:{group.name}:{member}", value


@pytest.mark.parametrize("elements", [0, 1, 3])
@pytest.mark.parametrize("function", [each for each in FUNCTIONS if each is not server_functions.Commit])
def test_lua_reads_each_argument_where_python_puts_it(client, function, elements):
    load(client, echo(function))
    call = filled(function, count(1000), elements)
    answer = [each.decode() for each in call_echo(client, call)]
    assert sorted(zip(answer[::2], answer[1::2], strict=True)) == sorted(said(function, call))


ECHO_LANES = """
local function pairs_of(value)
  if type(value) ~= 'table' then return tostring(value) end
  local all = {}
  for name, each in pairs(value) do
    all[#all + 1], all[#all + 2] = tostring(name), pairs_of(each)
  end
  return all
end

local function commit(keys, args)
  local all = {keys.dead_letter_audit, args.keep_applied_ms}
  for lane in each_commit_lane(keys, args) do
    for _, table in ipairs({lane, lane.rare or {}}) do
      for _, name in ipairs({'records', 'outbox_entries'}) do
        if table[name .. '_from'] then
          table[name] = {}
          for i = table[name .. '_from'], table[name .. '_to'] do table[name][#table[name] + 1] = args[i] end
          table[name .. '_from'], table[name .. '_to'] = nil, nil
        end
      end
    end
    all[#all + 1] = pairs_of(lane)
  end
  return all
end
register('commit', commit)
"""

words = st.text("abc?-0 ", max_size=3)
withdrawals = st.builds(server_functions.Withdrawal, name=words, code=words, why=words)
rare = st.none() | st.builds(
    RareEffects,
    number_hash=words,
    sessions=st.lists(st.builds(IndexedSession, session=words, location=words, until_ms=st.integers(0, 9))),
    silenced_channels=st.lists(withdrawals),
    withdrawn_sessions=st.lists(withdrawals),
    dead_letters=st.lists(
        st.builds(server_functions.AddedDeadLetter, id=words, content=st.binary(max_size=3))
    ),
    opt_outs=st.lists(
        st.builds(server_functions.ChangedOptOut, channel=words, at_ms=st.integers(0, 9), source=words)
    ),
    resolutions=st.lists(st.builds(server_functions.ResolvedDeadLetter, id=words, by=words, outcome=words)),
)
lanes = st.builds(
    CommitLane,
    mailbox=words, lane=words, lane_lock=words, outbox=words, outbox_lock=words, sender=words, fence=st.integers(1, 9),
    applied=st.integers(0, 9), deadline=st.integers(0, 9) | st.just("-"), keep_until=st.integers(0, 9) | st.just("-"),
    state=st.binary(max_size=3), records=st.lists(st.binary(max_size=3)), outbox_entries=st.lists(st.binary(max_size=3)),
    rare=rare,
)  # fmt: skip


def plain(value):
    """Structs as dicts, and everything single as bytes."""
    match value:
        case dict():
            return {name: plain(each) for name, each in value.items() if each is not None}
        case list():
            return [plain(each) for each in value]
        case bytes():
            return value
        case _:
            return str(value).encode()


def named(answer):
    """As `pairs_of` answers: a table's names are text, those of a list numbers."""
    if isinstance(answer, bytes):
        return answer
    found = {name.decode(): named(each) for name, each in zip(answer[::2], answer[1::2], strict=True)}
    return [found[str(i)] for i in range(1, len(found) + 1)] if all(map(str.isdigit, found)) else found


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(lanes, max_size=3))
def test_lua_reads_each_lane_of_a_commit_as_python_packs_it(lanes_echoed, lanes):
    fixed = filled(server_functions.Commit, count(1000), 0)
    answer = call_echo(lanes_echoed, msgspec.structs.replace(fixed, lanes=lanes))
    assert answer[:2] == [fixed.dead_letter_audit.encode(), fixed.keep_applied_ms.encode()]
    assert [named(each) for each in answer[2:]] == [plain(msgspec.structs.asdict(each) | {"rare": each.rare and {
        name: [msgspec.structs.asdict(one) if is_group(type(one)) else one for one in value] if isinstance(value, list) else value
        for name, value in msgspec.structs.asdict(each.rare).items()
    }}) for each in lanes]  # fmt: skip


# Names that are not declared


@pytest.mark.parametrize(
    "text",
    [
        "local function wake(keys, args)\n  return args.sender\nend",
        "local function wake(keys, args)\n  return keys.senders[1]\nend",
        "local function lease_sms(keys, args)\n  return keys.outboxes[1].sender\nend",
        "local function commit(keys, args)\n  return keys.lanes[1].mailbox\nend",
        "local function not_declared(keys, args)\nend",
        "local function helper(other)\n  return args.sender\nend",
        "local sms = SMS.unknown",
        "local state = STATE.unknown",
    ],
)
def test_a_name_that_is_not_declared_is_no_library(text):
    with pytest.raises(LookupError):
        library_text(text)


@pytest.mark.parametrize("field", OutboundSms.__struct_fields__)
def test_lua_knows_the_fields_of_an_sms_by_their_numbers(client, field):
    load(
        client,
        "local function wake(keys, args)\n"
        f"  return tostring(cmsgpack.unpack(args.senders[1])[SMS.{field}])\nend\nregister('wake', wake)",
    )
    sms = OutboundSms("id1", "c", "+33", "text", "ses", "orig", False, 12, 34, True, "survey")
    call = server_functions.Wake(wakeup_queue="bell", senders=[encode_event(sms)])
    value = getattr(sms, field)
    assert call_echo(client, call).decode() == (str(value).lower() if isinstance(value, bool) else str(value))
