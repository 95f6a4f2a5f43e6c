"""An entry's id is two numbers, however it is spelt."""

from config.store.entry_id import BEGINNING, EntryId


def test_it_reads_what_redis_answers_and_spells_it_so(valkey):
    client = valkey.client()
    entry_id = client.xadd("a stream", {"a": "b"}, id="1526919030474-18446744073709551615")
    parsed = EntryId.parse(entry_id)
    assert parsed == (1_526_919_030_474, 2**64 - 1)
    assert (str(parsed).encode(), f"({parsed}") == (entry_id, "(1526919030474-18446744073709551615")


def test_ids_are_in_the_order_of_their_numbers():
    in_order = [BEGINNING, *map(EntryId.parse, (b"0-1", b"9-0", b"9-9", b"9-10", b"10-0"))]
    assert sorted(in_order) == in_order
    assert sorted(in_order, key=str) != in_order


def test_what_follows_an_id_is_the_next_of_its_moment():
    assert str(EntryId(9, 9).following) == "9-10"
