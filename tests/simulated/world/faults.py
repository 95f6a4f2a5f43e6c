"""What may go wrong at a call, and where: a schedule is faults by place. It is all that differs between two runs of a play.

A place is known by its actor and by the number of the call among that actor's, not by a step of the whole run: so a fault
stays where it is when another is taken out of the schedule.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec


class Place(NamedTuple):
    """The call number `call`, from 0, of an actor."""

    actor: str
    call: int


class Fault(msgspec.Struct, frozen=True, array_like=True):
    """A kind of fault, and how much of it: ms, or a number of calls."""

    kind: str
    amount: int = 0


Schedule = Mapping[Place, Fault]

ANY_CALL: Sequence[Fault] = (
    Fault("delay", 1), Fault("delay", 3), Fault("delay", 12),
    Fault("die_before"), Fault("die_after"),
    Fault("freeze_before", 1_500), Fault("freeze_before", 7_000), Fault("freeze_before", 20_000),
    Fault("freeze_after", 1_500), Fault("freeze_after", 7_000), Fault("freeze_after", 60_000),
    Fault("oversleep_before", 1), Fault("oversleep_before", 2), Fault("oversleep_before", 3),
    Fault("oversleep_after", 1), Fault("oversleep_after", 2), Fault("oversleep_after", 3),
)  # fmt: skip
"""`delay`: its turn comes so many times and passes. A process dies, and is started again, or stands still for so many ms, before
the call is made or before its answer is read. One that oversleeps stands still beyond its lease, until right after another
process has taken something, for the time that `amount` says."""

OVERSLEEP_MS, LONGEST_OVERSLEEP_MS = 5_500, 60_000
"""How long one oversleeps, at least and at the most: a lane's lease, and long enough to see an SMS' lease end too."""

NETWORK: Sequence[Fault] = (
    Fault("lose_request"), Fault("lose_reply"), Fault("lose_reply"), Fault("lose_rest"),
    Fault("late", 300), Fault("late", 6_000), Fault("late", 30_000),
)  # fmt: skip
"""`lose_rest`: of commands that are sent together, only the first half arrives. `late`: the client has given up when the
server works on it, so many ms after it was sent."""

SERVER: Sequence[Fault] = (
    Fault("refuse"), Fault("full", 4_000), Fault("hang", 3_000), Fault("hang", 12_000), Fault("restart", 1_500),
)  # fmt: skip
"""The server answers READONLY once; is full; stands still; is killed and started again, with all that it acknowledged."""

FAILOVER: Sequence[Fault] = (
    Fault("fail_over", 0), Fault("fail_over", 1), Fault("fail_over", 2), Fault("fail_over", 4), Fault("fail_over", 9),
    Fault("fail_over_behind", 3), Fault("fail_over_behind", 6),
)  # fmt: skip
"""A replica takes over that lacks the last so many calls; whose clock is a little behind."""

REPLICATION: Sequence[Fault] = (
    Fault("lag", 300),
    Fault("lag", 2_000),
    Fault("lag", 9_000),
    Fault("lag", 25_000),
)
"""The replicas are cut off for so many ms, or until one of them takes over."""

CLUSTER: Sequence[Fault] = (
    Fault("node_away", 0), Fault("node_away", 1), Fault("node_unheard", 0), Fault("node_unheard", 1),
    Fault("node_gone", 1_500), Fault("node_gone", -1_500), Fault("node_gone", 20_000), Fault("node_gone", -20_000),
    Fault("node_gone", 60_000), Fault("node_gone", -60_000),
)  # fmt: skip
"""Of two nodes of a cluster this one gets nothing of what is sent, or nobody hears its answers, while the other's come. One of them
(the second; the first if it is negative) is gone for so many ms, and comes back with all that it had."""

BEHIND_MS = 300
"""By how much: less than a failover takes."""

CLOCK: Sequence[Fault] = (
    Fault("step_clock", -3_600_000), Fault("step_clock", -40_000), Fault("step_clock", -8_000),
    Fault("step_clock", 8_000), Fault("step_clock", 40_000), Fault("step_clock", 3_600_000),
)  # fmt: skip
"""The server's clock is set."""

PROVIDER: Sequence[Fault] = (
    Fault("unavailable"), Fault("refuse_sms"), Fault("account"), Fault("unknown_taken"), Fault("unknown_lost"),
    Fault("taken_late", 4_000), Fault("taken_late", 9_000),
)  # fmt: skip
"""A try is turned away, rejected, or meets an account at fault; its answer is lost, and the provider has the SMS, or has it
not, or gets it so many ms later."""

POWER_CUT = Fault("power_cut")

DISK: Sequence[Fault] = (Fault("half_written"), Fault("disk_full"), POWER_CUT)
"""A write ends early, or fails; the machine loses its power, and with it what was written and not synced."""


ARCHIVE_BEGIN: Sequence[Fault] = (Fault("database_away"),)
ARCHIVE_COMMIT: Sequence[Fault] = (
    Fault("refuse_commit"),
    Fault("lose_commit_reply"),
    Fault("lose_commit_reply"),
)
"""The database does not answer; has no room for what is committed; or has committed it, and nobody hears of that."""

ENDPOINT: Sequence[Fault] = (
    Fault("fail_event"), Fault("refuse_event"), Fault("lose_answer"), Fault("hang_event"), Fault("slow_event", 3_000),
    Fault("slow_event", 12_000), Fault("event_late", 4_000), Fault("event_late", 40_000), Fault("rest_event", 60_000),
    Fault("endpoint_gone", 90_000), Fault("endpoint_gone", 7_200_000),
)  # fmt: skip
"""An endpoint answers 5xx; 4xx; takes what it is told, and its answer is lost; neither takes nor answers; takes it, and answers
so many ms later; gets it so many ms later than it was sent, when nobody waits for its answer any more; asks to be left alone;
is away for so many ms."""


def describe(place: Place, what: str, fault: Fault) -> str:
    """Say in a line where a fault is, and which."""
    amount = f" {fault.amount}" if fault.amount else ""
    return f"{place.actor} call {place.call} ({what}): {fault.kind}{amount}"


def written_schedule(schedule: Schedule) -> list[list[str | int]]:
    """Return a schedule as it is printed and kept: (actor, call, kind, amount) of each fault."""
    return [[place.actor, place.call, fault.kind, fault.amount] for place, fault in schedule.items()]


def read_schedule(written: str) -> Schedule:
    """Read the JSON of a schedule. Raises msgspec.MsgspecError."""
    lines = msgspec.json.decode(written, type=list[tuple[str, int, str, int]])
    return {Place(actor, call): Fault(kind, amount) for actor, call, kind, amount in lines}
