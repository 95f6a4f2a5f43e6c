"""What do the fields of an event stream's entry come to? `to` names whose it is, `e` is a list of records.

Release 0.1.0 cannot read a list with a record in it that it does not know. So one that came after it stands alone in a third
field, `d`, and `e` is an empty list then: to 0.1.0, an entry of which nothing follows.
"""

from collections.abc import Mapping

_RECORDS_ONLY = frozenset((b"to", b"e"))
_WITH_NEWER_RECORD = frozenset((b"to", b"e", b"d"))
_NO_RECORDS = b"\x90"
_ONE_RECORD = b"\x91"


def entry_records(fields: Mapping[bytes, bytes]) -> bytes:
    """The records of an entry, as decode_records reads them and the archive keeps them; empty if the fields are not as we
    write them."""
    names = fields.keys()
    if names == _RECORDS_ONLY:
        return fields[b"e"]
    if names == _WITH_NEWER_RECORD and fields[b"e"] == _NO_RECORDS:
        return _ONE_RECORD + fields[b"d"]
    return b""
