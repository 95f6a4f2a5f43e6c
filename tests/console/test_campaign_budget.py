"""What a campaign costs at most is no less than it does cost, whatever the archive has of it by now; and a budget is kept to."""

from decimal import Decimal

import msgspec
import pytest

from config.invitations.invitation_cost import SurveyCosts
from config.settings.settings import Secret
from engine.model.events import Answer, Invitation
from engine.surveys.survey_reader import read_survey
from engine.surveys.survey_registry import SurveyRegistry
from tests.console.lanes_of_test import open_town
from tests.console.surveyed import CLINIC
from tests.support.archive_writer import ArchiveWriter
from workers.console.inviting.budget_view import BudgetView, CampaignBudget
from workers.console.inviting.campaign_budget import SpendingReader

pytestmark = [pytest.mark.processes, pytest.mark.console]

NAME = [("name", Answer("Ada", "Ada"), "text")]


@pytest.fixture
def survey():
    found, _ = read_survey("clinic.yaml", CLINIC.encode())
    return found


@pytest.fixture
def without_archive(console, valkey, survey):
    return msgspec.structs.replace(open_town(console, valkey).world, surveys=SurveyRegistry([survey]))


@pytest.fixture
def reader(tmp_path, survey, without_archive):
    """Before an archive in which two sessions of the campaign are over, one is open, and one is of another."""
    url = f"sqlite:///{tmp_path / 'archive.db'}"
    with ArchiveWriter(url) as archive:
        archive.keep_survey(survey)
        for number, (how, campaign) in enumerate(
            [("completed", "winter"), ("idle", "winter"), ("", "winter"), ("completed", "spring")]
        ):
            invitation = Invitation(f"{number}", "clinic", "clinic", campaign=campaign)
            archive.add_session(NAME, version=survey.version, how=how, invitation=invitation)
    settings = msgspec.structs.replace(without_archive.settings, archive_url=Secret(url))
    return SpendingReader(msgspec.structs.replace(without_archive, settings=settings))


def told(**states):
    return {"parts": [{"channel": "clinic", "survey": "clinic", "states": states}]}


def test_what_the_archive_does_not_have_yet_is_counted_in_full(reader, survey):
    each = SurveyCosts(survey).dearest_session
    found = reader.read("winter", told(held=4, open=1, completed=1, idle=1, refused=3))
    assert found.spent_segments == 6, "two SMS of each of its own three"
    assert found.ahead == 5 * each
    behind = reader.read("winter", told(held=4, open=1, completed=2, idle=1, refused=3))
    assert behind.ahead == 6 * each, "one is over that the archive has not"
    assert reader.read("winter", None).ahead == 0


def test_without_an_archive_all_are_counted_in_full(without_archive, survey):
    found = SpendingReader(without_archive).read("winter", told(held=4, open=1, completed=2, refused=3))
    assert found.ahead == 7 * SurveyCosts(survey).dearest_session
    assert found.unread


def test_a_survey_that_nothing_bounds_is_within_no_budget(reader):
    states = told(held=1)
    states["parts"][0]["survey"] = "gone"
    found = reader.read("winter", states)
    view = BudgetView(CampaignBudget(budget="1000000"), 0, found.ahead, 1)
    assert (found.ahead, view.is_exceeded) == (None, True)
    assert "cannot be kept within its budget of 1,000,000 segments" in view.sentence


@pytest.mark.parametrize(
    "budget, is_exceeded", [("1.49", True), ("1.5", False), ("1.50", False), ("", False)]
)
def test_money_is_counted_exactly(budget, is_exceeded):
    view = BudgetView(CampaignBudget("0.1", budget), 3, 5, 7)
    assert view.most == 15
    assert view.is_exceeded == is_exceeded
    assert view.worded(3) == "3 segments (0.3 at 0.1 each)"
    assert msgspec.structs.replace(view, terms=CampaignBudget()).worded(1) == "1 segment"
    assert Decimal(view.terms.price) * 3 == Decimal("0.3"), "which no float says"
