"""What follows from a try to send an SMS, or from how it was left? Decided here, without I/O; done by delivery.py.

A provider may have an SMS though it did not say so: the connection broke, or the worker died. One that knows repeats is
sent it again under the same id. Any other is asked first, and where that cannot be done either, the SMS is not sent again.
"""

from collections.abc import Sequence
from typing import assert_never

import msgspec

from engine.model.events import (
    Inbound,
    Outbound,
    ProviderStop,
    Receipt,
    Record,
    Sent,
    Unsent,
    encode,
)
from engine.providers import (
    Accepted,
    ChannelFault,
    OptedOutThere,
    Outcome,
    Recourse,
    Rejected,
    RetryLater,
    Unknown,
    Unreachable,
)
from workers.store.channel_state import FAULT_MS, How
from workers.store.dead_letter_store import DeadLetter, Reason, Tried, seal
from workers.store.lanes import Letter
from workers.store.outboxes import UNSURE_MS, Attempt, Settled, Take, Verdict

MAX_TRIES = 20
"""Some three hours, by BACKOFF_FIRST_MS and BACKOFF_MOST_MS."""

BACKOFF_FIRST_MS, BACKOFF_MOST_MS = 1_000, 900_000

CERTAIN_MS = 23 * 3_600_000
"""How long after its first try an SMS that the provider may have is tried again: Octopush knows its id for 24 hours."""

BEHIND_MS = 1_000
"""How much later than others an SMS looks again at which the provider failed: so that another one probes next."""


class Try(msgspec.Struct, frozen=True):
    """A try and how many seconds it took; without an outcome, it was not made. `uncertain`: the provider may have the
    SMS after it. `probe`: its channel's circuit waits for what came of it. `begun_s` is when its slot was taken, of the
    clock monotonic."""

    take: Take
    sms: Outbound
    outcome: Outcome | None
    took_s: float
    uncertain: bool = False
    probe: bool = False
    begun_s: float = 0.0


class Settlement(msgspec.Struct, frozen=True):
    """What a try's outcome means for the SMS. `reason` is why it goes to the dead letters, if it does."""

    verdict: Verdict
    rest_ms: int
    label: str
    code: str = ""
    why: str = ""
    reason: Reason | None = None


def blame(outcome: Outcome) -> How:
    """What a try says of the provider. That it refuses one SMS, or one number, says that it works."""
    match outcome:
        case ChannelFault():
            return "faults"
        case RetryLater(alone=False) | Unknown(alone=False):
            return "fails"
        case _:
            return "works"


def decide(
    outcome: Outcome, tries: int, pause_ms: int, jitter: float, recourse: Recourse, open_ms: int = 0
) -> Settlement:
    """What follows from `outcome` of the try number `tries`. `jitter` is in 0..1, `pause_ms` the channel's pause. If its
    circuit is open after the try, for `open_ms`, a try at which the provider failed does not count, and the SMS looks
    again behind others."""
    spared_ms = open_ms + round(BEHIND_MS * (0.5 + jitter)) if open_ms and blame(outcome) != "works" else 0
    match outcome:
        case Accepted():
            return Settlement("done", pause_ms, "accepted")
        case RetryLater(code, why) if spared_ms:
            return Settlement("untried", spared_ms, "retry", code, why)
        case RetryLater(code, why) if tries >= MAX_TRIES:
            return Settlement("done", 0, "tries_exhausted", code, why, "tries_exhausted")
        case RetryLater(code, why):
            return Settlement("again", backoff_ms(tries, jitter), "retry", code, why)
        case Unknown(code, why) if recourse == "none":
            return Settlement("done", 0, "uncertain", code, why, "uncertain")
        case Unknown(code, why) if spared_ms:
            rest_ms = spared_ms if recourse == "repeat" else max(UNSURE_MS, spared_ms)
            return Settlement("untried", rest_ms, "unknown", code, why)
        case Unknown(code, why) if tries >= MAX_TRIES:
            reason: Reason = "tries_exhausted" if recourse == "repeat" else "uncertain"
            return Settlement("done", 0, reason, code, why, reason)
        case Unknown(code, why):
            rest_ms = backoff_ms(tries, jitter)
            return Settlement(
                "again", rest_ms if recourse == "repeat" else max(UNSURE_MS, rest_ms), "unknown", code, why
            )
        case Rejected(code, why):
            return Settlement("done", 0, "rejected", code, why, "rejected")
        case Unreachable(code, why):
            return Settlement("done", 0, "unreachable", code, why)
        case ChannelFault(code, why):
            return Settlement("untried", spared_ms or FAULT_MS, "channel_fault", code, why)
        case OptedOutThere(code, why):
            return Settlement("done", 0, "opted_out", code, why)
        case _:
            assert_never(outcome)


def buried(reason: Reason, why: str) -> Settlement:
    """To the dead letters with it, untried."""
    return Settlement("done", 0, reason, why=why, reason=reason)


def hopeless(take: Take, sms: Outbound, recourse: Recourse) -> Settlement | None:
    """Why an SMS must not be tried; None if it may."""
    uncertain = recourse == "repeat" or take.unknown or sms.uncertain
    if uncertain and recourse == "none":
        why = "an earlier try may have been accepted, and the provider cannot be asked"
        return buried("uncertain", why)
    if uncertain and take.since and take.now - take.since > CERTAIN_MS:
        return buried("uncertain", "a try of more than 23 hours ago may have been accepted")
    if take.attempts >= MAX_TRIES:
        reason: Reason = "worker_died" if recourse == "repeat" else "uncertain"
        return buried(reason, "the workers that tried it never came back")
    return None


def backoff_ms(tries: int, jitter: float) -> int:
    """Doubling from a second to a quarter of an hour, give or take a half."""
    longest: int = min(BACKOFF_MOST_MS, BACKOFF_FIRST_MS * 2 ** (tries - 1))
    return round(longest * (0.5 + jitter))


def settled(
    made: Try, settlement: Settlement, recourse: Recourse = "none", earlier: Sequence[Attempt] = ()
) -> Settled:
    """The settlement, with all that it writes: a letter has the `earlier` tries too. A ticket may have to be told apart
    from those of later SMS, where one can be asked for them."""
    at = ended(made)
    failed = Attempt(made.sms.id, at, settlement.code, settlement.why)
    accepted = made.outcome if isinstance(made.outcome, Accepted) else None
    return Settled(
        made.take,
        settlement.verdict,
        rest_ms=settlement.rest_ms,
        records=_records(made.sms, made.outcome, settlement, at),
        dead=_letter(made, settlement, at, (*earlier, failed)),
        uncertain=made.uncertain and settlement.verdict != "done",
        ticket=accepted.ticket if accepted and recourse == "look_up" else "",
        mail=_news(made.sms, made.outcome),
        failed=None if settlement.verdict == "done" else failed,
    )


def ended(made: Try) -> int:
    """When a try came to its end (the server's ms)."""
    return made.take.now + round(made.took_s * 1000)


def left(take: Take, verdict: Verdict, rest_ms: int, epoch: int = 0) -> Settled:
    """An SMS that is not tried now; what is not known of it stays so."""
    return Settled(take, verdict, rest_ms=rest_ms, uncertain=take.unknown, epoch=epoch)


def _news(sms: Outbound, outcome: Outcome | None) -> Inbound | None:
    """What the lane must hear of it."""
    match outcome:
        case OptedOutThere():
            return ProviderStop(f"{sms.id}s", sms.channel)
        case Unreachable(code, why):
            return Receipt(
                f"{sms.id}u", sms.channel, "", code, "failed", code, why, permanent=True, sms=sms.id
            )
        case _:
            return None


def _records(sms: Outbound, outcome: Outcome | None, settlement: Settlement, at: int) -> bytes:
    """What the archive should know: an acceptance, or that the SMS will never leave."""
    record: Record
    if isinstance(outcome, Accepted):
        record = Sent(at, sms.channel, sms.session, sms.id, outcome.ticket)
    elif settlement.verdict == "done":
        record = Unsent(at, sms.channel, sms.session, sms.id, settlement.code, settlement.why)
    else:
        return b""
    return encode([record])


def _letter(made: Try, settlement: Settlement, at: int, tries: Sequence[Attempt]) -> Letter | None:
    if not settlement.reason:
        return None
    take, sms, untried = made.take, made.sms, made.outcome is None
    return seal(
        DeadLetter(
            id=f"s{sms.id}",
            kind="sms",
            reason=settlement.reason,
            sender=sms.to,
            at=at,
            attempts=take.attempts + 1,
            what=take.sms,
            channel=sms.channel,
            session=sms.session,
            version=take.fence,
            code=settlement.code,
            why=settlement.why,
            tries=[Tried(each.at, each.code, each.why) for each in tries],
            survey=sms.survey,
            uncertain=made.uncertain or settlement.reason == "uncertain" or (untried and take.unknown),
            since=take.since,
        )
    )
