"""A lane's state: all that Parley remembers of one phone number.

One msgpack array, its first element the format's number. A field may be appended with a default, never moved or
removed; a change that this rule cannot express takes a new number and keeps the old decoder. Times are
milliseconds since 1970 (UTC).
"""

import msgspec

from engine.events import Ending

FORMAT = 1


class Answer(msgspec.Struct, frozen=True, array_like=True):
    """`raw` is what the person wrote, unchanged; `value` is how it was read.

    A choice's `value` is the option's id and `index` its 0-based place; several choices' are tuples of both. A date's
    is YYYY-MM-DD, a phone number's E.164.
    """

    raw: str
    value: str | int | float | bool | tuple[str, ...]
    index: int = -1
    indexes: tuple[int, ...] = ()


class Session(msgspec.Struct, array_like=True):
    """An open conversation. `id` is the id of the event that opened it; `step` an index into its version's steps."""

    id: str
    survey: str
    version: str
    language: str
    opened_at: int
    touched_at: int  # the last SMS either way
    step: int = -1
    misread: int = 0  # invalid answers to the step that is asked now
    reminded: int = 0
    asked_at: int = 0
    said: int = 0  # SMS decided so far; numbers their ids
    answers: dict[str, Answer] = {}  # by step; a session variable's by "$" and its key in lower case
    expires_at: int = 0  # as the invitation wants it; 0: as the survey says
    taken: dict[int, int] = {}  # how often each counted route was taken, by Route.counter


class Line(msgspec.Struct, array_like=True):
    """What one channel and one person share."""

    session: Session | None = None
    ended_at: int = 0
    ended_how: Ending | None = None
    ended_survey: str = ""
    opted_out_at: int = 0  # 0: not opted out
    day: int = 0  # ordinal of the day, in the channel's time zone, that `opened_today` counts
    opened_today: int = 0
    throttle_at: int = 0  # theoretical arrival time of the START throttle (GCRA)
    told: dict[str, int] = {}  # fixed text -> when it was last sent
    language: str = ""  # the last session's; fixed texts are told in it


class Lane(msgspec.Struct, array_like=True):
    """`seen` is id -> when it was applied; `clock` the latest time applied, so that time never runs backwards."""

    format: int = FORMAT
    clock: int = 0
    lines: dict[str, Line] = {}
    seen: dict[str, int] = {}


class UnreadableLane(Exception):
    """The stored state is not one that this release can read. It is never taken for a new person's."""


_decoder = msgspec.msgpack.Decoder(Lane)
_encoder = msgspec.msgpack.Encoder()


def encode(lane: Lane) -> bytes:
    return _encoder.encode(lane)


def decode(blob: bytes | None) -> Lane:
    """The lane in `blob`; a new one for None. Raises UnreadableLane."""
    if not blob:
        return Lane()
    try:
        lane = _decoder.decode(blob)
    except msgspec.MsgspecError as e:
        raise UnreadableLane(f"the lane's state cannot be decoded: {e}") from e
    if lane.format != FORMAT:
        raise UnreadableLane(f"the lane's state has format {lane.format}, this release reads {FORMAT}")
    return lane
