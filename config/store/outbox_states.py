"""The states of an outbox's lock, and who takes it from one to another: one table.

The Lua code reads and writes states by it (lua/outbox_locks.lua), Python decodes them by it, workers/README.md prints it,
and tests walk through it on a real server.

Law: a stored lock is `fence until attempts since owner`. Without a lock the outbox is free. With a fence above 0 somebody
tries the oldest SMS, and the owner is a token. With fence 0 nobody does, and the sender rests until `until`: the owner is
then the state's name, and after it what the state carries. A `?` at its end says that the provider may have the oldest SMS.
Names and spelling are stored: a state may be added, and none may be spelled differently.
"""

import re
from typing import Literal

import msgspec

SmsDisposition = Literal["done", "again", "untried", "booked"]
"""How a try leaves the SMS: it goes (accepted, or a dead letter); it stays and the try counts; it stays and no try counts;
it stays, with a permit for when it has rested."""

OutboxStateName = Literal[
    "free", "trying", "gone", "done", "again", "untried", "booked", "reserved", "entrusted"
]

StateTag = Literal["", "token", " token", "epoch"]
"""What a state carries, and whether a space is before it."""


class OutboxState(msgspec.Struct, frozen=True, kw_only=True):
    """`fence` is `none` without a lock. `tag` is what the owner carries. `uncertain`: a `?` may end it. `until` is the end of
    the state's time, in words."""

    name: OutboxStateName
    fence: Literal["none", "> 0", "0"]
    tag: StateTag = ""
    uncertain: bool = False
    meaning: str
    until: str = ""

    @property
    def spelling(self) -> str:
        """The owner of a lock in this state, with `<…>` for what differs; empty without a lock."""
        if self.fence == "none":
            return ""
        tag = re.sub(r"\w+", r"<\g<0>>", self.tag)
        return f"{'' if self.name == 'trying' else self.name}{tag}{'?' if self.uncertain else ''}"


OUTBOX_STATES = (
    OutboxState(name="free", fence="none", meaning="the oldest SMS may be tried at once"),
    OutboxState(
        name="trying",
        fence="> 0",
        tag="token",
        uncertain=True,
        meaning="a delivery worker tries the oldest SMS",
        until="the lease's end, 15 s",
    ),
    OutboxState(
        name="gone",
        fence="> 0",
        meaning="the SMS that is being tried has been withdrawn meanwhile; what it would have had to wait "
        "for is nothing to the next one",
        until="the lease's end",
    ),
    OutboxState(
        name="done",
        fence="0",
        meaning="the last SMS is settled",
        until="the channel's `pause_s` after it",
    ),
    OutboxState(
        name="again",
        fence="0",
        uncertain=True,
        meaning="the last try failed, or never came back, and counts",
        until="its backoff, or 10 s",
    ),
    OutboxState(
        name="untried",
        fence="0",
        uncertain=True,
        meaning="no try counts: no slot was free, the channel pauses or its circuit is open, the SMS yields"
        " to replies, or the process was told to stop",
        until="when it looks again",
    ),
    OutboxState(
        name="booked",
        fence="0",
        tag="epoch",
        uncertain=True,
        meaning="it has a permit of its channel's rate for `until`, void a second later, or if the channel "
        "has paused since (its epoch is another)",
        until="its permit",
    ),
    OutboxState(
        name="reserved",
        fence="0",
        tag=" token",
        meaning="a webhook's answer may hold the replies; `delivery` keeps away",
        until="5 s; the lock expires then",
    ),
    OutboxState(
        name="entrusted",
        fence="0",
        tag=" token",
        uncertain=True,
        meaning="a webhook's answer holds the SMS that are marked as uncertain",
        until="20 s; then the provider is asked",
    ),
)


class OutboxTransition(msgspec.Struct, frozen=True):
    """From any of `sources` to one of `targets`, by a call of `function` that a process or command `by` makes."""

    sources: tuple[OutboxStateName, ...]
    targets: tuple[OutboxStateName, ...]
    by: str
    function: str
    when: str


OUTBOX_TRANSITIONS = (
    OutboxTransition(
        ("free",),
        ("trying",),
        "`delivery`",
        "lease_sms",
        "an SMS waits, and no mail that may be a STOP; a new fence, the alarm at the lease's end",
    ),
    OutboxTransition(
        ("done", "again", "untried", "booked", "entrusted"),
        ("trying",),
        "`delivery`",
        "lease_sms",
        "`until` has come, and no mail waits that may be a STOP. A `?` is kept; a `booked` permit is good "
        "for a second. Earlier than that, only the alarm is set",
    ),
    OutboxTransition(
        ("trying",),
        ("trying",),
        "another `delivery`",
        "lease_sms",
        "the lease has ended: its worker died or is late, so the provider may have the SMS (`?`); "
        "the try counts. Where the provider is asked, it has ended 10 s ago",
    ),
    OutboxTransition(
        ("trying",),
        ("again",),
        "another `delivery`",
        "lease_sms",
        "likewise, where the provider is asked: it rests (`?`) until 10 s after the lease, so that "
        "what has just arrived there is listed",
    ),
    OutboxTransition(
        ("gone",),
        ("trying",),
        "another `delivery`",
        "lease_sms",
        "the lease has ended; tries are counted from the beginning",
    ),
    OutboxTransition(
        ("trying",),
        ("done", "free"),
        "its holder",
        "update_outbox",
        "accepted, or never to be: the SMS goes, with its record, ticket, dead letter, or what the "
        "lane must hear, in the same call; `free` without a pause",
    ),
    OutboxTransition(
        ("trying",),
        ("again", "untried", "booked", "free"),
        "its holder",
        "update_outbox",
        "the SMS stays; `untried` and `booked` take back the try that was counted when it was "
        "leased; `free` if that leaves nothing to remember",
    ),
    OutboxTransition(
        ("trying",),
        ("trying",),
        "a former holder",
        "update_outbox",
        "`fence` is another: nothing changes",
    ),
    OutboxTransition(
        ("trying",),
        ("gone",),
        "a turn",
        "commit",
        "a STOP, a cancellation or an unreachable number withdraws the oldest SMS",
    ),
    OutboxTransition(
        ("again", "untried", "booked", "reserved"),
        ("free",),
        "a turn",
        "commit",
        "the oldest SMS is withdrawn: what the sender rested for is void",
    ),
    OutboxTransition(
        ("done",),
        ("done",),
        "a turn",
        "commit",
        "likewise, but the pause is owed to the SMS before",
    ),
    OutboxTransition(
        ("entrusted",),
        ("entrusted", "free"),
        "a turn",
        "commit",
        "likewise: it stays while the next SMS is in the answer too, and is not asked for before "
        "that has arrived",
    ),
    OutboxTransition(
        ("gone",),
        ("free",),
        "its holder",
        "update_outbox",
        "the try came to nothing; the next SMS may be taken at once",
    ),
    OutboxTransition(
        ("gone",),
        ("done",),
        "its holder",
        "update_outbox",
        "the try settled the SMS all the same (accepted, or a dead letter), so the pause holds",
    ),
    OutboxTransition(
        ("free", "gone", "done"),
        ("reserved",),
        "`web`",
        "reserve_outbox",
        "the outbox is empty, nothing is being sent (a lease, if there was one, has ended), and no "
        "other webhook has reserved it",
    ),
    OutboxTransition(
        ("reserved",),
        ("entrusted",),
        "`web`",
        "attach_replies",
        "the SMS that the answer holds are still the oldest, and no mail waits that may be a STOP: they are "
        "marked, all or none, and only then answered",
    ),
    OutboxTransition(
        ("reserved",),
        ("free",),
        "`web`, or time",
        "release_outbox",
        "the lane was late, had nothing to say, or its SMS go through the API; or `web` died",
    ),
    OutboxTransition(
        ("entrusted",),
        ("done", "free", "entrusted"),
        "`web`",
        "confirm_reply",
        "a status callback tells of one: it goes. The sender goes on once none of the answer is unheard of",
    ),
    OutboxTransition(
        ("untried", "booked"),
        ("untried",),
        "`delivery`, `parley channel resume`",
        "bring_forward",
        "the channel's pause is over: sooner; replies first, at its rate; with `?` not before 10 s",
    ),
    OutboxTransition(
        ("trying", "gone", "done", "again", "untried", "booked", "reserved", "entrusted"),
        ("free",),
        "`parley erase`",
        "erase_lane",
        "the outbox and its lock go; a settlement under way writes nothing",
    ),
)
"""Every change of state that there is. What a function leaves as it was is only here where that is worth saying."""


class OutboxOwner(msgspec.Struct, frozen=True):
    """A lock's owner, decoded. `state` may be one that only another release knows. `tag` is the token, or the epoch."""

    state: str
    tag: str = ""
    uncertain: bool = False


TAG_GAPS: dict[str, str] = {
    state.name: " " if state.tag[:1] == " " else "" for state in OUTBOX_STATES if state.tag
}
"""What stands between a state's name and what it carries, of those that carry something."""

_OWNER_AT_REST = re.compile(r"([A-Za-z]*) ?(.*)", re.DOTALL)


def decode_owner(fence: int, owner: str) -> OutboxOwner:
    """What the owner of an outbox's lock says, as the Lua function `read_outbox_lock` reads it."""
    body, uncertain = owner.removesuffix("?"), owner.endswith("?")
    if fence:
        return (
            OutboxOwner("gone", "", uncertain) if body == "gone" else OutboxOwner("trying", body, uncertain)
        )
    state, tag = _OWNER_AT_REST.fullmatch(body).groups()  # type: ignore[union-attr]  # fits anything
    return OutboxOwner(state, tag, uncertain)


def encode_owner(owner: OutboxOwner) -> str:
    """The owner of an outbox's lock, as the Lua function `write_outbox_lock` spells it."""
    name = "" if owner.state == "trying" else owner.state
    return f"{name}{TAG_GAPS.get(owner.state, '') if name else ''}{owner.tag}{'?' if owner.uncertain else ''}"
