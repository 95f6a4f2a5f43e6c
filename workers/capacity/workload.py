"""What a deployment is to carry, and on which servers: all that the model is asked about."""

import msgspec

from config.store.keyspace import UNARCHIVED_STREAM_MS

DAY_MS = 86_400_000


class Workload(msgspec.Struct, frozen=True, kw_only=True):
    """`turns_per_second` are SMS in, at the busiest moment, which has `peak` times as many as a day on average.

    `chars` are bytes of text of an SMS, in either direction. `people` bounds how many lanes there can be; None: as many as
    conversations. `keep_ms` is PARLEY_STREAM_DAYS, `repeat_ms` PARLEY_REPEAT_DAYS, `archive_days` PARLEY_KEEP_DAYS. Each of
    `endpoints` is told all that happens. `provider_ms` is how long a provider takes over a request. No process, core or
    memory is to be used by more than `busy`."""

    turns_per_second: float
    open_conversations: int
    keep_ms: int = 7 * DAY_MS
    peak: float = 1.0
    turns_per_conversation: float = 4.0
    sms_per_turn: float = 1.0
    receipts: bool = False
    chars: int = 60
    people: int | None = None
    repeat_ms: int = 7 * DAY_MS
    archive: bool = True
    archive_days: int = 365
    endpoints: int = 0
    batch: int = 1
    replicas: int = 0
    provider_ms: int = 200
    server_bytes: int = 64 * 10**9
    busy: float = 0.7
    fsync_us: float | None = None

    @property
    def daily_turns(self) -> float:
        return self.turns_per_second / self.peak * 86_400

    @property
    def sms_per_second(self) -> float:
        return self.turns_per_second * self.sms_per_turn

    @property
    def starts_per_second(self) -> float:
        return self.turns_per_second / self.turns_per_conversation

    @property
    def events_per_turn(self) -> float:
        """What a provider posts for a turn: the SMS, and a receipt for each that went out. A receipt counts as much as an SMS."""
        return 1 + self.sms_per_turn * self.receipts

    @property
    def text_per_turn(self) -> float:
        return self.chars * (1 + self.sms_per_turn)

    @property
    def session_index_ms(self) -> int:
        """How long Redis knows whose session it is: as long as the event stream may have something of it, from its end at the
        latest (48 hours after its beginning) on."""
        return max(self.keep_ms, UNARCHIVED_STREAM_MS) + 2 * DAY_MS
