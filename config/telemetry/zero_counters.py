"""Counters begin at 0 in the process that counts them, for every label that they are known to have.

A counter that is born at 1 has never risen, as Prometheus sees it: `increase` and `rate` miss the first event of each label,
which may be the only one. Labels that nobody can list beforehand (a provider's codes, a survey's steps) are born as they come.
"""

from collections.abc import Callable, Iterator, Mapping
from itertools import product
from typing import get_args

from prometheus_client import Counter

from config.settings.settings import Settings
from config.store.dead_letter_reasons import DEAD_LETTER_REASONS
from config.store.keyspace import OUTBOUND_QUEUE, QUEUES, REPLIES_QUEUE, STARTS_QUEUE
from config.telemetry import metrics
from engine.model.events import (
    PUBLISHED_NAMES,
    InboundEvent,
    Invitation,
    RefusalReason,
    SessionEnding,
    SmsState,
)

CountedLabels = tuple[Counter, tuple[str, ...]]
"""A counter, and the values of its labels."""

WEBHOOK_OUTCOMES = ("accepted", "spooled", "unavailable", "forbidden", "unreadable", "too_large")
ANSWER_OUTCOMES = ("answered", "late", "busy", "silent", "api", "failed")
INBOUND_KINDS = tuple(
    PUBLISHED_NAMES[kind].lower() for kind in get_args(InboundEvent) if kind is not Invitation
)
CONNECTION_REFUSALS = (
    "malformed", "headers", "pipelined", "idle", "slow_headers", "slow_body", "slow_reader", "crowded",
    "full",
)  # fmt: skip
SELF_TEST_OUTCOMES = ("begun", "passed")
DROP_REASONS = ("not_a_number", "own_number")
SPOOL_REFUSALS = ("full", "disk_full", "failed", "busy")
INVITATION_OUTCOMES = ("accepted", "repeated", "conflict", "late", "cancelled")
INVITATION_REJECTIONS = ("forbidden", "invalid")
RELEASE_OUTCOMES = ("released", "expired")
TURN_OUTCOMES = ("committed", "stale")
SEND_OUTCOMES = (
    "accepted", "retry", "unknown", "rejected", "unreachable", "opted_out", "channel_fault",
    "tries_exhausted", "uncertain",
)  # fmt: skip
LOOKUP_OUTCOMES = ("found", "not_found", "unknown")
ARCHIVE_ERROR_REASONS = ("redis", "database", "disk_full", "unexpected")
HOOK_EVENT_OUTCOMES = ("delivered", "refused")
HOOK_REQUEST_OUTCOMES = ("delivered", "refused", "failed")
CONSOLE_OUTCOMES = ("2xx", "3xx", "4xx", "5xx")
RECEIPT_STATES = tuple(state or "other" for state in get_args(SmsState))


def begin_at_zero(role: str, settings: Settings) -> None:
    """Make the counters that a process of `role` counts, at 0."""
    for counter, labels in _COUNTED_BY[role](settings):
        counter.labels(*labels)


def _by_web(settings: Settings) -> Iterator[CountedLabels]:
    names = tuple(settings.channels)
    yield from _each(metrics.WEBHOOKS, names, WEBHOOK_OUTCOMES)
    yield from _each(metrics.ANSWERS, names, ANSWER_OUTCOMES)
    yield from _each(metrics.INBOUND, names, INBOUND_KINDS)
    yield from _each(metrics.DROPPED, names, DROP_REASONS)
    yield from _each(metrics.CONNECTIONS_REFUSED, CONNECTION_REFUSALS)
    yield from _each(metrics.INVITATIONS, names, INVITATION_OUTCOMES)
    yield from _each(metrics.INVITATIONS, ("",), INVITATION_REJECTIONS)
    yield from _each(metrics.RINGS_FAILED, QUEUES)
    if settings.spool is not None:
        yield from _each(metrics.SPOOLED, names)
        yield from _each(metrics.SPOOL_REFUSED, names, SPOOL_REFUSALS)
        yield metrics.SPOOL_REFUSED, ("", "damaged")


def _by_turns(queue: str) -> Callable[[Settings], Iterator[CountedLabels]]:
    def counted(settings: Settings) -> Iterator[CountedLabels]:
        names = tuple(settings.channels)
        yield from _each(metrics.TURNS, (queue,), TURN_OUTCOMES)
        yield from _each(metrics.LEASES_LOST, (queue,))
        yield from _each(metrics.SELF_TESTS, (queue,), SELF_TEST_OUTCOMES)
        yield from _each(metrics.STARTS_REFUSED, names, get_args(RefusalReason))
        yield from _each(metrics.SMS_DECIDED, names)
        yield from _each(metrics.RECEIPTS, names, RECEIPT_STATES)
        yield from _each(metrics.DEAD_LETTERS, DEAD_LETTER_REASONS)
        for name, channel in settings.channels.items():
            yield from _each(metrics.SESSIONS_OPENED, (name,), channel.surveys)
            yield from _each(metrics.SESSIONS_ENDED, (name,), channel.surveys, get_args(SessionEnding))

    return counted


def _by_delivery(settings: Settings) -> Iterator[CountedLabels]:
    names = tuple(settings.channels)
    yield from _each(metrics.SENDS, names, SEND_OUTCOMES)
    yield from _each(metrics.SEGMENTS, names)
    yield from _each(metrics.LOOKUPS, names, LOOKUP_OUTCOMES)
    yield from _each(metrics.CIRCUITS_OPENED, names)
    yield from _each(metrics.DEAD_LETTERS, DEAD_LETTER_REASONS)


def _by_clock(settings: Settings) -> Iterator[CountedLabels]:
    yield from _each(metrics.WAKEUPS, (REPLIES_QUEUE, OUTBOUND_QUEUE))
    yield from _each(metrics.INVITATIONS_RELEASED, tuple(settings.channels), RELEASE_OUTCOMES)


def _by_archive(_: Settings) -> Iterator[CountedLabels]:
    yield from _each(metrics.ARCHIVE_ERRORS, ARCHIVE_ERROR_REASONS)


def _by_hooks(settings: Settings) -> Iterator[CountedLabels]:
    names = tuple(settings.hooks)
    yield from _each(metrics.HOOK_EVENTS, names, HOOK_EVENT_OUTCOMES)
    yield from _each(metrics.HOOK_REQUESTS, names, HOOK_REQUEST_OUTCOMES)
    yield from _each(metrics.HOOK_CIRCUITS_OPENED, names)
    yield from _each(metrics.DEAD_LETTERS, DEAD_LETTER_REASONS)


def _by_console(_: Settings) -> Iterator[CountedLabels]:
    yield from _each(metrics.CONSOLE_REQUESTS, CONSOLE_OUTCOMES)


_COUNTED_BY: Mapping[str, Callable[[Settings], Iterator[CountedLabels]]] = {
    "web": _by_web,
    "ratelimit": _by_turns(STARTS_QUEUE),
    "conversation": _by_turns(REPLIES_QUEUE),
    "delivery": _by_delivery,
    "clock": _by_clock,
    "archive": _by_archive,
    "hooks": _by_hooks,
    "console": _by_console,
}
"""By role, of process_registry.ROLES."""


def _each(counter: Counter, *values: tuple[str, ...]) -> Iterator[CountedLabels]:
    """Yield the counter with every combination of these values of its labels."""
    for labels in product(*values):
        yield counter, labels
