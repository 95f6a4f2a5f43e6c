"""Every number that Parley publishes, in one table.

Labels are bounded: channels, queues, hooks, and words from our own code; never a phone number or a text. With
PROMETHEUS_MULTIPROC_DIR set when this is first imported, whatever was imported before, all processes of a machine
count in that directory, and any of them can tell the sum: see config/telemetry/multiprocess_metrics.py.
"""

import os
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Literal, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Metric

from config.settings.config_errors import exit_on_config_error
from config.telemetry.library_internals import (
    FOLDER_VARIABLE,
    BatchHistogram,
    ScrapeTimeGauge,
    count_in_folder,
)
from config.telemetry.multiprocess_metrics import join_folder

REGISTRY = CollectorRegistry()

Labelled = TypeVar("Labelled", Counter, Gauge, BatchHistogram)

with exit_on_config_error():
    _folder = os.environ.get(FOLDER_VARIABLE)
    _multiprocess = join_folder(Path(_folder)) if _folder else None
if _multiprocess is not None:
    count_in_folder(_multiprocess.process_identity)

_WEBHOOK_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2)
_WAIT_BUCKETS_S = (0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1_800)
_SEND_BUCKETS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


def _with_kept_children(metric: Labelled) -> Labelled:
    """The same metric, which looks for the child of some labels once: prometheus_client takes as long for that as for counting."""
    metric.labels = cache(metric.labels)  # type: ignore[method-assign]
    return metric


def _counter(name: str, meaning: str, *labels: str) -> Counter:
    return _with_kept_children(Counter("parley_" + name, meaning, labels, registry=REGISTRY))


def _gauge(
    name: str,
    meaning: str,
    *labels: str,
    mode: Literal["livemostrecent", "mostrecent"] = "livemostrecent",
) -> Gauge:
    """One that a process sets: of those that live, what was set last. If `mode` is "mostrecent", what one of the dead
    has set in the last day is true as well."""
    return _with_kept_children(
        Gauge("parley_" + name, meaning, labels, registry=REGISTRY, multiprocess_mode=mode)
    )


def _histogram(name: str, meaning: str, buckets: tuple[float, ...], *labels: str) -> BatchHistogram:
    return _with_kept_children(
        BatchHistogram("parley_" + name, meaning, labels, registry=REGISTRY, buckets=buckets)
    )


def _scrape_time_gauge(name: str, meaning: str, *labels: str) -> ScrapeTimeGauge:
    return ScrapeTimeGauge("parley_" + name, meaning, labels, registry=REGISTRY)


WEBHOOKS = _counter("webhooks_total", "Webhook requests answered", "channel", "outcome")
WEBHOOK_SECONDS = _histogram(
    "webhook_seconds",
    "From a webhook's arrival until it is in the mailbox; of each write, the longest",
    _WEBHOOK_BUCKETS_S,
)
CONNECTIONS_REFUSED = _counter(
    "connections_refused_total", "Connections that `web` ended, by what was wrong with them", "reason"
)
ANSWERS = _counter(
    "answers_total", "Webhooks that the replies may answer, by what came of it", "channel", "outcome"
)
INBOUND = _counter("inbound_total", "Events put into mailboxes", "channel", "kind")
DROPPED = _counter("dropped_total", "Events that a provider sent and that no lane gets", "channel", "reason")
SPOOLED = _counter("spooled_total", "Events written to the spool, as Redis was away", "channel")
SPOOL_REFUSED = _counter(
    "spool_refused_total", "Events that the spool did not take, or could not hand over", "channel", "reason"
)
SPOOL_EVENTS = _scrape_time_gauge("spool_events", "Events in this machine's spool")
SPOOL_BYTES = _scrape_time_gauge("spool_bytes", "Bytes in this machine's spool")
SPOOL_LIMIT_BYTES = _scrape_time_gauge("spool_limit_bytes", "The most that it may have; 0: there is no spool")
SPOOL_OLDEST_SECONDS = _scrape_time_gauge(
    "spool_oldest_seconds", "Age of the oldest event in this machine's spool"
)
INVITATIONS = _counter("invitations_total", "Invitations posted to the API", "channel", "outcome")
INVITATIONS_RELEASED = _counter(
    "invitations_released_total", "Invitations whose turn came", "channel", "outcome"
)
RINGS_FAILED = _counter("rings_failed_total", "Wake-ups not rung; the lane's alarm rings later", "queue")
WAKEUPS = _counter("wakeups_total", "Lanes that were due and were rung by the clock", "queue")

CLAIM_SECONDS = _histogram(
    "claim_seconds", "From an event's acceptance until a worker claims it", _WAIT_BUCKETS_S, "queue"
)
TURN_SECONDS = _histogram(
    "turn_seconds", "From the claim of a lane until its commit", _WAIT_BUCKETS_S, "queue"
)
TURNS = _counter("turns_total", "Lanes advanced", "queue", "outcome")
LEASES_LOST = _counter("leases_lost_total", "Lanes claimed whose last worker never came back", "queue")
SELF_TESTS = _counter(
    "self_tests_total",
    "Turns of nobody's that a worker makes before it takes up a dead one's lane",
    "queue",
    "outcome",
)
DUPLICATES = _counter("duplicates_total", "Events that had been applied before, and changed nothing")
STARTS_REFUSED = _counter(
    "starts_refused_total", "STARTs and invitations that opened nothing", "channel", "reason"
)
INVALID_ANSWERS = _counter(
    "invalid_answers_total", "SMS that were no answer to what was asked", "survey", "step"
)
SESSIONS_OPENED = _counter("sessions_opened_total", "Sessions opened", "channel", "survey")
SESSIONS_ENDED = _counter("sessions_ended_total", "Sessions ended", "channel", "survey", "how")
SMS_DECIDED = _counter("sms_decided_total", "SMS decided, to be sent", "channel")

RECEIPTS = _counter("receipts_total", "Receipts that brought something new of an SMS", "channel", "state")

OUTBOX_SECONDS = _histogram(
    "outbox_seconds",
    "From an SMS's decision until the provider has it, pauses included",
    _WAIT_BUCKETS_S,
    "channel",
)
REPLY_SECONDS = _histogram(
    "reply_seconds",
    "From a webhook's acceptance until the provider has the first reply",
    _WAIT_BUCKETS_S,
    "channel",
)
SENDS = _counter("sends_total", "Attempts to send an SMS", "channel", "outcome")
SEND_ERRORS = _counter(
    "send_errors_total", "Attempts that the provider did not accept, by its code", "channel", "code"
)
SEGMENTS = _counter("segments_total", "Parts of the SMS that the provider accepted, by our count", "channel")
LOOKUPS = _counter(
    "lookups_total", "SMS of unknown fate that a provider was asked about", "channel", "outcome"
)
SEND_SECONDS = _histogram("send_seconds", "One request to a provider", _SEND_BUCKETS_S, "channel")
CIRCUITS_OPENED = _counter("circuits_opened_total", "Pauses because a provider failed too often", "channel")
CREDIT = _gauge("credit", "What the provider said is left, in its own unit", "channel", mode="mostrecent")
DEAD_LETTERS = _counter("dead_letters_total", "Events and SMS put aside for a person to look at", "reason")

ARCHIVED_ENTRIES = _counter("archived_entries_total", "Entries of the event stream moved into the archive")
ARCHIVE_ERRORS = _counter(
    "archive_errors_total", "Times that nothing could be archived, by what was in the way", "reason"
)
ARCHIVE_UNREADABLE = _counter(
    "archive_unreadable_entries_total", "Entries of the event stream that `archive` could not read"
)
ARCHIVE_HELD_SHARDS = _gauge(
    "archive_held_shards", "Shards of which nothing is archived, as the archive is ahead of Redis"
)
ARCHIVE_READ_UNTIL = _gauge(
    "archive_read_until_seconds",
    "The Unix time until which all that happened is in the archive",
    mode="mostrecent",
)

HOOK_EVENTS = _counter(
    "hook_events_total", "Events that endpoints were told of, or refused for good", "hook", "outcome"
)
HOOK_REQUESTS = _counter(
    "hook_requests_total", "Requests to endpoints, by what came of each", "hook", "outcome"
)
CONSOLE_REQUESTS = _counter(
    "console_requests_total",
    "Requests to the console, by what became of them (2xx, 3xx, 4xx, 5xx)",
    "outcome",
)
HOOK_SECONDS = _histogram("hook_seconds", "One request to an endpoint", _SEND_BUCKETS_S, "hook")
HOOK_CIRCUITS_OPENED = _counter(
    "hook_circuits_opened_total", "Times that an endpoint failed too often", "hook"
)
HOOK_UNREADABLE = _counter(
    "hook_unreadable_records_total", "Records that `hooks` could not read, and told nobody of"
)

CLOCK_DIFFERENCE_SECONDS = _gauge(
    "clock_difference_seconds", "By how much this machine's clock is ahead of that of the lanes' Redis"
)
SURVEYS_REFUSED = _gauge("surveys_refused", "Survey files with errors; what ran of them runs on")

# What lies in Redis, which every endpoint reads for itself when it is asked: take `max`, not `sum`, over endpoints.
REDIS_UP = _scrape_time_gauge("redis_up", "1 if this server answers", "server")
REDIS_MEMORY_BYTES = _scrape_time_gauge(
    "redis_memory_bytes", "Memory in use, and the most it may use if limited", "server", "kind"
)
REDIS_REPLICAS = _scrape_time_gauge(
    "redis_replicas", "Replicas that follow the lanes' server, and how many must (PARLEY_REPLICAS)", "kind"
)
REDIS_SLOTS_UNCOVERED = _scrape_time_gauge(
    "redis_slots_uncovered", "Slots of the lanes' cluster that no server answers for; 0 of one server"
)
QUEUE_DEPTH = _scrape_time_gauge(
    "queue_depth", "Senders whom a worker of this queue has been rung for", "queue"
)
QUEUE_OLDEST_SECONDS = _scrape_time_gauge(
    "queue_oldest_seconds", "How long the first of them has been waiting", "queue"
)
ALARMS_WAITING = _scrape_time_gauge(
    "alarms", "Lanes that wait for a worker or a moment, outboxes with SMS", "kind"
)
ALARMS_DUE = _scrape_time_gauge("alarms_due", "Those that are due, and not yet rung", "kind")
ALARMS_LATE_SECONDS = _scrape_time_gauge(
    "alarms_late_seconds", "For how long the first of them has been due", "kind"
)
LANES_LOCKED = _scrape_time_gauge(
    "lanes_locked", "Lanes that a worker holds, or held and never came back to", "state"
)
DEAD_LETTERS_WAITING = _scrape_time_gauge(
    "dead_letters_waiting", "Dead letters that nobody has dealt with", "reason"
)
DEAD_LETTERS_OLDEST_SECONDS = _scrape_time_gauge("dead_letters_oldest_seconds", "Age of the oldest of them")
DRAMATIQ_DEAD_LETTERS = _scrape_time_gauge(
    "dramatiq_dead_letters", "Messages in the dead-letter queues of Dramatiq's own broker"
)
ARCHIVE_SEEN = _scrape_time_gauge("archive_seen", "1 once an archive has said how far it is")
ARCHIVE_LAG_SECONDS = _scrape_time_gauge(
    "archive_lag_seconds", "Age of the oldest entry of the event stream that no archive has"
)
ARCHIVE_WAITING_ENTRIES = _scrape_time_gauge(
    "archive_waiting_entries", "Entries of the event stream that no archive has, at the most"
)
INVITATIONS_HELD = _scrape_time_gauge(
    "invitations_held", "Invitations that wait for their turn, if it comes within 12 hours", "channel"
)
SMS_BUDGET_EXHAUSTED = _scrape_time_gauge(
    "sms_budget_exhausted", "1 while the day's SMS are used up", "channel"
)
CHANNEL_PAUSED = _scrape_time_gauge("channel_paused", "1 while nothing is sent, and by whom", "channel", "by")
HOOK_LAG_SECONDS = _scrape_time_gauge(
    "hook_lag_seconds", "Age of the oldest entry of the event streams that the endpoint has not got", "hook"
)
HOOK_PAUSED = _scrape_time_gauge(
    "hook_paused", "1 while an endpoint is told nothing, or is only tried, and by whom", "hook", "by"
)
HOOK_HELD = _scrape_time_gauge("hook_held", "1 while a process has the endpoint", "hook")
PROCESSES = _scrape_time_gauge("processes", "Processes that have been heard of in the last seconds", "role")
PROCESSES_SILENT = _scrape_time_gauge(
    "processes_silent",
    "Processes that were killed, or hang: silent for up to 15 minutes, and no goodbye",
    "role",
)


def collect_counted() -> Iterable[Metric]:
    """Return what this process has counted, or all processes of this machine, if they share a directory."""
    if _multiprocess is None:
        return REGISTRY.collect()
    _multiprocess.fold_dead()
    return _multiprocess.read_metrics()
