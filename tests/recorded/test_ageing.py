"""A sample is moved in time as a whole: nothing of it stays behind, and nothing else of it changes."""

import json
import re
from pathlib import Path

import msgspec
import pytest

from tests.recorded import reading
from tests.recorded.ageing import DAY_MS, DAYS, LAYOUTS, MOMENTS_MS, TOKENS, Move, aged, recorded_at
from tests.support import audit

RELEASES = sorted(Path(__file__).parent.glob("*.jsonl"))
YEAR_MS = 365 * DAY_MS
LETTERS_BYTES = {"what", "state"}


@pytest.fixture(params=RELEASES, ids=lambda release: release.stem)
def samples(request):
    return [json.loads(line) for line in request.param.read_text().splitlines()]


def test_every_kind_of_key_is_known_here():
    assert LAYOUTS.keys() == audit.patterns().keys() | audit.FIXED


def test_nothing_stays_behind(samples):
    """Whatever looks like a moment of that day, in any value at any place, is of another day now."""
    at = recorded_at(samples)
    near = range(at - DAY_MS // 2, at + 8 * DAY_MS)
    moved = aged(keeping(samples), at + YEAR_MS)
    then = [(moment + YEAR_MS) for _, moment in found(samples, near)]
    assert len(then) > 100
    assert found(moved, near) == []
    assert [moment for _, moment in found(moved, range(near.start + YEAR_MS, near.stop + YEAR_MS))] == then


def test_what_is_read_in_it_is_the_same_but_for_the_times(samples):
    """Read by this release, which the moving knows nothing of."""
    at = recorded_at(samples)
    for before, after in zip(samples, aged(keeping(samples), at + YEAR_MS), strict=True):
        then = reading.means(before["key"], before["value"])
        now = reading.means(after["key"], after["value"])
        assert later(now, 0) == later(then, YEAR_MS), before["key"]


def test_moved_back_it_is_what_it_was(samples):
    at = recorded_at(samples)
    there = aged(keeping(samples), at + 400 * DAY_MS + 60_000)
    back = aged(there, at)
    assert there != back
    assert [(each["key"], each["value"]) for each in back] == [
        (each["key"], each["value"]) for each in samples
    ]


def test_what_was_to_go_goes_as_much_sooner(samples):
    left = [each["ttl_ms"] for each in samples if not 0 <= each["ttl_ms"] <= DAY_MS]
    older = aged(samples, recorded_at(samples), DAY_MS)
    assert [each["ttl_ms"] for each in older] == [ms if ms == -1 else ms - DAY_MS for ms in left]


@pytest.mark.parametrize(
    "stored, moved",
    [
        (b"5 1795283447937 1 0 7e41c7250ae190a5", b"5 1795283447938 1 0 7e41c7250ae190a5"),
        (b"1795283447937000 0 0 1795283447937 w;1795283447938,1795283447939",
         b"1795283447938000 0 0 1795283447938 w;1795283447939,1795283447940"),
        (b"0 1 1 0 booked1795283447937", b"0 1 1 0 booked1795283447938"),
        (b"0 1 1 0 entrusted 1795283447937abc?", b"0 1 1 0 entrusted 1795283447937abc?"),
        (b"1795283445281.000", b"1795283445282.000"),
        (b'{"by":"operator","why":"x","since":1795283445281}', b'{"by":"operator","why":"x","since":1795283445282}'),
        (b"1795283440875 +491795283440875", b"1795283440876 +491795283440875"),
    ],
)  # fmt: skip
def test_moments_in_text_are_moved_and_numbers_and_ids_are_not(stored, moved):
    assert Move(0, 1).text(stored) == moved


@pytest.mark.parametrize(
    "value, moved",
    [
        ([1795283440875, 7, "1795283440875"], [1795283440876, 7, "1795283440875"]),
        ({"a": {3: 1795283440875}, "b": [b"R1795283440875" + msgspec.msgpack.encode([1795283440875])]},
         {"a": {3: 1795283440876}, "b": [b"R1795283440876" + msgspec.msgpack.encode([1795283440876])]}),
        ([1.5, -3, None, True, "x" * 300, b"y" * 70_000, list(range(20)), 1795283440875],
         [1.5, -3, None, True, "x" * 300, b"y" * 70_000, list(range(20)), 1795283440876]),
        ({str(n): 2**33 + n for n in range(40)} | {"z": 1795283440875},
         {str(n): 2**33 + n for n in range(40)} | {"z": 1795283440876}),
    ],
)  # fmt: skip
def test_moments_in_msgpack_are_moved_wherever_they_are(value, moved):
    assert Move(0, 1).packed(msgspec.msgpack.encode(value)) == msgspec.msgpack.encode(moved)


def test_the_day_of_a_line_follows_the_calendar():
    blob = msgspec.msgpack.encode([DAYS.start + 9, 4])
    for hours, days in ((1, 0), (24, 1), (23, 1), (24 * 40, 40)):
        moved = Move(2 * 3_600_000, (2 + hours) * 3_600_000).packed(blob)
        assert msgspec.msgpack.decode(moved) == [DAYS.start + 9 + days, 4], hours


@pytest.mark.parametrize(
    "broken", [b"", b"no event", b"\xcf\x00\x00\x01", b"\xdc\x00\x09\x01", b"\xc1\x92\x01"]
)
def test_what_is_no_msgpack_stays_as_it_is(broken):
    assert Move(0, DAY_MS).packed(broken) == broken


def keeping(samples):
    """Nothing of it goes by itself."""
    return [each | {"ttl_ms": -1} for each in samples]


def found(samples, moments):
    """Where such a moment is, as digits or as eight bytes, in whatever bytes."""
    return [
        (sample["key"], moment)
        for sample in samples
        for moment in numbers(sample["value"])
        if moment in moments
    ]


def numbers(value):
    match value:
        case str():
            blob = reading.raw(value)
            yield from (int(digits) for digits in re.findall(rb"\d{13}", blob))
            yield from (int.from_bytes(blob[at : at + 8]) for at in range(len(blob) - 7))
        case list():
            for each in value:
                yield from numbers(each)
        case float():
            yield int(value)


def later(value, ms):
    """What was read, with every time in it as much later; without a dead letter's bytes, in which there are more."""
    match value:
        case dict():
            fields = {field: held for field, held in value.items() if field not in LETTERS_BYTES}
            return {
                field: held + ms // DAY_MS if field == "counted_day" and held else later(held, ms)
                for field, held in fields.items()
            }
        case list():
            return [later(each, ms) for each in value]
        case int() if value in MOMENTS_MS:
            return value + ms
        case int() if value in TOKENS:
            return value + ms * 1_000
        case _:
            return value
