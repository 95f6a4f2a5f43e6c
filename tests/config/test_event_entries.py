"""What an event stream has, plain or compact, is what was written, and never another thing."""

import zlib
from contextlib import suppress

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.store.event_entries import (
    COMPACT_MARK,
    MAX_RECORDS_BYTES,
    compact_records,
    entry_records,
    plain_records,
)
from engine.model.events import (
    Answer,
    SessionOpened,
    SmsDecided,
    SmsReceived,
    SmsSent,
    decode_records,
    encode_event,
)

AT = 1_796_138_209_699
TURN = [
    SmsReceived(
        AT, "clinic", "4adcdd3dd81fc1ab", "036d37a594080aaf", "Ada", step="name", answer=Answer("Ada", "Ada"),
        answer_type="text",
    ),
    SmsDecided(AT, "clinic", "4adcdd3dd81fc1ab", "4adcdd3dd81fc1abx1", "fever", "Do you have a fever?", "ask"),
]  # fmt: skip
OPENING = [
    SessionOpened(AT, "clinic", "4adcdd3dd81fc1ab", "clinic", "19d3b2e3f20fb862", "en"),
    SmsReceived(AT, "clinic", "4adcdd3dd81fc1ab", "4adcdd3dd81fc1ab", "START"),
    SmsDecided(AT, "clinic", "4adcdd3dd81fc1ab", "4adcdd3dd81fc1abx0", "name", "What is your name?", "ask"),
]
SENT = [
    SmsSent(AT, "clinic", "4adcdd3dd81fc1ab", "4adcdd3dd81fc1abx0", "sms_0000000000071", 1, 50_000, "EUR")
]

WRITTEN_TURN = bytes.fromhex(
    "c1014356b5c8484f70f1b2e49cccbccce40d268929c92929c62929168669c98689491b0c8ccd528ccd134d2d4d0c2c0c1213d3163ba62402"
    "cd5d9297989b3a05c401614c4bf01aba09dd960ac3a569a9c0b0dde292af50995faa90018c32854405b0983dc8bd00"
)
WRITTEN_OPENING = bytes.fromhex(
    "c10143b5cd484f70f1b2e49cccbccce40d268929c92929c62929168669c9868949307143cb14e324a354e3342383b4240b332374272ec267"
    "0886a9383c84d7904de84eab30589297989bba293c23b14421b358a132bfb4480124620ff22200"
)
WRITTEN_SENT = bytes.fromhex(
    "c10143d2b5c8484f70f1b2e49cccbccce40d268929c92929c62929168669c98689499bd0052a0c3616e716c71b2080b921c85e50d80100"
)


@pytest.mark.parametrize(
    "records, written",
    [(TURN, WRITTEN_TURN), (OPENING, WRITTEN_OPENING), (SENT, WRITTEN_SENT)],
    ids=["turn", "opening", "sent"],
)
def test_what_was_compact_once_is_read_for_ever(records, written):
    """By whatever library: how well it compresses may change."""
    assert decode_records(plain_records(written)) == records
    assert decode_records(plain_records(compact_records(encode_event(records)))) == records


def test_the_records_of_an_open_conversation_take_half_of_the_space():
    """What it is for."""
    plain = [encode_event(records) for records in (OPENING, SENT)]
    assert sum(len(compact_records(each)) for each in plain) < 0.5 * sum(map(len, plain))


@given(st.binary(max_size=2_000))
def test_anything_is_what_it_was(content):
    written = compact_records(content)
    assert len(written) <= len(content)
    assert plain_records(written) == content or content.startswith(COMPACT_MARK)


@given(
    st.lists(st.text(max_size=200).map(lambda text: SmsReceived(AT, "clinic", "s", "i", text)), max_size=300)
)
def test_lists_of_any_length_are_what_they_were(records):
    plain = encode_event(records)
    assert entry_records({b"to": b"+33", b"e": compact_records(plain)}) == plain


@given(st.data())
def test_what_is_damaged_is_unreadable_or_another_list_and_harms_nobody(data):
    """DEFLATE has no checksum, and nor has msgpack."""
    written = bytearray(compact_records(encode_event(TURN)))
    at = data.draw(st.integers(len(COMPACT_MARK), len(written) - 1))
    written[at] ^= data.draw(st.integers(1, 255))
    read = plain_records(bytes(written))
    with suppress(msgspec.MsgspecError):
        decode_records(read)


@given(st.integers(0, 200))
def test_what_is_cut_off_is_unreadable(length):
    written = compact_records(encode_event(TURN))
    cut = written[: min(length, len(written) - 1)]
    assert plain_records(cut) in (b"", cut[:1])
    assert plain_records(written + b"\0") == b""


def test_what_no_turn_can_have_written_is_not_unpacked():
    bomb = zlib.compressobj(9, zlib.DEFLATED, -10)
    written = COMPACT_MARK + bomb.compress(bytes(2 * MAX_RECORDS_BYTES)) + bomb.flush()
    assert len(written) < 100_000
    assert plain_records(written) == b""
    with pytest.raises(msgspec.MsgspecError):
        decode_records(plain_records(written))
