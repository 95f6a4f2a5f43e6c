"""Lanes behind a console, turned by the test itself: what people say is said at once, and what fails, fails."""

from config.settings.shard_count import settle_shards
from config.settings.startup_check import load_settings_and_surveys
from tests.console.visitor import Visitor
from tests.support.processes import Deployment as Processes
from tests.support.waiting import HANG_S, until
from tests.workers.conftest import Pipeline
from workers.store import survey_versions
from workers.store.deployment import Deployment


def open_town(console: Processes, valkey) -> Pipeline:
    settings, surveys = load_settings_and_surveys(console.environment)
    client = valkey.client()
    settings = settle_shards(client, settings)
    survey_versions.publish_current(client, surveys)
    return Pipeline(Deployment(settings, client, valkey.client(valkey.broker_url), surveys))


def address_of(visitor: Visitor, wanted: str) -> str:
    """The page of whom this names."""
    found = visitor.post("/people", wanted=wanted)
    assert found.status_code == 303, found.text
    return found.headers["Location"]


def finished(visitor: Visitor, told) -> str:
    """The page of what a form has begun, once it is over."""
    assert told.status_code == 303, told.text
    job = told.headers["Location"]
    assert job.startswith("/jobs/")
    until(lambda: visitor.get(f"{job}/live").status_code == 286, HANG_S, "it is over")
    return visitor.get(job).text
