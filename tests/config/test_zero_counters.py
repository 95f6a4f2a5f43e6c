"""Every counter whose labels are known beforehand is at 0 before it counts, so that its first event is an increase."""

import re
from typing import get_args

import msgspec
import pytest
import requests
from prometheus_client import Counter

from config.settings.hooks import Hook
from config.settings.settings import load_settings
from config.telemetry import metrics, zero_counters
from config.telemetry.process_registry import ROLES
from engine.hooks.event_filter import EventFilter
from ingest.api.backlog import InvitationOutcome
from ingest.connections import RefusalCause
from ingest.intake.mailboxes import ACCEPT_OUTCOMES
from ingest.intake.spool import SpoolRefusal
from tests.support import clinic
from tests.support.person import inbound
from tests.support.processes import ROOT, Deployment
from tests.support.waiting import until

OPEN = {metrics.SEND_ERRORS, metrics.INVALID_ANSWERS}
"""Counters with labels that nobody can list beforehand."""

SERIES = re.compile(r"^(parley_\w+_total)(?:\{(.*)\})? (\S+)$", re.MULTILINE)


def counters(deployment):
    """Every series of a counter, and its value."""
    text = requests.get(f"{deployment.base}/metrics", timeout=30).text
    return {(name, labels): float(value) for name, labels, value in SERIES.findall(text)}


def test_every_counter_with_labels_begins_at_zero_or_says_why_not():
    counted = {counter for role in ROLES for counter, _ in zero_counters._COUNTED_BY[role](with_everything())}
    labelled = {each for each in vars(metrics).values() if isinstance(each, Counter) and each._labelnames}
    assert labelled - OPEN == counted


def with_everything():
    """A configuration with a spool and a hook."""
    settings = load_settings({"PARLEY_CONFIG": str(ROOT / "config" / "parley.toml")})
    hooks = {"crm": Hook("crm", "https://crm.example.org/", (), EventFilter())}
    return msgspec.structs.replace(settings, spool=ROOT, hooks=hooks)


def test_the_words_are_those_of_the_code():
    assert set(ACCEPT_OUTCOMES) <= set(zero_counters.WEBHOOK_OUTCOMES)
    assert set(get_args(InvitationOutcome)) <= set(zero_counters.INVITATION_OUTCOMES)
    assert set(get_args(SpoolRefusal)) == set(zero_counters.SPOOL_REFUSALS)
    assert set(get_args(RefusalCause)) == set(zero_counters.CONNECTION_REFUSALS)


@pytest.fixture
def parley(own_valkey, octopush, tmp_path):
    counts = {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "metrics")}
    with Deployment(own_valkey.url, own_valkey.broker_url, octopush, environment=counts) as deployment:
        yield deployment.start()


def test_what_is_counted_was_at_zero_before(parley, octopush):
    """All but what nobody can list: a whole conversation, a stranger, a STOP and a misread answer."""
    before = counters(parley)
    assert set(before.values()) == {0.0}
    assert ("parley_sessions_ended_total", 'channel="clinic",how="stopped",survey="clinic"') in before
    ann, ben = clinic.number(1), clinic.number(2)

    def says(number, *texts):
        for text in texts:
            requests.post(parley.webhook, data=inbound(number, text), timeout=10)

    says(ann, "START", "Ada", "rather warm", "85")
    says(ben, "START")
    until(lambda: octopush.accepted(ben), 30, "he is asked")
    says(ben, "STOP")
    says("clinic", "hello")
    requests.post(parley.webhook.replace("token=", "token=x"), data=b"{}", timeout=10)
    until(lambda: len(octopush.accepted(ann)) == 4 and len(octopush.accepted(ben)) == 2, 30, "all is said")

    def counted():
        return {series for series, value in counters(parley).items() if value}

    until(lambda: any(name == "parley_sends_total" for name, _ in counted()), 10, "all is counted")
    unlisted = {each._name + "_total" for each in OPEN}
    assert {series for series in counted() if series[0] not in unlisted} <= set(before)
