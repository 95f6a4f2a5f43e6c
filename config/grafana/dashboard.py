"""The Grafana dashboard, as a table: rows of panels, each with what it asks Prometheus.

Grafana imports parley.json, which this prints, so change it here:

    python -m config.grafana.dashboard > config/grafana/parley.json

Counters and histograms are each machine's own, and are summed over instances; gauges that every endpoint reads from
Redis are the same everywhere, so the greatest is taken. The arrangement is left to right, PER_LINE panels a line.
"""

import json
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

WIDE = 24
HIGH = 8
PER_LINE = 3
SCHEMA = 39
"""Grafana 11's; later ones migrate it by themselves."""

_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
_DEPLOYMENT = 'job=~"$job"'
_MACHINE = 'job=~"$job", instance=~"$instance"'
_CHANNEL = 'channel=~"$channel"'


class Query(NamedTuple):
    expr: str
    legend: str


class Panel(NamedTuple):
    """`unit` is Grafana's name of it; `kind` its name of the picture; `stacked` where the parts make up a whole."""

    title: str
    unit: str
    means: str
    queries: Sequence[Query]
    kind: str = "timeseries"
    stacked: bool = False


class Row(NamedTuple):
    title: str
    panels: Sequence[Panel]


def _labels(*parts: str) -> str:
    return "{" + ", ".join(part for part in parts if part) + "}"


def per_second(counter: str, by: str, where: str = _CHANNEL) -> Query:
    """How often a second, by these labels."""
    selector = f"parley_{counter}_total{_labels(_MACHINE, where)}"
    return Query(f"sum by ({by}) (rate({selector}[$__rate_interval]))", _legend(by))


def in_all(counter: str, by: str, span: str, where: str = _CHANNEL) -> Query:
    """How many in the last `span`, by these labels."""
    selector = f"parley_{counter}_total{_labels(_MACHINE, where)}"
    return Query(f"sum by ({by}) (increase({selector}[{span}]))", _legend(by))


def seconds(histogram: str, by: str = "", where: str = "") -> list[Query]:
    """The median, and what one in a hundred exceeds."""
    selector = f"parley_{histogram}_seconds_bucket{_labels(_MACHINE, where)}"
    labels = f"{by}, le" if by else "le"
    return [
        Query(
            f"histogram_quantile({share}, sum by ({labels}) (rate({selector}[$__rate_interval])))",
            f"{name} {_legend(by)}".strip(),
        )
        for share, name in ((0.5, "p50"), (0.99, "p99"))
    ]


def in_redis(gauge: str, by: str = "", where: str = "") -> Query:
    """What every endpoint reads from Redis alike."""
    labels = f" by ({by})" if by else ""
    return Query(f"max{labels} (parley_{gauge}{_labels(_DEPLOYMENT, where)})", _legend(by) or "now")


def on_machines(gauge: str, by: str = "instance", how: str = "max", where: str = "") -> Query:
    """What each machine knows for itself."""
    return Query(f"{how} by ({by}) (parley_{gauge}{_labels(_MACHINE, where)})", _legend(by))


def _legend(by: str) -> str:
    return " ".join(f"{{{{{label.strip()}}}}}" for label in by.split(",") if label)


_FIRING = _labels(_DEPLOYMENT, 'alertstate="firing"')
_ACCEPTED = _labels(_MACHINE, _CHANNEL, 'outcome="accepted"')

ROWS = [
    Row("At a glance", [
        Panel("Alerts that fire", "short", "Each has a paragraph in config/prometheus/RUNBOOK.md.",
              [Query(f"count(ALERTS{_FIRING}) or vector(0)", "alerts")], "stat"),
        Panel("Dead letters", "short", "Events and SMS that a person must look at: parley dead list.",
              [Query(f"sum(max by (reason) (parley_dead_letters_waiting{_labels(_DEPLOYMENT)})) or vector(0)", "letters")],
              "stat"),
        Panel("Longest wait for a worker", "s", "How long the first in the slowest queue has been waiting.",
              [in_redis("queue_oldest_seconds")], "stat"),
        Panel("Processes", "short", "Processes that have been heard of lately, by role. 0 is an alert.",
              [in_redis("processes", "role")], "stat"),
        Panel("Redis answers", "short", "1 if the server answers. `lanes` holds everything; `broker` only wake-ups.",
              [in_redis("redis_up", "server")], "stat"),
        Panel("SMS in the last 24 hours", "short", "SMS that providers have accepted.",
              [in_all("sends", "channel", "24h", _CHANNEL + ', outcome="accepted"')], "stat"),
    ]),
    Row("Flow", [
        Panel("Webhooks answered", "reqps", "By outcome. `unavailable` was a 503, `forbidden` bore a wrong secret.",
              [per_second("webhooks", "channel, outcome")], stacked=True),
        Panel("Events accepted", "ops", "Events put into mailboxes, by kind: SMS, receipts, STOPs told by providers.",
              [per_second("inbound", "channel, kind")], stacked=True),
        Panel("Turns", "ops", "Lanes advanced. A stale turn came after its lease, changed nothing, and was done again.",
              [per_second("turns", "queue, outcome", "")], stacked=True),
        Panel("SMS decided, and accepted by the provider", "ops", "The two run together, but for STOPs and pauses.",
              [Query(per_second("sms_decided", "channel").expr, "{{channel}} decided"),
               Query(f"sum by (channel) (rate(parley_sends_total{_ACCEPTED}[$__rate_interval]))", "{{channel}} accepted")]),
        Panel("Sessions opened", "ops", "By survey.",
              [per_second("sessions_opened", "channel, survey")], stacked=True),
        Panel("Sessions ended", "ops", "By how: completed, idle, expired, gave_up, stopped ...",
              [per_second("sessions_ended", "survey, how")], stacked=True),
        Panel("Receipts", "ops", "What providers told of SMS later, by state.",
              [per_second("receipts", "channel, state")], stacked=True),
        Panel("Invitations posted", "ops", "By outcome: accepted, or why not.",
              [per_second("invitations", "channel, outcome")], stacked=True),
        Panel("Invitations let go", "ops", "Invitations whose turn came: they yield to replies.",
              [per_second("invitations_released", "channel, outcome")], stacked=True),
    ]),
    Row("Latency, stage by stage", [
        Panel("Webhook to provider, as one", "s", "From a webhook's acceptance until the provider has the first reply.",
              seconds("reply", "channel", _CHANNEL)),
        Panel("Webhook to mailbox", "s", "Until an event is on disk and the provider is answered.", seconds("webhook")),
        Panel("Accepted to claimed", "s", "What an event waits for a worker. Long: more workers of that queue.",
              seconds("claim", "queue")),
        Panel("Claim to commit", "s", "One turn of a batch of lanes. A lease is 5 s.", seconds("turn", "queue")),
        Panel("Decided to sent", "s", "What an SMS waits in its outbox, pauses between two SMS included.",
              seconds("outbox", "channel", _CHANNEL)),
        Panel("One request to the provider", "s", "Without an answer for 6 s, its fate is unknown.",
              seconds("send", "channel", _CHANNEL)),
    ]),
    Row("Backlog", [
        Panel("Senders who wait for a worker", "short", "Depth of the queues of wake-ups.",
              [in_redis("queue_depth", "queue")]),
        Panel("The first has been waiting", "s", "Oldest wake-up of each queue.",
              [in_redis("queue_oldest_seconds", "queue")]),
        Panel("Alarms", "short", "Lanes and outboxes that wait for a worker or a moment: open work, not a fault.",
              [in_redis("alarms", "kind")]),
        Panel("Alarms due", "short", "Due, and not yet rung by a clock.", [in_redis("alarms_due", "kind")]),
        Panel("Alarms late", "s", "How long the first has been due. Above a few seconds, no clock is alive.",
              [in_redis("alarms_late_seconds", "kind")]),
        Panel("Lanes locked", "short", "Held by a worker now; or abandoned by one that never came back, until taken up.",
              [in_redis("lanes_locked", "state")]),
        Panel("Alarms rung by the clock", "ops", "Deadlines, retries, rests between SMS, and wake-ups that were lost.",
              [per_second("wakeups", "queue", "")]),
        Panel("Wake-ups that failed, leases that were lost", "ops", "The broker's Redis fails; a worker died or froze.",
              [Query(per_second("rings_failed", "queue", "").expr, "{{queue}} not rung"),
               Query(per_second("leases_lost", "queue", "").expr, "{{queue}} lease lost")]),
        Panel("Invitations that wait", "short", "For their pace, the end of quiet hours, or the day's SMS.",
              [in_redis("invitations_held", "channel", _CHANNEL)]),
        Panel("Spool", "short", "Events on a machine's disk, acknowledged while Redis was away.",
              [on_machines("spool_events")]),
        Panel("Spool in bytes", "bytes", "Against PARLEY_SPOOL_MB of that machine.",
              [Query(on_machines("spool_bytes").expr, "{{instance}}"),
               Query(on_machines("spool_limit_bytes").expr, "{{instance}} limit")]),
        Panel("Age of the spool", "s", "The oldest event on a machine's disk.",
              [on_machines("spool_oldest_seconds")]),
        Panel("Spooled and refused", "ops", "Into the spool; and not taken by it, by reason.",
              [Query(per_second("spooled", "channel").expr, "{{channel}} spooled"),
               Query(per_second("spool_refused", "reason", "").expr, "refused: {{reason}}")]),
    ]),
    Row("Refusals", [
        Panel("STARTs that opened nothing", "ops", "By reason: a person's caps, the channel's, or an opt-out.",
              [per_second("starts_refused", "channel, reason")], stacked=True),
        Panel("Answers that could not be read", "ops", "By step: a question that many misread should be worded anew.",
              [per_second("invalid_answers", "survey, step", "")], stacked=True),
        Panel("Events dropped", "ops", "From senders that are no number, or that are our own.",
              [per_second("dropped", "channel, reason")]),
        Panel("Copies", "ops", "Events that came again, and changed nothing.",
              [Query(f"sum (rate(parley_duplicates_total{_labels(_MACHINE)}[$__rate_interval]))", "copies")]),
    ]),
    Row("Dead letters", [
        Panel("Waiting", "short", "By reason. They never vanish by themselves.",
              [in_redis("dead_letters_waiting", "reason")], stacked=True),
        Panel("Put aside in an hour", "short", "By reason.", [in_all("dead_letters", "reason", "1h", "")]),
        Panel("Age of the oldest", "s", "Somebody waits for each.", [in_redis("dead_letters_oldest_seconds")]),
        Panel("Dramatiq's own", "short", "Parley puts nothing there.", [in_redis("dramatiq_dead_letters")]),
    ]),
    Row("Providers", [
        Panel("Attempts to send", "ops", "By outcome.",
              [per_second("sends", "channel, outcome")], stacked=True),
        Panel("Error codes", "ops", "Attempts that were not accepted, by the provider's code, HTTP status or exception.",
              [per_second("send_errors", "channel, code")]),
        Panel("Paused", "short", "1 while nothing is sent: by an operator, the account's fault, or the circuit.",
              [in_redis("channel_paused", "channel, by", _CHANNEL)]),
        Panel("Circuits opened in an hour", "short", "A provider that flaps opens it again and again.",
              [in_all("circuits_opened", "channel", "1h")]),
        Panel("SMS looked up", "ops", "SMS of unknown fate that a provider was asked about.",
              [per_second("lookups", "channel, outcome")]),
        Panel("Replies in the webhook's answer", "ops", "With Twilio's answer = twiml, by outcome.",
              [per_second("answers", "channel, outcome")]),
    ]),
    Row("Spend", [
        Panel("Segments in an hour", "short", "What is paid for: parts of accepted SMS, by our count.",
              [in_all("segments", "channel", "1h")]),
        Panel("SMS in an hour", "short", "SMS that the provider accepted.",
              [in_all("sends", "channel", "1h", _CHANNEL + ', outcome="accepted"')]),
        Panel("Segments an SMS", "short", "Above one: long texts, or a letter that GSM-7 has not.",
              [Query(f"sum by (channel) (increase(parley_segments_total{_labels(_MACHINE, _CHANNEL)}[1h])) / "
                     f"sum by (channel) (increase(parley_sends_total{_ACCEPTED}[1h]))", "{{channel}}")]),
        Panel("Credit left", "short", "What the provider last said, in its own unit.",
              [on_machines("credit", "channel", "min", _CHANNEL)]),
        Panel("The day's SMS used up", "short", "1 until midnight: no conversation opens.",
              [in_redis("sms_budget_exhausted", "channel", _CHANNEL)]),
    ]),
    Row("Processes and Redis", [
        Panel("Processes alive", "short", "By role, as they say of themselves every few seconds.",
              [in_redis("processes", "role")]),
        Panel("Endpoints", "short", "1 if Prometheus reaches it.",
              [Query(f"max by (instance) (up{_labels(_MACHINE)})", "{{instance}}")]),
        Panel("Redis memory", "bytes", "In use, and maxmemory if there is one. Full, it refuses writes.",
              [in_redis("redis_memory_bytes", "server, kind")]),
        Panel("Survey files refused", "short", "Files with errors; what ran of them runs on.",
              [on_machines("surveys_refused")]),
    ]),
]  # fmt: skip


def dashboard() -> dict[str, Any]:
    """What Grafana imports."""
    return {
        "id": None,
        "uid": "parley-operators",
        "title": "Parley",
        "description": "Two-way SMS conversations. What to do about what you see: config/prometheus/RUNBOOK.md.",
        "tags": ["parley", "sms"],
        "schemaVersion": SCHEMA,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "timezone": "browser",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": _variables()},
        "panels": _panels(),
    }


def _variables() -> list[dict[str, Any]]:
    source = {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"}
    return [
        source,
        _variable("job", "Deployment", 'label_values(up{job=~"parley.*"}, job)', several=False),
        _variable("instance", "Endpoint", f"label_values(up{_labels(_DEPLOYMENT)}, instance)"),
        _variable(
            "channel", "Channel", f"label_values(parley_webhooks_total{_labels(_DEPLOYMENT)}, channel)"
        ),
    ]


def _variable(name: str, label: str, query: str, *, several: bool = True) -> dict[str, Any]:
    """One that Prometheus knows the values of. `several` may be chosen at once, and all are at first."""
    every = {
        "includeAll": True,
        "multi": True,
        "allValue": ".*",
        "current": {"text": ["All"], "value": ["$__all"]},
    }
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": _SOURCE,
        "definition": query,
        "query": {"query": query, "refId": "StandardVariableQuery"},
        "refresh": 2,
        "sort": 1,
        **(every if several else {}),
    }


def _panels() -> list[dict[str, Any]]:
    panels: list[dict[str, Any]] = []
    top = 0
    width = WIDE // PER_LINE
    for row in ROWS:
        place = {"x": 0, "y": top, "w": WIDE, "h": 1}
        panels.append(
            {
                "id": len(panels) + 1,
                "type": "row",
                "title": row.title,
                "gridPos": place,
                "collapsed": False,
                "panels": [],
            }
        )
        top += 1
        for number, panel in enumerate(row.panels):
            line, column = divmod(number, PER_LINE)
            place = {"x": column * width, "y": top + line * HIGH, "w": width, "h": HIGH}
            panels.append({"id": len(panels) + 1, **_panel(panel), "gridPos": place})
        top += -(-len(row.panels) // PER_LINE) * HIGH
    return panels


def _panel(panel: Panel) -> dict[str, Any]:
    looks: dict[str, Any] = {"unit": panel.unit, "min": 0}
    options: dict[str, Any] = {
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "textMode": "value_and_name",
    }
    if panel.kind == "timeseries":
        looks["custom"] = {"fillOpacity": 10, "showPoints": "never"}
        if panel.stacked:
            looks["custom"] |= {"fillOpacity": 40, "stacking": {"mode": "normal"}}
        calcs = ["lastNotNull", "max"]
        options = {
            "legend": {"showLegend": True, "displayMode": "table", "placement": "bottom", "calcs": calcs},
            "tooltip": {"mode": "multi", "sort": "desc"},
        }
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.means,
        "datasource": _SOURCE,
        "fieldConfig": {"defaults": looks, "overrides": []},
        "options": options,
        "targets": [
            {
                "refId": chr(ord("A") + place),
                "datasource": _SOURCE,
                "expr": query.expr,
                "legendFormat": query.legend,
            }
            for place, query in enumerate(panel.queries)
        ],
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(dashboard(), indent=2) + "\n")
