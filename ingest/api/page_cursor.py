"""Where did a reader stop? A cursor names a place in an order of sessions; to a reader it is opaque.

It says nothing of filters: whoever changes them reads on from the same place.
"""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from typing import Annotated

import msgspec
from msgspec import Meta

from config.archive.session_pages import SessionOrder, SessionPlace
from engine.model.errors import ParleyError

CURSOR_PATTERN = "[A-Za-z0-9_-]{8,120}"

_Whole = Annotated[int, Meta(ge=0, le=2**63 - 1)]


class InvalidCursorError(ParleyError):
    """A cursor is none that we wrote for this order. The message says what was expected."""


class _CursorContent(msgspec.Struct, frozen=True, array_like=True):
    order: SessionOrder
    ms: _Whole
    shard: Annotated[int, Meta(ge=-1, le=2**31 - 1)]
    seq: _Whole
    session: Annotated[str, Meta(max_length=64, pattern=r"^[0-9a-zA-Z]*\Z")]


_encoder = msgspec.msgpack.Encoder()
_decode = msgspec.msgpack.Decoder(_CursorContent).decode


def write_cursor(order: SessionOrder, place: SessionPlace) -> str:
    return urlsafe_b64encode(_encoder.encode(_CursorContent(order, *place))).decode().rstrip("=")


def read_cursor(order: SessionOrder, written: str) -> SessionPlace:
    """The place that a cursor names. Raises InvalidCursorError."""
    try:
        padded = written.encode() + b"=" * (-len(written) % 4)
        content = _decode(urlsafe_b64decode(padded))
    except (Base64Error, ValueError, RecursionError, msgspec.MsgspecError):
        content = None
    if content is None or write_cursor(content.order, _place_in(content)) != written:
        raise InvalidCursorError(
            "it is no cursor of ours: expected `next` of an earlier answer, or a result's `cursor`"
        )
    if content.order != order:
        raise InvalidCursorError(
            "it is of the other listing: one of results is of no use to sessions, nor the reverse"
        )
    return _place_in(content)


def _place_in(content: _CursorContent) -> SessionPlace:
    return SessionPlace(content.ms, content.shard, content.seq, content.session)
