"""What follows from a try to send an SMS, or from how it was left? Decided here, without I/O; done by send_steps.py.

A provider may have an SMS though it did not say so: the connection broke, or the worker died. One that knows repeats is
sent it again under the same id. Any other is asked first, and where that cannot be done either, the SMS is not sent again.
"""

from collections.abc import Sequence
from typing import assert_never

import msgspec

from config.store.dead_letter_reasons import DeadLetterReason
from config.store.outbox_states import SmsDisposition
from engine.model.events import (
    ArchiveRecord,
    DeliveryReceipt,
    InboundEvent,
    OutboundSms,
    ProviderStop,
    SmsNotSent,
    SmsSent,
    encode_event,
)
from engine.providers import (
    ChannelFault,
    NumberUnreachable,
    OptedOutAtProvider,
    OutcomeUnknown,
    Recourse,
    RetryLater,
    SendAccepted,
    SendOutcome,
    SendRejected,
)
from workers.store.channel_state import ACCOUNT_FAULT_REST_MS, ProviderHealth
from workers.store.dead_letter_store import (
    DeadLetter,
    EncodedDeadLetter,
    FailedAttempt,
    encode_dead_letter,
)
from workers.store.outboxes import (
    OUTBOX_LEASE_MS,
    UNCERTAIN_REST_MS,
    OutboxLease,
    OutboxUpdate,
    StoredAttempt,
)

MAX_SEND_ATTEMPTS = 20
"""Some three hours, by BACKOFF_MIN_MS and BACKOFF_MAX_MS."""

BACKOFF_MIN_MS, BACKOFF_MAX_MS = 1_000, 900_000

REPEATABLE_FOR_MS = 23 * 3_600_000
"""How long after its first try an SMS that the provider may have is tried again: Octopush knows its id for 24 hours."""

SPARED_EXTRA_REST_MS = 1_000
"""How much later than others an SMS looks again at which the provider failed: so that another one probes next."""


class SendAttempt(msgspec.Struct, frozen=True):
    """A try and how many seconds it took; without an outcome, it was not made. `uncertain`: the provider may have the
    SMS after it. `probe`: its channel's circuit waits for what came of it. `slot_taken_s` is when its slot was taken, of the
    host's monotonic clock."""

    lease: OutboxLease
    sms: OutboundSms
    outcome: SendOutcome | None
    took_s: float
    uncertain: bool = False
    probe: bool = False
    slot_taken_s: float = 0.0


class SendDecision(msgspec.Struct, frozen=True):
    """What a try's outcome means for the SMS. `reason` is why it goes to the dead letters, if it does."""

    disposition: SmsDisposition
    rest_ms: int
    outcome_label: str
    code: str = ""
    why: str = ""
    dead_letter_reason: DeadLetterReason | None = None


def provider_health(outcome: SendOutcome) -> ProviderHealth:
    """What a try says of the provider. That it refuses one SMS, or one number, says that it works."""
    match outcome:
        case ChannelFault():
            return "faults"
        case RetryLater(this_sms_only=False) | OutcomeUnknown(this_sms_only=False):
            return "fails"
        case _:
            return "works"


def decide_after_attempt(
    outcome: SendOutcome, tries: int, pause_ms: int, jitter: float, recourse: Recourse, open_ms: int = 0
) -> SendDecision:
    """What follows from `outcome` of the try number `tries`. `jitter` is in 0..1, `pause_ms` the channel's pause. If its
    circuit is open after the try, for `open_ms`, a try at which the provider failed does not count, and the SMS looks
    again behind others."""
    spared_ms = (
        open_ms + round(SPARED_EXTRA_REST_MS * (0.5 + jitter))
        if open_ms and provider_health(outcome) != "works"
        else 0
    )
    match outcome:
        case SendAccepted():
            return SendDecision("done", pause_ms, "accepted")
        case RetryLater(code, why) if spared_ms:
            return SendDecision("untried", spared_ms, "retry", code, why)
        case RetryLater(code, why) if tries >= MAX_SEND_ATTEMPTS:
            return SendDecision("done", 0, "tries_exhausted", code, why, "tries_exhausted")
        case RetryLater(code, why):
            return SendDecision("again", backoff_ms(tries, jitter), "retry", code, why)
        case OutcomeUnknown(code, why) if recourse == "none":
            return SendDecision("done", 0, "uncertain", code, why, "uncertain")
        case OutcomeUnknown(code, why) if spared_ms:
            rest_ms = spared_ms if recourse == "repeat" else max(UNCERTAIN_REST_MS, spared_ms)
            return SendDecision("untried", rest_ms, "unknown", code, why)
        case OutcomeUnknown(code, why) if tries >= MAX_SEND_ATTEMPTS:
            reason: DeadLetterReason = "tries_exhausted" if recourse == "repeat" else "uncertain"
            return SendDecision("done", 0, reason, code, why, reason)
        case OutcomeUnknown(code, why):
            rest_ms = backoff_ms(tries, jitter)
            return SendDecision(
                "again",
                rest_ms if recourse == "repeat" else max(UNCERTAIN_REST_MS, rest_ms),
                "unknown",
                code,
                why,
            )
        case SendRejected(code, why):
            return SendDecision("done", 0, "rejected", code, why, "rejected")
        case NumberUnreachable(code, why):
            return SendDecision("done", 0, "unreachable", code, why)
        case ChannelFault(code, why):
            return SendDecision("untried", spared_ms or ACCOUNT_FAULT_REST_MS, "channel_fault", code, why)
        case OptedOutAtProvider(code, why):
            return SendDecision("done", 0, "opted_out", code, why)
        case _:
            assert_never(outcome)


def give_up_untried(reason: DeadLetterReason, why: str) -> SendDecision:
    """To the dead letters with it, untried."""
    return SendDecision("done", 0, reason, why=why, dead_letter_reason=reason)


def first_tried_s(take: OutboxLease, sms: OutboundSms, own_now_s: float) -> float:
    """Return when an SMS may first have been tried, in seconds since 1970, by the server's clock or by ours, whichever says
    earlier: a provider dates what it has by a clock of its own, and the server's may be ahead. Nobody knows when of one that
    is marked: it may be in a webhook's answer, or its try is lost; nor of one that was tried while the server's clock was
    ahead, and is in the future now."""
    longest_ago_ms = take.now - REPEATABLE_FOR_MS
    known = take.first_attempt_ms and not sms.uncertain and take.first_attempt_ms <= take.now
    first_ms = take.first_attempt_ms if known else longest_ago_ms
    return min(first_ms / 1000, own_now_s - max(0, take.now - first_ms) / 1000)


def decide_before_attempt(take: OutboxLease, sms: OutboundSms, recourse: Recourse) -> SendDecision | None:
    """Why an SMS must not be tried; None if it may."""
    uncertain = recourse == "repeat" or take.uncertain or sms.uncertain
    if uncertain and recourse == "none":
        why = "an earlier try may have been accepted, and the provider cannot be asked"
        return give_up_untried("uncertain", why)
    if uncertain and take.first_attempt_ms and take.now - take.first_attempt_ms > REPEATABLE_FOR_MS:
        return give_up_untried("uncertain", "a try of more than 23 hours ago may have been accepted")
    if take.attempts >= MAX_SEND_ATTEMPTS:
        reason: DeadLetterReason = "worker_died" if recourse == "repeat" else "uncertain"
        return give_up_untried(reason, "the workers that tried it never came back")
    return None


def rest_after_failover_ms(take: OutboxLease, sms: OutboundSms, recourse: Recourse) -> int:
    """How long an SMS must rest before its provider is asked for it, as a try may be under way of which the server has lost
    all trace: until that one's lease is over, and the provider has what it brought. 0 if it need not."""
    if recourse != "look_up" or not (take.uncertain or sms.uncertain):
        return 0
    return max(0, take.lost_before_ms + OUTBOX_LEASE_MS + UNCERTAIN_REST_MS - take.now)


def backoff_ms(tries: int, jitter: float) -> int:
    """Doubling from a second to a quarter of an hour, give or take a half."""
    longest: int = min(BACKOFF_MAX_MS, BACKOFF_MIN_MS * 2 ** (tries - 1))
    return round(longest * (0.5 + jitter))


def outbox_update(
    made: SendAttempt,
    settlement: SendDecision,
    recourse: Recourse = "none",
    earlier: Sequence[FailedAttempt] = (),
) -> OutboxUpdate:
    """The settlement, with all that it writes: a letter has the `earlier` tries too. A ticket may have to be told apart
    from those of later SMS, where one can be asked for them."""
    at = ended_at_ms(made)
    failed = FailedAttempt(at, settlement.code, settlement.why)
    accepted = made.outcome if isinstance(made.outcome, SendAccepted) else None
    return OutboxUpdate(
        made.lease,
        settlement.disposition,
        rest_ms=settlement.rest_ms,
        records=_archive_records(made.sms, made.outcome, settlement, at),
        dead_letter=_dead_letter(made, settlement, at, (*earlier, failed)),
        uncertain=made.uncertain and settlement.disposition != "done",
        ticket=accepted.ticket if accepted and recourse == "look_up" else "",
        lane_mail=_lane_event(made.sms, made.outcome),
        failed_attempt=None
        if settlement.disposition == "done"
        else StoredAttempt(made.sms.id, failed.at, failed.code, failed.why),
    )


def ended_at_ms(made: SendAttempt) -> int:
    """When a try came to its end (the server's ms)."""
    return made.lease.now + round(made.took_s * 1000)


def leave_untried(take: OutboxLease, verdict: SmsDisposition, rest_ms: int, epoch: int = 0) -> OutboxUpdate:
    """An SMS that is not tried now; what is not known of it stays so."""
    return OutboxUpdate(take, verdict, rest_ms=rest_ms, uncertain=take.uncertain, permit_epoch=epoch)


def _lane_event(sms: OutboundSms, outcome: SendOutcome | None) -> InboundEvent | None:
    """What the lane must hear of it."""
    match outcome:
        case OptedOutAtProvider():
            return ProviderStop(f"{sms.id}s", sms.channel)
        case NumberUnreachable(code, why):
            return DeliveryReceipt(
                f"{sms.id}u", sms.channel, "", code, "failed", code, why, permanent=True, sms=sms.id
            )
        case _:
            return None


def _archive_records(
    sms: OutboundSms, outcome: SendOutcome | None, settlement: SendDecision, at: int
) -> bytes:
    """What the archive should know: an acceptance, or that the SMS will never leave."""
    record: ArchiveRecord
    if isinstance(outcome, SendAccepted):
        record = SmsSent(
            at,
            sms.channel,
            sms.session,
            sms.id,
            outcome.ticket,
            outcome.segments,
            outcome.cost_micros,
            outcome.currency,
        )
    elif settlement.disposition == "done":
        record = SmsNotSent(at, sms.channel, sms.session, sms.id, settlement.code, settlement.why)
    else:
        return b""
    return encode_event([record])


def _dead_letter(
    made: SendAttempt, settlement: SendDecision, at: int, tries: Sequence[FailedAttempt]
) -> EncodedDeadLetter | None:
    if not settlement.dead_letter_reason:
        return None
    take, sms, untried = made.lease, made.sms, made.outcome is None
    return encode_dead_letter(
        DeadLetter(
            id=f"s{sms.id}",
            kind="sms",
            reason=settlement.dead_letter_reason,
            sender=sms.to,
            at=at,
            attempts=take.attempts + 1,
            what=take.sms_bytes,
            channel=sms.channel,
            session=sms.session,
            version=take.fence,
            code=settlement.code,
            why=settlement.why,
            tries=list(tries),
            survey=sms.survey,
            uncertain=made.uncertain
            or settlement.dead_letter_reason == "uncertain"
            or (untried and take.uncertain),
            since=take.first_attempt_ms,
        )
    )
