"""The model of a server answers as Valkey does: commands, errors, functions, and what lies there afterwards."""

import re
from random import Random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config.store.lua_library import LIBRARY_SOURCE
from tests.simulated.comparison.call_samples import CallSamples
from tests.simulated.comparison.command_samples import COMMANDS, CommandSamples
from tests.simulated.comparison.frozen_clock import FrozenClock
from tests.simulated.comparison.server_pair import ServerPair
from tests.simulated.server.server_model import ServerModel
from tests.support.example_counts import examples
from tests.support.stepped_clock import NO_COMPILER

pytestmark = pytest.mark.processes

SEEDS = st.integers(0, 2**32)

STEPS_MS = (0, 1, 2, 9, 50, 1_000, 20_000, -1, -500, -30_000)

CODING = """#!lua name=coding
local function tried(code)
  return function(keys, args)
    local answers = {pcall(code, args[1], tonumber(args[2]))}
    for i = 1, 4 do
      if answers[i] == nil then answers[i] = 'nothing' end
      if type(answers[i]) == 'number' then answers[i] = string.format('%.17g', answers[i]) end
    end
    return answers
  end
end
redis.register_function('unpack', tried(function(text) local packed = cmsgpack.pack(cmsgpack.unpack(text)) return packed end))
redis.register_function('unpack_one', tried(function(text, at)
  local after, value = cmsgpack.unpack_one(text, at)
  local packed = cmsgpack.pack(value)
  return after, packed
end))
redis.register_function('to_json', tried(function(text) local json = cjson.encode(cmsgpack.unpack(text)) return json end))
redis.register_function('from_json', tried(function(text) local packed = cmsgpack.pack(cjson.decode(text)) return packed end))
redis.register_function('json', tried(function(text) local json = cjson.encode(cjson.decode(text)) return json end))
redis.register_function('value', function(keys, args) local value = cmsgpack.unpack(args[1]) return value end)
redis.register_function('many', function(keys, args) return {#keys, #args, args} end)
redis.register_function('count', function(keys, args)
  local answer = {}
  for i = 1, tonumber(args[1]) do answer[i] = i end
  return answer
end)
redis.register_function('range', function(keys, args) return redis.call('LRANGE', 'many', 0, -1) end)
"""


@pytest.fixture(scope="module")
def pair():
    try:
        FrozenClock().close()
    except FileNotFoundError:
        pytest.skip(NO_COMPILER)
    with ServerPair() as pair:
        yield pair


def test_every_command_of_the_model_is_drawn():
    assert {name.encode() for name in COMMANDS} == ServerModel(lambda: 0).known_commands


@settings(max_examples=examples(40))
@given(seed=SEEDS)
def test_commands_are_answered_as_valkey_answers_them(pair, seed):
    chance = Random(seed)
    pair.begin()
    for _ in range(6):
        samples = CommandSamples(chance, pair.now_ms)
        pair.compare([samples.command() for _ in range(40)])
        pair.compare_state()
        pair.step(chance.choice(STEPS_MS))
    pair.compare_state()


@settings(max_examples=examples(40))
@given(seed=SEEDS)
def test_our_functions_are_answered_as_valkey_answers_them(pair, seed):
    chance = Random(seed)
    pair.begin()
    pair.compare([("FUNCTION LOAD", LIBRARY_SOURCE)])
    samples = CallSamples(chance, pair.now_ms)
    for _ in range(6):
        samples.now_ms = pair.now_ms
        for _ in range(4):
            calls = [samples.damage() if chance.random() < 0.05 else samples.call() for _ in range(6)]
            for answer in pair.compare(calls):
                samples.learn(answer)
        pair.compare_state()
        pair.step(chance.choice(STEPS_MS))
    pair.compare_state()


@settings(max_examples=examples(8))
@given(seed=SEEDS, full=st.booleans())
def test_what_is_refused_is_what_valkey_refuses(pair, seed, full):
    chance = Random(seed)
    pair.begin()
    pair.compare([("FUNCTION LOAD", LIBRARY_SOURCE)])
    commands, calls = CommandSamples(chance, pair.now_ms), CallSamples(chance, pair.now_ms)
    for refuses in (False, True):
        pair.set_faults(full=full and refuses, read_only=not full and refuses)
        pair.compare([drawn for _ in range(30) for drawn in (commands.command(), calls.call())])
        pair.compare([("FUNCTION LOAD", "REPLACE", LIBRARY_SOURCE)])
        pair.compare_state()
    pair.set_faults()


_SEVERAL_KEYS = re.compile(rb"[\x82-\x8f\xde\xdf]")
"""What begins a map of several keys in msgpack: in which order Lua has those is chance. Of damage, or from the middle, anything
may be one."""


def has_one_key(packed):
    return _SEVERAL_KEYS.search(packed) is None


def values(characters):
    plain = (
        st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.integers(-(2**63), 2**64 - 1)
        | st.floats(allow_nan=False) | st.floats(width=32, allow_nan=False)
        | st.text(characters, max_size=40) | st.text(characters, min_size=250, max_size=300)
    )  # fmt: skip
    return st.recursive(
        plain,
        lambda inner: (
            st.lists(inner, max_size=20) | st.dictionaries(st.text(characters, max_size=5), inner, max_size=1)
        ),
        max_leaves=30,
    )


CHARACTERS = st.characters(codec="utf-8")
PACKED = values(CHARACTERS.filter(lambda each: has_one_key(each.encode()))).map(msgspec.msgpack.encode)
JSON = values(CHARACTERS).map(msgspec.json.encode)


@st.composite
def damaged(draw, written):
    """What is written, or part of it, or with a byte that is another."""
    text = draw(written)
    at = draw(st.integers(0, max(0, len(text) - 1)))
    way = draw(st.integers(0, 3))
    if way == 0:
        return text[:at]
    if way == 1:
        return text[:at] + draw(st.binary(min_size=1, max_size=1)) + text[at + 1 :]
    return text


@pytest.fixture(scope="module")
def coding(pair):
    pair.begin()
    pair.compare([("FUNCTION LOAD", CODING)])
    return pair


@settings(max_examples=examples(300))
@given(packed=damaged(PACKED).filter(has_one_key), at=st.integers(-1, 5))
def test_msgpack_is_that_of_valkey_to_the_byte(coding, packed, at):
    coding.compare(
        [
            ("FCALL", "unpack", 0, packed), ("FCALL", "unpack_one", 0, packed, at),
            ("FCALL", "to_json", 0, packed), ("FCALL", "value", 0, packed),
        ]
    )  # fmt: skip


ODD_JSON = st.text('{}[]:,"\\truefalsn+-.0123456789eExXINaif \n\x00\x7fé', max_size=12).map(str.encode)


@settings(max_examples=examples(300))
@given(text=damaged(JSON) | ODD_JSON)
def test_json_is_that_of_valkey_to_the_byte(coding, text):
    coding.compare([("FCALL", "from_json", 0, text), ("FCALL", "json", 0, text)])


def test_a_call_may_have_many_words_and_much_to_answer(coding):
    words = [f"word-{n}" for n in range(17_000)]
    coding.compare(
        [
            ("FCALL", "many", 3, *words), ("FCALL", "count", 0, 6_999), ("FCALL", "count", 0, 7_000), ("FCALL", "count", 0, 20_001),
            ("RPUSH", "many", *words), ("FCALL", "range", 0), ("DEL", "many"),
        ]
    )  # fmt: skip
