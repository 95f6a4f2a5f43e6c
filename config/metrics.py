"""Every number that Parley publishes, in one table.

Labels are bounded: channels, queues, and words from our own code; never a phone number or a text. With
PROMETHEUS_MULTIPROC_DIR set, all processes of a machine write there and any `web` process publishes the sum. The
directory must be emptied before the processes start.
"""

import os

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

REGISTRY = CollectorRegistry()

_MULTIPROCESS = "PROMETHEUS_MULTIPROC_DIR"
_WEBHOOK_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2)
_SEND_BUCKETS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


def _counter(name: str, meaning: str, *labels: str) -> Counter:
    return Counter("parley_" + name, meaning, labels, registry=REGISTRY)


def _gauge(name: str, meaning: str, *labels: str) -> Gauge:
    return Gauge("parley_" + name, meaning, labels, registry=REGISTRY, multiprocess_mode="mostrecent")


def _seconds(name: str, meaning: str, buckets: tuple[float, ...]) -> Histogram:
    return Histogram("parley_" + name, meaning, registry=REGISTRY, buckets=buckets)


WEBHOOKS = _counter("webhooks_total", "Webhook requests answered", "channel", "outcome")
WEBHOOK_SECONDS = _seconds(
    "webhook_seconds",
    "From a webhook's arrival until it is in the mailbox; of each write, the longest",
    _WEBHOOK_BUCKETS_S,
)
ANSWERED = _counter(
    "answers_total", "Webhooks that the replies may answer, by what came of it", "channel", "outcome"
)
INBOUND = _counter("inbound_total", "Events put into mailboxes", "channel", "kind")
DROPPED = _counter("dropped_total", "Events that a provider sent and that no lane gets", "channel", "reason")
INVITATIONS = _counter("invitations_total", "Invitations posted to the API", "channel", "outcome")
INVITATIONS_HELD = _gauge("invitations_held", "Invitations that wait for their turn", "channel")
INVITATIONS_RELEASED = _counter(
    "invitations_released_total", "Invitations whose turn came", "channel", "outcome"
)
RINGS_FAILED = _counter("rings_failed_total", "Wake-ups not rung; the lane's alarm rings later", "queue")
ALARMS = _counter("wakeups_total", "Lanes that were due and were rung by the clock", "queue")

TURNS = _counter("turns_total", "Lanes advanced", "queue", "outcome")
DUPLICATES = _counter("duplicates_total", "Events that had been applied before, and changed nothing")
STARTS_REFUSED = _counter("starts_refused_total", "STARTs that opened nothing", "channel", "reason")
SESSIONS_OPENED = _counter("sessions_opened_total", "Sessions opened", "channel")
SESSIONS_ENDED = _counter("sessions_ended_total", "Sessions ended", "channel", "how")
SMS_DECIDED = _counter("sms_decided_total", "SMS decided, to be sent", "channel")
SMS_BUDGET_EXHAUSTED = _gauge("sms_budget_exhausted", "1 while the day's SMS are used up", "channel")

RECEIPTS = _counter("receipts_total", "Receipts that brought something new of an SMS", "channel", "state")

SENDS = _counter("sends_total", "Attempts to send an SMS", "channel", "outcome")
LOOKUPS = _counter(
    "lookups_total", "SMS of unknown fate that a provider was asked about", "channel", "outcome"
)
SEND_SECONDS = _seconds("send_seconds", "One request to a provider", _SEND_BUCKETS_S)
CHANNEL_PAUSED = _gauge("channel_paused", "1 while nothing is sent: its account is at fault", "channel")
DEAD_LETTERS = _counter("dead_letters_total", "Events and SMS put aside for a person to look at", "reason")

SURVEYS_REFUSED = _gauge("surveys_refused", "Survey files with errors; what ran of them runs on")


def exposition() -> bytes:
    """All metrics in Prometheus' text format; of all this machine's processes, if they share a directory."""
    if not os.environ.get(_MULTIPROCESS):
        return generate_latest(REGISTRY)
    everyone = CollectorRegistry()
    MultiProcessCollector(everyone)  # type: ignore[no-untyped-call]
    return generate_latest(everyone)
