"""The Grafana dashboard, as a table: rows of panels, each with what it asks Prometheus.

Grafana imports parley.json, which this prints, so change it here:

    python -m config.grafana.dashboard > config/grafana/parley.json

Counters and histograms are each machine's own, and are summed over instances; gauges that every endpoint reads from
Redis are the same everywhere, so the greatest is taken. The arrangement is left to right, PANELS_PER_LINE panels a line.
"""

import json
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

DASHBOARD_WIDTH = 24
PANEL_HEIGHT = 8
PANELS_PER_LINE = 3
GRAFANA_SCHEMA_VERSION = 39
"""Grafana 11's; later ones migrate it by themselves."""

MEDIAN_AND_P99 = ((0.5, "p50"), (0.99, "p99"))

_DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
_DEPLOYMENT = 'job=~"$job"'
_MACHINE = 'job=~"$job", instance=~"$instance"'
_CHANNEL = 'channel=~"$channel"'


class PromQuery(NamedTuple):
    expr: str
    legend: str


class Panel(NamedTuple):
    """`unit` is Grafana's name of it; `kind` its name of the picture; `stacked` where the parts make up a whole."""

    title: str
    unit: str
    means: str
    queries: Sequence[PromQuery]
    kind: str = "timeseries"
    stacked: bool = False


class PanelRow(NamedTuple):
    title: str
    panels: Sequence[Panel]


def _label_matchers(*parts: str) -> str:
    return "{" + ", ".join(part for part in parts if part) + "}"


def rate_by(counter: str, by: str, where: str = _CHANNEL) -> PromQuery:
    """How often a second, by these labels."""
    selector = f"parley_{counter}_total{_label_matchers(_MACHINE, where)}"
    return PromQuery(f"sum by ({by}) (rate({selector}[$__rate_interval]))", _legend_template(by))


def _rate_of_all(counter: str, legend: str) -> PromQuery:
    """How often a second, of a counter without labels."""
    selector = f"parley_{counter}_total{_label_matchers(_MACHINE)}"
    return PromQuery(f"sum (rate({selector}[$__rate_interval]))", legend)


def increase_by(counter: str, by: str, span: str, where: str = _CHANNEL) -> PromQuery:
    """How many in the last `span`, by these labels."""
    selector = f"parley_{counter}_total{_label_matchers(_MACHINE, where)}"
    return PromQuery(f"sum by ({by}) (increase({selector}[{span}]))", _legend_template(by))


def latency_quantiles(
    histogram: str, by: str = "", where: str = "", shares: Sequence[tuple[float, str]] = MEDIAN_AND_P99
) -> list[PromQuery]:
    """What these shares of all do not exceed: the median and all but one in a hundred, unless others are given."""
    selector = f"parley_{histogram}_seconds_bucket{_label_matchers(_MACHINE, where)}"
    labels = f"{by}, le" if by else "le"
    return [
        PromQuery(
            f"histogram_quantile({share}, sum by ({labels}) (rate({selector}[$__rate_interval])))",
            f"{name} {_legend_template(by)}".strip(),
        )
        for share, name in shares
    ]


def redis_gauge(gauge: str, by: str = "", where: str = "") -> PromQuery:
    """What every endpoint reads from Redis alike."""
    labels = f" by ({by})" if by else ""
    return PromQuery(
        f"max{labels} (parley_{gauge}{_label_matchers(_DEPLOYMENT, where)})", _legend_template(by) or "now"
    )


def machine_gauge(gauge: str, by: str = "instance", how: str = "max", where: str = "") -> PromQuery:
    """What each machine knows for itself."""
    return PromQuery(
        f"{how} by ({by}) (parley_{gauge}{_label_matchers(_MACHINE, where)})", _legend_template(by)
    )


def _legend_template(by: str) -> str:
    return " ".join(f"{{{{{label.strip()}}}}}" for label in by.split(",") if label)


_FIRING = _label_matchers(_DEPLOYMENT, 'alertstate="firing"')
_ACCEPTED = _label_matchers(_MACHINE, _CHANNEL, 'outcome="accepted"')

DASHBOARD_ROWS = [
    PanelRow("At a glance", [
        Panel("Alerts that fire", "short", "Each has a paragraph in config/prometheus/RUNBOOK.md.",
              [PromQuery(f"count(ALERTS{_FIRING}) or vector(0)", "alerts")], "stat"),
        Panel("Dead letters", "short", "Events and SMS that a person must look at: parley dead list.",
              [PromQuery("sum(max by (reason) (parley_dead_letters_waiting"
                         f"{_label_matchers(_DEPLOYMENT)})) or vector(0)", "letters")],
              "stat"),
        Panel("Longest wait for a worker", "s", "How long the first in the slowest queue has been waiting.",
              [redis_gauge("queue_oldest_seconds")], "stat"),
        Panel("Processes", "short", "Processes that have been heard of lately, by role. 0 is an alert.",
              [redis_gauge("processes", "role")], "stat"),
        Panel("Redis answers", "short",
              "1 if the server answers. `lanes` holds everything; `broker` only wake-ups.",
              [redis_gauge("redis_up", "server")], "stat"),
        Panel("SMS in the last 24 hours", "short", "SMS that providers have accepted.",
              [increase_by("sends", "channel", "24h", _CHANNEL + ', outcome="accepted"')], "stat"),
    ]),
    PanelRow("Flow", [
        Panel("Webhooks answered", "reqps",
              "By outcome. `unavailable` was a 503, `forbidden` bore a wrong secret.",
              [rate_by("webhooks", "channel, outcome")], stacked=True),
        Panel("Events accepted", "ops",
              "Events put into mailboxes, by kind: SMS, receipts, STOPs told by providers.",
              [rate_by("inbound", "channel, kind")], stacked=True),
        Panel("Turns", "ops",
              "Lanes advanced. A stale turn came after its lease, changed nothing, and was done again.",
              [rate_by("turns", "queue, outcome", "")], stacked=True),
        Panel("SMS decided, and accepted by the provider", "ops",
              "The two run together, but for STOPs and pauses.",
              [PromQuery(rate_by("sms_decided", "channel").expr, "{{channel}} decided"),
               PromQuery(f"sum by (channel) (rate(parley_sends_total{_ACCEPTED}[$__rate_interval]))",
                         "{{channel}} accepted")]),
        Panel("Sessions opened", "ops", "By survey.",
              [rate_by("sessions_opened", "channel, survey")], stacked=True),
        Panel("Sessions ended", "ops", "By how: completed, idle, expired, gave_up, stopped ...",
              [rate_by("sessions_ended", "survey, how")], stacked=True),
        Panel("Receipts", "ops", "What providers told of SMS later, by state.",
              [rate_by("receipts", "channel, state")], stacked=True),
        Panel("Invitations posted", "ops", "By outcome: accepted, or why not.",
              [rate_by("invitations", "channel, outcome")], stacked=True),
        Panel("Invitations let go", "ops", "Invitations whose turn came: they yield to replies.",
              [rate_by("invitations_released", "channel, outcome")], stacked=True),
    ]),
    PanelRow("Latency, stage by stage", [
        Panel("Webhook to provider, as one", "s",
              "From a webhook's acceptance until the provider has the first reply.",
              latency_quantiles("reply", "channel", _CHANNEL)),
        Panel("Webhook to mailbox", "s", "Until an event is on disk and the provider is answered.",
              latency_quantiles("webhook")),
        Panel("Accepted to claimed", "s",
              "What an event waits for a worker. Long: more workers of that queue.",
              latency_quantiles("claim", "queue")),
        Panel("Claim to commit", "s", "One turn of a batch of lanes. A lease is 5 s.",
              latency_quantiles("turn", "queue")),
        Panel("Decided to sent", "s", "What an SMS waits in its outbox, pauses between two SMS included.",
              latency_quantiles("outbox", "channel", _CHANNEL)),
        Panel("One request to the provider", "s", "Without an answer for 6 s, its fate is unknown.",
              latency_quantiles("send", "channel", _CHANNEL)),
    ]),
    PanelRow("Backlog", [
        Panel("Senders who wait for a worker", "short", "Depth of the queues of wake-ups.",
              [redis_gauge("queue_depth", "queue")]),
        Panel("The first has been waiting", "s", "Oldest wake-up of each queue.",
              [redis_gauge("queue_oldest_seconds", "queue")]),
        Panel("Alarms", "short",
              "Lanes and outboxes that wait for a worker or a moment: open work, not a fault.",
              [redis_gauge("alarms", "kind")]),
        Panel("Alarms due", "short", "Due, and not yet rung by a clock.",
              [redis_gauge("alarms_due", "kind")]),
        Panel("Alarms late", "s", "How long the first has been due. Above a few seconds, no clock is alive.",
              [redis_gauge("alarms_late_seconds", "kind")]),
        Panel("Lanes locked", "short",
              "Held by a worker now; or abandoned by one that never came back, until taken up.",
              [redis_gauge("lanes_locked", "state")]),
        Panel("Alarms rung by the clock", "ops",
              "Deadlines, retries, rests between SMS, and wake-ups that were lost.",
              [rate_by("wakeups", "queue", "")]),
        Panel("Wake-ups that failed, leases that were lost", "ops",
              "The broker's Redis fails; a worker died or froze; another tests itself, to take over.",
              [PromQuery(rate_by("rings_failed", "queue", "").expr, "{{queue}} not rung"),
               PromQuery(rate_by("leases_lost", "queue", "").expr, "{{queue}} lease lost"),
               PromQuery(rate_by("self_tests", "outcome", "").expr, "self-test {{outcome}}")]),
        Panel("Invitations that wait", "short",
              "For their pace, the end of quiet hours, the day's SMS, or a moment that is near.",
              [redis_gauge("invitations_held", "channel", _CHANNEL)]),
        Panel("Spool", "short", "Events on a machine's disk, acknowledged while Redis was away.",
              [machine_gauge("spool_events")]),
        Panel("Spool in bytes", "bytes", "Against PARLEY_SPOOL_MB of that machine.",
              [PromQuery(machine_gauge("spool_bytes").expr, "{{instance}}"),
               PromQuery(machine_gauge("spool_limit_bytes").expr, "{{instance}} limit")]),
        Panel("Age of the spool", "s", "The oldest event on a machine's disk.",
              [machine_gauge("spool_oldest_seconds")]),
        Panel("Spooled and refused", "ops", "Into the spool; and not taken by it, by reason.",
              [PromQuery(rate_by("spooled", "channel").expr, "{{channel}} spooled"),
               PromQuery(rate_by("spool_refused", "reason", "").expr, "refused: {{reason}}")]),
    ]),
    PanelRow("Refusals", [
        Panel("Connections ended", "ops",
              "By what was wrong: too slow, too large, or one too many. Many: strangers try `web`.",
              [rate_by("connections_refused", "reason", "")], stacked=True),
        Panel("STARTs that opened nothing", "ops",
              "By reason: a person's caps, the channel's, or an opt-out.",
              [rate_by("starts_refused", "channel, reason")], stacked=True),
        Panel("Answers that could not be read", "ops",
              "By step: a question that many misread should be worded anew.",
              [rate_by("invalid_answers", "survey, step", "")], stacked=True),
        Panel("Events dropped", "ops", "From senders that are no number, or that are our own.",
              [rate_by("dropped", "channel, reason")]),
        Panel("Copies", "ops", "Events that came again, and changed nothing.",
              [_rate_of_all("duplicates", "copies")]),
    ]),
    PanelRow("Dead letters", [
        Panel("Waiting", "short", "By reason. They never vanish by themselves.",
              [redis_gauge("dead_letters_waiting", "reason")], stacked=True),
        Panel("Put aside in an hour", "short", "By reason.",
              [increase_by("dead_letters", "reason", "1h", "")]),
        Panel("Age of the oldest", "s", "Somebody waits for each.",
              [redis_gauge("dead_letters_oldest_seconds")]),
        Panel("Dramatiq's own", "short", "Parley puts nothing there.",
              [redis_gauge("dramatiq_dead_letters")]),
    ]),
    PanelRow("Archive", [
        Panel("Archive behind", "s", "Age of the oldest entry in Redis that the archive does not have.",
              [redis_gauge("archive_lag_seconds")]),
        Panel("Entries that wait", "short",
              "What the archive does not have, at the most: once one was seen, it stays in Redis.",
              [PromQuery(redis_gauge("archive_waiting_entries").expr, "waiting"),
               PromQuery(redis_gauge("archive_seen").expr, "1: an archive was seen")]),
        Panel("Entries archived", "ops", "Entries of the event stream moved into the archive.",
              [_rate_of_all("archived_entries", "archived")]),
        Panel("Archive errors", "ops", "By what is in the way; it is tried again and again.",
              [rate_by("archive_errors", "reason", "")]),
        Panel("Held and unreadable", "short",
              "Shards of an archive that is ahead of Redis; entries in an hour that cannot be read.",
              [PromQuery(machine_gauge("archive_held_shards").expr, "{{instance}} shards held"),
               PromQuery("sum (increase(parley_archive_unreadable_entries_total"
                         f"{_label_matchers(_MACHINE)}[1h]))", "unreadable")]),
        Panel("In the archive until", "dateTimeAsIso", "All that happened until then can be in results.",
              [PromQuery("1000 * min (parley_archive_read_until_seconds"
                         f"{_label_matchers(_MACHINE)})", "until")], "stat"),
    ]),
    PanelRow("Hooks", [
        Panel("Hooks behind", "s", "Age of the oldest entry in Redis that an endpoint has not got.",
              [redis_gauge("hook_lag_seconds", "hook")]),
        Panel("Requests to endpoints", "reqps",
              "By outcome: refused was a no for good (4xx), failed is tried again.",
              [rate_by("hook_requests", "hook, outcome", "")], stacked=True),
        Panel("Requests to the console", "reqps", "By what became of them.",
              [rate_by("console_requests", "outcome", "")], stacked=True),
        Panel("One request to an endpoint", "s", "Until its status is there, or none comes.",
              latency_quantiles("hook", "hook", shares=((0.5, "p50"), (0.95, "p95")))),
        Panel("Endpoints paused", "short",
              "1 while one is told nothing by an operator's word, or only tried, as it fails (circuit).",
              [redis_gauge("hook_paused", "hook, by")]),
        Panel("Endpoints held", "short", "1 if a process has it, as is its share; 0: nobody tells it.",
              [redis_gauge("hook_held", "hook")]),
        Panel("Endpoints that failed too often, in an hour", "short",
              "Times that their circuits opened: one that flaps opens it again and again.",
              [increase_by("hook_circuits_opened", "hook", "1h", "")]),
        Panel("Events told", "ops", "Events that endpoints took, a second.",
              [rate_by("hook_events", "hook", 'outcome="delivered"')], stacked=True),
        Panel("Events refused, or not to be read, in an hour", "short",
              "Each refused one is a dead letter; of a record that is not read nobody is told.",
              [PromQuery(increase_by("hook_events", "hook", "1h", 'outcome="refused"').expr,
                         "{{hook}} refused"),
               PromQuery("sum (increase(parley_hook_unreadable_records_total"
                         f"{_label_matchers(_MACHINE)}[1h]))", "unreadable")]),
    ]),
    PanelRow("Providers", [
        Panel("Attempts to send", "ops", "By outcome.",
              [rate_by("sends", "channel, outcome")], stacked=True),
        Panel("Error codes", "ops",
              "Attempts that were not accepted, by the provider's code, HTTP status or exception.",
              [rate_by("send_errors", "channel, code")]),
        Panel("Paused", "short",
              "1 while nothing is sent: by an operator, the account's fault, or the circuit.",
              [redis_gauge("channel_paused", "channel, by", _CHANNEL)]),
        Panel("Circuits opened in an hour", "short", "A provider that flaps opens it again and again.",
              [increase_by("circuits_opened", "channel", "1h")]),
        Panel("SMS looked up", "ops", "SMS of unknown fate that a provider was asked about.",
              [rate_by("lookups", "channel, outcome")]),
        Panel("Replies in the webhook's answer", "ops", "With Twilio's answer = twiml, by outcome.",
              [rate_by("answers", "channel, outcome")]),
    ]),
    PanelRow("Spend", [
        Panel("Segments in an hour", "short", "What is paid for: parts of accepted SMS, by our count.",
              [increase_by("segments", "channel", "1h")]),
        Panel("SMS in an hour", "short", "SMS that the provider accepted.",
              [increase_by("sends", "channel", "1h", _CHANNEL + ', outcome="accepted"')]),
        Panel("Segments an SMS", "short", "Above one: long texts, or a letter that GSM-7 has not.",
              [PromQuery("sum by (channel) (increase(parley_segments_total"
                         f"{_label_matchers(_MACHINE, _CHANNEL)}[1h])) / "
                     f"sum by (channel) (increase(parley_sends_total{_ACCEPTED}[1h]))", "{{channel}}")]),
        Panel("Credit left", "short", "What the provider last said, in its own unit.",
              [machine_gauge("credit", "channel", "min", _CHANNEL)]),
        Panel("The day's SMS used up", "short", "1 until midnight: no conversation opens.",
              [redis_gauge("sms_budget_exhausted", "channel", _CHANNEL)]),
    ]),
    PanelRow("Processes and Redis", [
        Panel("Processes alive", "short", "By role, as they say of themselves every few seconds.",
              [redis_gauge("processes", "role")]),
        Panel("Processes silent", "short", "They hang, or were killed in the last 15 minutes. By role.",
              [redis_gauge("processes_silent", "role")]),
        Panel("Endpoints", "short", "1 if Prometheus reaches it.",
              [PromQuery(f"max by (instance) (up{_label_matchers(_MACHINE)})", "{{instance}}")]),
        Panel("Redis memory", "bytes", "In use, and maxmemory if there is one. Full, it refuses writes.",
              [redis_gauge("redis_memory_bytes", "server, kind")]),
        Panel("Redis replicas", "short",
              "Those that follow the lanes' server. With fewer than wanted, nothing is acknowledged or sent.",
              [redis_gauge("redis_replicas", "kind")]),
        Panel("Slots without a server", "short", "Of the lanes' cluster; what lies there waits.",
              [redis_gauge("redis_slots_uncovered")]),
        Panel("Survey files refused", "short", "Files with errors; what ran of them runs on.",
              [machine_gauge("surveys_refused")]),
        Panel("Clock ahead of Redis", "s", "Of each machine; from 30 s on no deadline fires there.",
              [machine_gauge("clock_difference_seconds")]),
    ]),
]  # fmt: skip


def build_dashboard() -> dict[str, Any]:
    """What Grafana imports."""
    return {
        "id": None,
        "uid": "parley-operators",
        "title": "Parley",
        "description": "Two-way SMS conversations. "
        "What to do about what you see: config/prometheus/RUNBOOK.md.",
        "tags": ["parley", "sms"],
        "schemaVersion": GRAFANA_SCHEMA_VERSION,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "timezone": "browser",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": _template_variables()},
        "panels": _layout_panels(),
    }


def _template_variables() -> list[dict[str, Any]]:
    source = {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"}
    return [
        source,
        _template_variable("job", "Deployment", 'label_values(up{job=~"parley.*"}, job)', several=False),
        _template_variable(
            "instance", "Endpoint", f"label_values(up{_label_matchers(_DEPLOYMENT)}, instance)"
        ),
        _template_variable(
            "channel",
            "Channel",
            f"label_values(parley_webhooks_total{_label_matchers(_DEPLOYMENT)}, channel)",
        ),
    ]


def _template_variable(name: str, label: str, query: str, *, several: bool = True) -> dict[str, Any]:
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
        "datasource": _DATASOURCE,
        "definition": query,
        "query": {"query": query, "refId": "StandardVariableQuery"},
        "refresh": 2,
        "sort": 1,
        **(every if several else {}),
    }


def _layout_panels() -> list[dict[str, Any]]:
    panels: list[dict[str, Any]] = []
    top = 0
    width = DASHBOARD_WIDTH // PANELS_PER_LINE
    for row in DASHBOARD_ROWS:
        place = {"x": 0, "y": top, "w": DASHBOARD_WIDTH, "h": 1}
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
            line, column = divmod(number, PANELS_PER_LINE)
            place = {"x": column * width, "y": top + line * PANEL_HEIGHT, "w": width, "h": PANEL_HEIGHT}
            panels.append({"id": len(panels) + 1, **_panel_json(panel), "gridPos": place})
        top += -(-len(row.panels) // PANELS_PER_LINE) * PANEL_HEIGHT
    return panels


def _panel_json(panel: Panel) -> dict[str, Any]:
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
        "datasource": _DATASOURCE,
        "fieldConfig": {"defaults": looks, "overrides": []},
        "options": options,
        "targets": [
            {
                "refId": chr(ord("A") + place),
                "datasource": _DATASOURCE,
                "expr": query.expr,
                "legendFormat": query.legend,
            }
            for place, query in enumerate(panel.queries)
        ],
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(build_dashboard(), indent=2) + "\n")
