"""The server-side functions (lua/): what each is called, its KEYS and its ARGV, declared once.

Law: the order of the fields is the order of the arguments, here and nowhere else. First come the fields of type `Key`, which
are KEYS, then other single ones, which are ARGV, then groups, whose elements follow in both, one after the other. function_calls.py packs
a call by this, and puts the positions into the Lua text, where a function `f(keys, args)` says `keys.outbox`,
`args.rest_ms`, `keys.lanes[i].mailbox`, `#args.lanes`. A group with counted lists in it is read in Lua by a generated
iterator: `for lane in each_commit_lane(keys, args)`.

What a function does, and what it answers, stands above it in Lua. In a list of positional answers, too, the order is
that of the Lua text. Moments and lengths of time are ms.
"""

from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec

from config.store.keyspace import BellsDatabase
from config.store.outbox_states import SmsDisposition

Key = Annotated[str, "key"]
"""A name of a Redis key, which travels in KEYS."""

Argument = str | bytes | int | float


class ServerFunction(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A call of one server-side function. It is called as its class, in lower case: `UpdateOutbox` is `update_outbox`."""


class ArgumentGroup(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a call has for each of its lanes, SMS or letters."""


# Mailboxes


class InboundMail(ArgumentGroup, frozen=True, kw_only=True, gc=False):
    """`event` has its kind before it."""

    mailbox: Key
    sender: str
    event: bytes


class Accept(ServerFunction, frozen=True, kw_only=True, gc=False):
    """Put events into mailboxes. `ages_ms`: how long ago each was accepted; none at all if all of them are new."""

    lane_alarms: Key
    server: Key
    bells_database: BellsDatabase = ""
    events: Sequence[InboundMail]
    ages_ms: Sequence[int] = ()


# Lanes


class ClaimedLane(ArgumentGroup, frozen=True, kw_only=True, gc=False):
    mailbox: Key
    lane: Key
    lane_lock: Key
    applied_events: Key
    sender: str
    number_hash: str


class Claim(ServerFunction, frozen=True, kw_only=True, gc=False):
    """Take lanes' locks, with state and mail: at most `max_mail` entries, of the kind `mail_kind` or until the last that may
    be a STOP."""

    fence: Key
    lane_alarms: Key
    optouts: Key
    server: Key
    owner: str
    mail_kind: bytes
    max_mail: int
    lease_ms: int
    take_suspects: Literal[0, 1]
    lanes: Sequence[ClaimedLane]


class IndexedSession(ArgumentGroup, frozen=True, kw_only=True, gc=False):
    """A session that is found by its id: `location` lies at its key until `until_ms`."""

    session: Key
    location: str
    until_ms: int


class AddedDeadLetter(ArgumentGroup, frozen=True, kw_only=True, gc=False):
    id: str
    content: bytes


class ChangedOptOut(ArgumentGroup, frozen=True, kw_only=True, gc=False):
    """Opted out at `at_ms`; 0: opted in again."""

    channel: str
    at_ms: int
    source: str


class ResolvedDeadLetter(ArgumentGroup, frozen=True, kw_only=True, gc=False):
    id: str
    by: str
    outcome: str


class Withdrawal(ArgumentGroup, frozen=True, kw_only=True, gc=False):
    """All queued SMS of the channel or session `name` will not leave: `code` says why, `why` in words."""

    name: str
    code: str
    why: str


class SessionStateChange(ArgumentGroup, frozen=True, kw_only=True, gc=False):
    """The session `id` is in `state`, as its campaign counts it (config/store/counts/campaigns.py)."""

    id: str
    state: str


class RareEffects(ArgumentGroup, frozen=True, kw_only=True, gc=False):
    """What most commits have nothing of: each argument costs the client. `number_hash` is empty without opt-outs.
    `displaced_events` are as remember_events (lua/applied_events.lua) reads them."""

    applied_events: Key
    number_hash: str
    displaced_events: bytes
    sessions: Sequence[IndexedSession]
    silenced_channels: Sequence[Withdrawal]
    withdrawn_sessions: Sequence[Withdrawal]
    dead_letters: Sequence[AddedDeadLetter]
    opt_outs: Sequence[ChangedOptOut]
    resolutions: Sequence[ResolvedDeadLetter]
    session_states: Sequence[SessionStateChange]


class CommitLane(ArgumentGroup, frozen=True, kw_only=True, gc=False):
    """`applied` entries leave the mailbox. `deadline` and `keep_until` are "-" if they stay as they were; `keep_until` 0
    is for ever. `outbox_entries` are SMS as they lie in an outbox."""

    mailbox: Key
    lane: Key
    lane_lock: Key
    outbox: Key
    outbox_lock: Key
    sender: str
    fence: int
    applied: int
    deadline: int | Literal["-"]
    keep_until: int | Literal["-"]
    state: bytes
    records: Sequence[bytes]
    outbox_entries: Sequence[bytes]
    rare: RareEffects | None = None


class Commit(ServerFunction, frozen=True, kw_only=True, gc=False):
    """Make claimed lanes what was decided, each all or nothing."""

    lane_alarms: Key
    outbox_alarms: Key
    events: Key
    dead_letters: Key
    dead_letter_index: Key
    optouts: Key
    dead_letter_reasons: Key
    dead_letter_audit: Key
    server: Key
    campaigns: Key
    campaign_sessions: Key
    keep_applied_ms: int
    bells_database: BellsDatabase = ""
    lanes: Sequence[CommitLane]


class ReadSenderRecords(ServerFunction, frozen=True, kw_only=True, gc=False):
    """Read one person's records of at most `max_entries` of an event stream, whose ids are from `after_id` to `until_id`."""

    events: Key
    after_id: str
    until_id: str
    max_entries: int
    sender: str


class WatchedShard(ArgumentGroup, frozen=True, kw_only=True, gc=False):
    """A shard's alarms."""

    lane_alarms: Key
    outbox_alarms: Key
    server: Key


class TakeDueAlarms(ServerFunction, frozen=True, kw_only=True, gc=False):
    """Take what is due from the alarms of these shards, at most `max_senders` from each, and put it off by `repeat_ms`."""

    max_senders: int
    repeat_ms: int
    shards: Sequence[WatchedShard]


class Wake(ServerFunction, frozen=True, kw_only=True, gc=False):
    """Put senders on a queue's bell, on the broker's Redis."""

    wakeup_queue: Key
    senders: Sequence[str]


# Outboxes


class LeasedOutbox(ArgumentGroup, frozen=True, kw_only=True, gc=False):
    mailbox: Key
    outbox: Key
    outbox_lock: Key
    sender: str


class RestingOutbox(ArgumentGroup, frozen=True, kw_only=True, gc=False):
    outbox: Key
    outbox_lock: Key
    sender: str


class LeaseSms(ServerFunction, frozen=True, kw_only=True, gc=False):
    """Take senders' oldest SMS, to be tried. One of `asked_channels` whose try never came back rests first, until
    `uncertain_rest_ms` after its lease. No channel pauses for longer than `longest_pause_ms` between two SMS."""

    fence: Key
    outbox_alarms: Key
    server: Key
    owner: str
    lease_ms: int
    longest_pause_ms: int
    uncertain_rest_ms: int
    outboxes: Sequence[LeasedOutbox]
    asked_channels: Sequence[str] = ()


class UpdateOutbox(ServerFunction, frozen=True, kw_only=True, gc=False):
    """Write what came of a try. The sender rests for `rest_ms` then.

    `permit_epoch` is that of a permit which is booked, 0 for none. `uncertain`: the provider may have the SMS that stays.
    `ticket` is remembered. `lane_mail`, with its kind, goes to the lane. `first_attempt_ms` is when the SMS was first
    tried, should this try not count; 0: never. `failed_attempt` is what the try came to, remembered until the SMS goes.
    What there is nothing of is empty.
    """

    outbox_alarms: Key
    events: Key
    dead_letters: Key
    dead_letter_index: Key
    outbox: Key
    outbox_lock: Key
    tickets: Key
    lane_alarms: Key
    mailbox: Key
    dead_letter_reasons: Key
    failed_attempts: Key
    server: Key
    sender: str
    fence: int
    entry: bytes
    disposition: SmsDisposition
    permit_epoch: int
    uncertain: Literal[0, 1]
    rest_ms: int
    records: bytes
    dead_letter_id: str
    dead_letter: bytes
    ticket: str
    lane_mail: bytes
    first_attempt_ms: int
    failed_attempt: bytes


class BringForward(ServerFunction, frozen=True, kw_only=True, gc=False):
    """Let those look sooner who rest because of their channel: the first `first_ms` from now, each next one `step_ms` later,
    and nobody before `uncertain_rest_ms` whose SMS the provider may have. `unasked`: those whose SMS nobody asked for;
    else the others."""

    outbox_alarms: Key
    channel: str
    unasked: int
    first_ms: float
    step_ms: float
    uncertain_rest_ms: int
    outboxes: Sequence[RestingOutbox]


class TurnBack(ServerFunction, frozen=True, kw_only=True, gc=False):
    """Move what senders rest for, as the server's clock was set back by `behind_ms`."""

    outbox_alarms: Key
    behind_ms: int
    outboxes: Sequence[RestingOutbox]


# Replies in the answer to a webhook


class ReserveOutbox(ServerFunction, frozen=True, kw_only=True, gc=False):
    """Keep delivery workers away from an empty outbox."""

    outbox: Key
    outbox_lock: Key
    token: str
    lease_ms: int


class PollReplies(ServerFunction, frozen=True, kw_only=True, gc=False):
    """Read a reserved outbox, once the lane has advanced."""

    mailbox: Key
    lane_lock: Key
    outbox: Key
    outbox_lock: Key
    token: str


class AttachedReply(ArgumentGroup, frozen=True, kw_only=True, gc=False):
    """An outbox's entry, and the same marked uncertain."""

    entry: bytes
    marked: bytes


class AttachReplies(ServerFunction, frozen=True, kw_only=True, gc=False):
    """Mark the SMS that a webhook's answer is going to hold; the provider is asked for them after `rest_ms`."""

    mailbox: Key
    outbox_alarms: Key
    outbox: Key
    outbox_lock: Key
    sender: str
    token: str
    rest_ms: int
    replies: Sequence[AttachedReply]


class ConfirmReply(ServerFunction, frozen=True, kw_only=True, gc=False):
    """Settle an attached SMS of which the provider has told. `others_unheard`: the answer held others, of which it has
    not."""

    outbox_alarms: Key
    events: Key
    outbox: Key
    outbox_lock: Key
    tickets: Key
    server: Key
    sender: str
    entry: bytes
    others_unheard: Literal[0, 1]
    pause_ms: int
    records: bytes
    ticket: str


class ReleaseOutbox(ServerFunction, frozen=True, kw_only=True, gc=False):
    """Let delivery workers at a reserved outbox again."""

    outbox_alarms: Key
    outbox: Key
    outbox_lock: Key
    sender: str
    token: str


# Failovers


class AdmitServer(ServerFunction, frozen=True, kw_only=True, gc=False):
    """Let workers at a shard on a server that has come for another. `lost`: what was done last may not be there."""

    server: Key
    fence: Key
    newcomer: str
    lost: Literal[0, 1]


class OutboxAtFailover(ArgumentGroup, frozen=True, kw_only=True, gc=False):
    outbox: Key
    outbox_lock: Key


class ChannelAtFailover(ArgumentGroup, frozen=True, kw_only=True, gc=False):
    """A channel whose SMS could not leave (`paused`), or whose rests may have been ended early (`reopening`)."""

    name: str
    state: Literal["paused", "reopening"]


class MarkLostTries(ServerFunction, frozen=True, kw_only=True, gc=False):
    """Mark SMS as uncertain that may have been tried in what a server has lost. `channels`: those that are not as usual."""

    server: Key
    outboxes: Sequence[OutboxAtFailover]
    channels: Sequence[ChannelAtFailover]


# Channels


class TakeTokens(ServerFunction, frozen=True, kw_only=True, gc=False):
    """Take up to `wanted` permits from a token bucket."""

    bucket: Key
    rate_per_s: float
    burst: float
    wanted: int


class CountSms(ServerFunction, frozen=True, kw_only=True, gc=False):
    """Count the day's SMS of a channel."""

    sms_counter: Key
    decided: int
    keep_s: int


class AcquirePermits(ServerFunction, frozen=True, kw_only=True, gc=False):
    """Ask which SMS may leave on a channel now. `rate_per_s` 0: no limit. `wanted`, for each SMS: `reply`, `unasked`, or
    the epoch in which it has booked a permit for now."""

    pause: Key
    circuit_state: Key
    sms_bucket: Key
    rate_per_s: float
    burst: float
    probe_lease_ms: int
    wanted: Sequence[int | Literal["reply", "unasked"]]


class AttemptResult(ArgumentGroup, frozen=True, kw_only=True, gc=False):
    """How a try ended (`works`, `fails`, `faults`, `unmade`; after `probe-` if it probed), after how long, and why."""

    health: str
    took_ms: int
    why: str


class ReportResults(ServerFunction, frozen=True, kw_only=True, gc=False):
    """Tell a channel's circuit how tries ended. It opens after `max_failures` in a row that span `failures_span_ms`, for
    `open_min_ms` first, and `open_max_ms` at the most; after a fault of the account for `account_fault_ms`."""

    pause: Key
    circuit_state: Key
    max_failures: int
    failures_span_ms: int
    open_min_ms: int
    open_max_ms: int
    account_fault_ms: int
    results: Sequence[AttemptResult]


class ResumeChannel(ServerFunction, frozen=True, kw_only=True, gc=False):
    """End a channel's pause, and close its circuit."""

    pause: Key
    circuit_state: Key


# Invitations


class TakenReference(ArgumentGroup, frozen=True, kw_only=True, gc=False):
    reference: Key
    fingerprint: str
    until_ms: int


class TakeReferences(ServerFunction, frozen=True, kw_only=True, gc=False):
    """Take inviters' references, once each."""

    references: Sequence[TakenReference]


class InvitationToHold(ArgumentGroup, frozen=True, kw_only=True, gc=False):
    """An invitation that is not released before `not_before_ms`, and whose session is known until `until_ms`. `campaign_part`
    is the channel and the survey by which its campaign counts it; `campaign` empty: it is of none. `state` is `held`, or that of
    one which is refused at once, whose records are in place of the `event`."""

    held_ids: Key
    session: Key
    id: str
    not_before_ms: int
    until_ms: int
    sender: str
    event: bytes
    state: str
    campaign: str
    campaign_part: str


class HoldInvitations(ServerFunction, frozen=True, kw_only=True, gc=False):
    """Put invitations into the backlog, once each."""

    held_invitations: Key
    events: Key
    campaigns: Key
    campaign_sessions: Key
    invitations: Sequence[InvitationToHold]


class CountDueInvitations(ServerFunction, frozen=True, kw_only=True, gc=False):
    """Count what each channel holds, and what of it may be released now."""

    held_ids: Sequence[Key]


class ReadDueInvitations(ServerFunction, frozen=True, kw_only=True, gc=False):
    """Read a channel's oldest invitations that may be released now."""

    held_ids: Key
    held_invitations: Key
    max_invitations: int


class ReleasedInvitation(ArgumentGroup, frozen=True, kw_only=True, gc=False):
    mailbox: Key
    id: str
    sender: str


class ReleaseInvitations(ServerFunction, frozen=True, kw_only=True, gc=False):
    """Make held invitations mail."""

    lane_alarms: Key
    held_ids: Key
    held_invitations: Key
    campaigns: Key
    campaign_sessions: Key
    invitations: Sequence[ReleasedInvitation]


class WithdrawInvitation(ServerFunction, frozen=True, kw_only=True, gc=False):
    """Hold an invitation no more: `records` say why, and without any it is forgotten. `state` is what it is in then; empty:
    forgotten."""

    held_ids: Key
    held_invitations: Key
    session: Key
    events: Key
    campaigns: Key
    campaign_sessions: Key
    id: str
    sender: str
    state: str
    records: bytes


class ForgetCampaignSessions(ServerFunction, frozen=True, kw_only=True, gc=False):
    """Let campaigns count these sessions no more, unless they are over."""

    campaigns: Key
    campaign_sessions: Key
    sessions: Sequence[str]


class ForgetCampaigns(ServerFunction, frozen=True, kw_only=True, gc=False):
    """Forget those of these campaigns that have not changed since `before_ms`."""

    campaigns: Key
    campaign_sessions: Key
    before_ms: int
    names: Sequence[bytes]


# Opt-outs, and erasure


class InformedLane(ArgumentGroup, frozen=True, kw_only=True, gc=False):
    """A lane that is told of an opt-out by `lane_mail`, which has its kind before it."""

    mailbox: Key
    lane: Key
    lane_lock: Key
    outbox: Key
    sender: str
    lane_mail: bytes


class AddedOptOut(ArgumentGroup, frozen=True, kw_only=True, gc=False):
    """`at_ms` 0 is now."""

    number_hash: str
    channel: str
    at_ms: int
    source: str


class AddOptOuts(ServerFunction, frozen=True, kw_only=True, gc=False):
    """Add to the list of opt-outs, and tell `lanes`: one for each opt-out, or none if only hashes are known."""

    optouts: Key
    lane_alarms: Key
    lanes: Sequence[InformedLane]
    opt_outs: Sequence[AddedOptOut]


class RemoveOptOuts(ServerFunction, frozen=True, kw_only=True, gc=False):
    """Take channels from the list, and make a lane `lane_after` that was read as `lane_before`, with `records` of it, if there
    are any."""

    optouts: Key
    lane: Key
    lane_lock: Key
    events: Key
    sender: str
    number_hash: str
    lane_before: bytes
    lane_after: bytes
    records: bytes
    channels: Sequence[str]


class EraseLane(ServerFunction, frozen=True, kw_only=True, gc=False):
    """Remove what a person's commits and deliveries need, if mail and lane are still what was read. `opt_outs` are kept, and
    hashes of `known_events`, as remember_events (lua/applied_events.lua) reads them."""

    optouts: Key
    lane_alarms: Key
    outbox_alarms: Key
    mailbox: Key
    lane: Key
    outbox: Key
    applied_events: Key
    sender: str
    number_hash: str
    mail_before: bytes
    lane_before: bytes
    known_events: bytes
    keep_applied_ms: int
    other_keys: Sequence[Key]
    opt_outs: Sequence[ChangedOptOut]


# Event streams


class NoteArchived(ServerFunction, frozen=True, kw_only=True, gc=False):
    """Say that an archive has the shard's events up to `id`: `entries` more than when it last said so, 0 if nobody counts."""

    events: Key
    archived: Key
    id: str
    entries: int = 0


class TrimEvents(ServerFunction, frozen=True, kw_only=True, gc=False):
    """Take out of the shard's events what an archive has and what is older than `archived_before_ms`; if none was ever seen,
    what is older than `unarchived_before_ms`. At most `max_entries`."""

    events: Key
    archived: Key
    archived_before_ms: int
    unarchived_before_ms: int
    max_entries: int


# Hooks


class HookPosition(ArgumentGroup, frozen=True, kw_only=True, gc=False):
    """The endpoint needs nothing of the shard's event stream up to `entry_id` any more."""

    shard: int
    entry_id: str


class TakeHook(ServerFunction, frozen=True, kw_only=True, gc=False):
    """Take or keep the lease of an endpoint."""

    lease: Key
    fence: Key
    owner: str
    lease_ms: int


class MoveHook(ServerFunction, frozen=True, kw_only=True, gc=False):
    """Move positions of an endpoint, and note how it does, under the lease with this token."""

    lease: Key
    positions: Key
    circuit: Key
    token: int
    lease_ms: int
    circuit_state: bytes
    moves: Sequence[HookPosition]


class ReleaseHook(ServerFunction, frozen=True, kw_only=True, gc=False):
    """Give the lease with this token back."""

    lease: Key
    token: int


class RewindHook(ServerFunction, frozen=True, kw_only=True, gc=False):
    """Put the positions of an endpoint anywhere, whoever has its lease."""

    lease: Key
    positions: Key
    circuit: Key
    moves: Sequence[HookPosition]


# Dead letters


class AddDeadLetter(ServerFunction, frozen=True, kw_only=True, gc=False):
    """Put something aside that is of no lane's commit."""

    dead_letters: Key
    dead_letter_index: Key
    dead_letter_reasons: Key
    id: str
    content: bytes


class ReplayedLane(ArgumentGroup, frozen=True, kw_only=True, gc=False):
    mailbox: Key
    lane: Key
    lane_lock: Key
    sender: str
    number_hash: str
    letter_id: str


class ClaimForReplay(ServerFunction, frozen=True, kw_only=True, gc=False):
    """Take lanes' locks for dead letters."""

    fence: Key
    lane_alarms: Key
    optouts: Key
    dead_letters: Key
    owner: str
    lease_ms: int
    max_mail: int
    lanes: Sequence[ReplayedLane]


class ReleaseKept(ServerFunction, frozen=True, kw_only=True, gc=False):
    """Give a lane back whose dead letter stays. `letter` is empty if it stays as it is, `outcome` if the audit need not
    say anything; `fence` 0: the lane could not be claimed, and `call` tells this call from any other."""

    lane_alarms: Key
    dead_letters: Key
    dead_letter_index: Key
    dead_letter_reasons: Key
    dead_letter_audit: Key
    mailbox: Key
    lane: Key
    lane_lock: Key
    sender: str
    fence: int
    letter_id: str
    by: str
    outcome: str
    letter: bytes
    call: str


class DiscardDeadLetters(ServerFunction, frozen=True, kw_only=True, gc=False):
    """Take dead letters away."""

    dead_letters: Key
    dead_letter_index: Key
    dead_letter_reasons: Key
    dead_letter_audit: Key
    by: str
    outcome: str
    ids: Sequence[str]


class ResolveDramatiqLetter(ServerFunction, frozen=True, kw_only=True, gc=False):
    """Take `message` out of Dramatiq's dead-letter queue, and queue it again as `new_message`, if there is one."""

    dead_queue: Key
    dead_messages: Key
    queue: Key
    messages: Key
    dead_letter_audit: Key
    message_id: str
    by: str
    outcome: str
    message: bytes
    new_id: str
    new_message: bytes


# Tables that are uploaded to the console


class ReleaseUpload(ServerFunction, frozen=True, kw_only=True, gc=False):
    """Give the claim with this token back."""

    claim: Key
    token: str


class ReplaceUploadRows(ServerFunction, frozen=True, kw_only=True, gc=False):
    """Put `rows` in place of those that were read `before` at a place of a table's list."""

    table: Key
    at: int
    before: bytes
    rows: bytes


FUNCTIONS: tuple[type[ServerFunction], ...] = (
    Accept,
    Claim, Commit, ReadSenderRecords, TakeDueAlarms, Wake,
    LeaseSms, UpdateOutbox, BringForward, TurnBack,
    ReserveOutbox, PollReplies, AttachReplies, ConfirmReply, ReleaseOutbox,
    AdmitServer, MarkLostTries,
    TakeTokens, CountSms, AcquirePermits, ReportResults, ResumeChannel,
    TakeReferences, HoldInvitations, CountDueInvitations, ReadDueInvitations, ReleaseInvitations,
    WithdrawInvitation, ForgetCampaignSessions, ForgetCampaigns,
    AddOptOuts, RemoveOptOuts, EraseLane,
    NoteArchived, TrimEvents,
    TakeHook, MoveHook, ReleaseHook, RewindHook,
    AddDeadLetter, ClaimForReplay, ReleaseKept, DiscardDeadLetters, ResolveDramatiqLetter,
    ReleaseUpload, ReplaceUploadRows,
)  # fmt: skip
"""All of them: lua/ registers these and no others."""

JOINED_FUNCTIONS: tuple[type[ServerFunction], ...] = (
    Accept, Claim, Commit, LeaseSms, UpdateOutbox,
)  # fmt: skip
"""Those of which a batch of turns makes a call for each shard or SMS. Calls of one that go out together are one command, where one
server has all keys."""
