"""A lane's state: all that Parley remembers of one phone number.

One msgpack array, its first element the format's number. A field may be appended with a default, never moved or
removed; a change that this rule cannot express takes a new number and keeps the old decoder. Times are
milliseconds since 1970 (UTC).
"""

import msgspec

from engine.model.errors import ParleyError
from engine.model.events import Answer, Attachment, SessionEnding

LANE_FORMAT = 1


class Session(msgspec.Struct, array_like=True):
    """An open conversation. `id` is the id of the event that opened it; `step` an index into its version's steps."""

    id: str
    survey: str
    version: str
    language: str
    opened_at: int
    last_sms_at: int  # the last SMS either way
    step: int = -1
    invalid_answers: int = 0  # invalid answers to the step that is asked now
    reminders_sent: int = 0
    asked_at: int = 0
    sms_count: int = 0  # SMS decided so far; numbers their ids
    answers: dict[str, Answer] = {}  # by step; a session variable's by "$" and its key in lower case
    expires_at: int = 0  # as the invitation wants it; 0: as the survey says
    routes_taken: dict[int, int] = {}  # how often each counted route was taken, by Route.counter
    originator: str = ""  # the sub-number that its SMS come from; empty: the channel's number


class ChannelLine(msgspec.Struct, array_like=True):
    """The state of one person on one address of ours. The channel's own line (key: the channel) also holds the
    opt-out, the day's count and the START throttle; a sub-number's line (key: channel:sub-number) holds only its
    session and how that ended."""

    session: Session | None = None
    ended_at: int = 0
    ended_how: SessionEnding | None = None
    ended_survey: str = ""
    opted_out_at: int = 0  # 0: not opted out
    counted_day: int = 0  # ordinal of the day, in the channel's time zone, that `opened_today` counts
    opened_today: int = 0
    throttle_at: int = 0  # theoretical arrival time of the START throttle (GCRA)
    fixed_texts_sent: dict[str, int] = {}  # fixed text -> when it was last sent
    language: str = ""  # the last session's; fixed texts are told in it
    receipts: dict[int, int] = {}  # see engine.turns.receipts
    cooling: dict[str, int] = {}  # survey -> when it was completed, of those before the last that cool down


class PartialSms(msgspec.Struct, array_like=True):
    """Parts of a long SMS, while some are missing. `parts` are (id, text) by number; the first came at `first_part_at`."""

    channel: str
    originator: str
    reference: str
    total: int
    first_part_at: int
    parts: dict[int, tuple[str, str]] = {}
    attachments: dict[int, tuple[Attachment, ...]] = {}  # by number, of parts that have any


class Lane(msgspec.Struct, array_like=True):
    """`applied_events` is id -> when it was applied, oldest first; `clock` the latest time applied, so that time never runs backwards.

    `lines` are by channel, those of sub-numbers by "channel:sub-number" (engine.turns.session_routing).
    """

    format: int = LANE_FORMAT
    clock: int = 0
    lines: dict[str, ChannelLine] = {}
    applied_events: dict[str, int] = {}
    partial_sms: list[PartialSms] = []


def forget_events(lane: Lane, before: int) -> None:
    """Forget the events that were applied before `before` (ms)."""
    applied = lane.applied_events
    for event in [event for event, at in applied.items() if at < before]:
        del applied[event]


class UnreadableLaneError(ParleyError):
    """The stored state cannot be decoded by this release. The lane is left as it is; it must never be treated as a
    new person's."""


_decoder = msgspec.msgpack.Decoder(Lane)
_encoder = msgspec.msgpack.Encoder()


def encode_lane(lane: Lane) -> bytes:
    return _encoder.encode(lane)


def decode_lane(blob: bytes | None) -> Lane:
    """The lane in `blob`; a new one for None. Raises UnreadableLaneError."""
    if not blob:
        return Lane()
    try:
        lane = _decoder.decode(blob)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as e:
        raise UnreadableLaneError(f"the lane's state cannot be decoded: {e}") from e
    if lane.format != LANE_FORMAT:
        raise UnreadableLaneError(
            f"the lane's state has format {lane.format}, this release reads {LANE_FORMAT}"
        )
    return lane
