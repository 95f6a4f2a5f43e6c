"""Everything that is known of one person at a moment, as types; snapshot_reader.py reads it, diagnose.py says what
follows from it."""

import msgspec

from config.store import keyspace, pauses, stored_values
from engine.model.events import ArchiveRecord, SessionEnding
from workers.store.dead_letter_store import FailedAttempt


class WaitingMail(msgspec.Struct, frozen=True):
    """An entry of the mailbox, accepted at `at` (ms; 0 if it cannot be told). `kind` is the event's, "start" for a
    START, "unreadable" for what is none. `queue` is whose work it is: invitations are for the worker of STARTs.
    `may_be_stop`: any worker takes it, with what is before it, and no SMS leaves until it is read."""

    kind: str
    at: int = 0
    channel: str = ""
    text: str = ""
    queue: str = keyspace.REPLIES_QUEUE
    may_be_stop: bool = False


class QueuedSms(msgspec.Struct, frozen=True):
    """An SMS in the outbox, decided at `decided` (ms; 0: not known). `uncertain`: the provider may have it. One
    that cannot be read has no id."""

    channel: str
    id: str = ""
    text: str = ""
    session: str = ""
    decided: int = 0
    uncertain: bool = False
    unasked: bool = False


class UpcomingDeadline(msgspec.Struct, frozen=True):
    """What happens to a session at `at` (ms) if nobody writes."""

    at: int
    what: str


class OpenSession(msgspec.Struct, frozen=True, kw_only=True):
    """An open session. `current`: its version is what a new one would begin with (None: nobody says what that is).
    `ahead` is in order of time; empty, with `problem`, if its version is not known."""

    id: str
    survey: str
    version: str
    current: bool | None
    step: str
    language: str
    opened_at: int
    touched_at: int
    misread: int
    ahead: list[UpcomingDeadline]
    problem: str = ""


class ConversationStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One conversation with the person: on a channel, over its own number or a sub-number. Limits are the channel's:
    of the day's sessions and STARTs, 0 or None is no limit. `cools`: survey -> until when it cannot begin again."""

    channel: str
    originator: str
    session: OpenSession | None
    ended_at: int
    ended_how: SessionEnding | None
    ended_survey: str
    opened_today: int = 0
    most_today: int = 0
    starts_left: int | None = None
    next_start_at: int = 0
    cools: dict[str, int] = {}


class IncompleteSms(msgspec.Struct, frozen=True):
    """A long SMS of which parts are missing. At `until` (ms) it is taken as it is."""

    channel: str
    came: int
    total: int
    until: int


class OptOutStatus(msgspec.Struct, frozen=True):
    """An opt-out of `channel`, in the list of opt-outs, the lane, or both (`in_lane`). The lane's date wins. `source`
    says who reported it; empty if only the lane has it."""

    channel: str
    since: int
    source: str = ""
    in_lane: bool = False


class ChannelStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The state and the limits of a channel. `sessions_left` may be opened at once. `pause_until` 0: without end.
    `behind_ms` is how far ahead permits to send are booked. `quiet_until` 0: it is not quiet where the person is.
    In limits, 0 is none."""

    timezone: str
    pause: pauses.StoredPause | None = None
    pause_until: int = 0
    sms_today: int = 0
    sms_per_day: int = 0
    sms_per_second: float = 0
    behind_ms: int = 0
    quiet_until: int = 0
    sessions_per_minute: int = 0
    sessions_left: int = 0


class QueuePosition(msgspec.Struct, frozen=True):
    """A queue of wake-ups: how many are in it, for how long (ms) the first, and where the person is (None: not there)."""

    depth: int
    oldest_ms: int
    place: int | None = None
    since_ms: int = 0


class WaitingInvitation(msgspec.Struct, frozen=True):
    """An invitation that waits, since `at` (ms), without its content. It is not released before `not_before` (ms)."""

    id: str
    channel: str
    survey: str
    at: int
    not_before: int


class DeadLetterSummary(msgspec.Struct, frozen=True):
    """A dead letter, of kind "sms", "event" or "deadline". See workers/store/dead_letter_store.py."""

    id: str
    kind: str
    reason: str
    at: int
    channel: str = ""
    session: str = ""
    why: str = ""


class SenderSnapshot(msgspec.Struct, kw_only=True):
    """Everything about one person. Times are the lanes' server's, in ms; `now` is when it was read.

    `alarm` and `outbox_alarm` are when the clock rings (None: never); `deadline` is what the engine asked for (0: none).
    `remembers`: there is a lane, last changed by what happened at `clock`. `unreadable` are sentences, one for each
    thing that cannot be read, `state_unreadable` says it of the lane; `broker` says why the server of the wake-ups does
    not answer. `log_name` is what logs call the person. `alive` counts processes by role, `heard` is when one of a role was heard last, alive or not.
    """

    sender: str
    shard: int
    now: int
    log_name: str = ""
    lock: stored_values.StoredLock | None = None
    mail: list[WaitingMail] = []
    mail_count: int = 0
    alarm: int | None = None
    deadline: int = 0
    remembers: bool = False
    state_unreadable: str = ""
    clock: int = 0
    threads: list[ConversationStatus] = []
    gathered: list[IncompleteSms] = []
    opt_outs: list[OptOutStatus] = []
    outbox: list[QueuedSms] = []
    outbox_count: int = 0
    outbox_lock: stored_values.StoredLock | None = None
    outbox_alarm: int | None = None
    tries: list[FailedAttempt] = []
    invitations: list[WaitingInvitation] = []
    dead: list[DeadLetterSummary] = []
    records: list[ArchiveRecord] = []
    channels: dict[str, ChannelStatus] = {}
    queues: dict[str, QueuePosition] = {}
    broker: str = ""
    alive: dict[str, int] = {}
    heard: dict[str, int] = {}
    unreadable: list[str] = []

    @property
    def open_sessions(self) -> list[tuple[ConversationStatus, OpenSession]]:
        return [(thread, thread.session) for thread in self.threads if thread.session is not None]

    @property
    def stop_may_wait(self) -> bool:
        """Whether mail waits that may be a STOP."""
        return any(each.may_be_stop for each in self.mail)

    @property
    def is_unknown(self) -> bool:
        """Whether nothing is known of this person."""
        return not (
            self.remembers or self.mail_count or self.outbox_count or self.lock or self.opt_outs
            or self.invitations or self.dead or self.records or self.unreadable
        )  # fmt: skip
