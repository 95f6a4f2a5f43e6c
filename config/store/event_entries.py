"""What do the fields of an event stream's entry come to? `to` names whose it is, `e` is a list of records.

Release 0.1.0 cannot read a list with a record in it that it does not know. So one that came after it stands alone in a third
field, `d`, and `e` is an empty list then: to 0.1.0, an entry of which nothing follows.

Nor can it read a compact list, which PARLEY_COMPACT_RECORDS has written: COMPACT_MARK, and the list by raw DEFLATE (RFC 1951) with a
preset dictionary, of the words that any list has; what a list repeats, ids and times most of all, DEFLATE finds itself.
"""

import zlib
from collections.abc import Mapping

_NO_RECORDS = b"\x90"
_ONE_RECORD = b"\x91"

COMPACT_MARK = b"\xc1\x01"
"""No msgpack begins so. The second byte is the dictionary's number: another dictionary takes another, and this one stays."""

MAX_RECORDS_BYTES = 1 << 24
"""What is longer was not written by us: an entry is of one turn, or of one try."""

_DICTIONARY = (
    b"\xa7refused\xa8cooldown\xa9daily_cap\xa9opted_out\x92\x99\xa4said\x9d\xa5heard\xa6remind\xa5reask"
    b"\xa3say\xa5fixed\xa7misread\xa7invited\xaainvitation\x96\xa5ended\xa9cancelled\xa7expired\xa4idle"
    b"\xa7gave_up\xa7stopped\xa9completed\xa6unsent\x9c\xa7receipt\xa3EUR\xa3USD\xa4sent\xa6failed"
    b"\xa9DELIVERED\xa9delivered\xa4true\xa5false\xc3\xc2\xa4date\xa4time\xa5phone\xa5scale\x90"
    b"\xa7choices\x90\xa6yes_no\x90\xa6number\x90\xa6choice\x90\xa4text\x90\xc0\xa0\x90\x91\x98\xa4said"
    b"\x93\x99\xa6opened\xcf\x00\x00\x01\xa2en\xa0\x80\x9d\xa5heard\xcf\x00\x00\x01\xa5START\xa0\xa0"
    b"\xa0\xa0\xc0\xa0\x90\x98\xa4said\xcf\x00\x00\x01\xa3ask\x91\x99\xa4sent\xcf\x00\x00\x01\x01\xcd"
    b"\xc3P\xa0\x92\x9d\xa5heard\xcf\x00\x00\x01\xa0\xa0\xa0\x94\xff\x90\xa4text\x90\x98\xa4said\xcf"
    b"\x00\x00\x01\xa3ask"
)
_WINDOW_BITS = -10  # raw, 1 KiB: lists are short, and a window is cleared each time

_deflater = zlib.compressobj(1, zlib.DEFLATED, _WINDOW_BITS, memLevel=1, zdict=_DICTIONARY)
_inflater = zlib.decompressobj(_WINDOW_BITS, _DICTIONARY)


def entry_records(fields: Mapping[bytes, bytes]) -> bytes:
    """The records of an entry, as decode_records reads them and the archive keeps them; empty if the fields are not as we
    write them."""
    records, newer_record = fields.get(b"e"), fields.get(b"d")
    if records is None or b"to" not in fields or len(fields) > 2 + (newer_record is not None):
        return b""
    if newer_record is None:
        return plain_records(records)
    return _ONE_RECORD + newer_record if records == _NO_RECORDS else b""


def compact_records(records: bytes) -> bytes:
    """A list of records as PARLEY_COMPACT_RECORDS has it written: compact, if it is shorter so."""
    deflater = _deflater.copy()  # which costs half of making one
    compact = COMPACT_MARK + deflater.compress(records) + deflater.flush()
    return compact if len(compact) < len(records) else records


def plain_records(stored: bytes) -> bytes:
    """A list of records as msgpack, however it is stored; empty if it was compact, and is damaged."""
    if not stored.startswith(COMPACT_MARK):
        return stored
    inflater = _inflater.copy()
    try:
        records = inflater.decompress(stored[len(COMPACT_MARK) :], MAX_RECORDS_BYTES)
    except zlib.error:
        return b""
    return records if inflater.eof and not inflater.unused_data else b""
