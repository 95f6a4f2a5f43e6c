"""A campaign in the console is what the API tells of it; and that it tells nothing is said."""

import re

import pytest

from config.archive.session_results import CostTotal
from tests.console.visitor import sign_in, text_of
from tests.support.clinic import number
from tests.support.inviting import Api
from tests.support.waiting import HANG_S, until
from workers.console.inviting.budget_view import BudgetView, CampaignBudget
from workers.console.inviting.campaign_budget import CampaignSpending
from workers.console.kept_readings import KeptReading
from workers.console.pages.campaigns_page import STATES, shown_campaign
from workers.console.sign_in.console_sessions import ConsoleUser
from workers.console.templates import PageTemplates

pytestmark = [pytest.mark.processes, pytest.mark.console]

NAME = 'spring "26" <b>/x'


def test_its_numbers_are_those_of_the_api(inviting):
    viewer = sign_in(inviting, "vera", "viewer")
    assert "No invitation names a campaign yet" in text_of(viewer.get("/campaigns"))
    results = Api(inviting.base).invite_all(
        {"identifier": number(person), "clientReference": f"{person}", "campaign": NAME}
        for person in range(3)
    )
    assert {each["status"] for each in results} == {202}
    until(lambda: "spring" in viewer.get("/campaigns").text, HANG_S, "it is listed")
    page = viewer.get("/campaigns").text
    assert "spring &#34;26&#34; &lt;b&gt;/x" in page
    (address,) = {
        part.partition('"')[0] for part in page.split('href="')[1:] if part.startswith("/campaigns/")
    }
    shown = text_of(viewer.get(address))
    assert "Invitations 3" in shown
    assert "Waits for its turn 3" in shown
    assert viewer.post(address, deed="pause", why="x").status_code == 403
    operator = sign_in(inviting, "ada", "operator")
    assert operator.post(address, deed="pause", why="the text is wrong").status_code == 303
    assert "ada: the text is wrong" in text_of(viewer.get(address))
    assert operator.post(address, deed="resume").status_code == 303
    assert "the text is wrong" not in viewer.get(address).text


def test_a_campaign_that_nobody_knows_is_not_there(inviting):
    assert sign_in(inviting, "vera", "viewer").get("/campaigns/nowhere").status_code == 404


def test_a_web_that_is_away_and_a_key_that_it_does_not_take_are_said(console, inviting):
    assert "does not answer" in text_of(sign_in(console, "vera", "viewer").get("/campaigns"))
    inviting.of("console")[0].kill9()
    inviting.of("console")[0].wait_dead()
    stranger = inviting.spawn("console", PARLEY_API_KEY="another")
    until(lambda: b"running" in stranger.log.read_bytes(), HANG_S, "it runs")
    assert "does not take the console's key" in text_of(sign_in(inviting, "vera", "viewer").get("/campaigns"))


def test_what_providers_told_is_one_sum_of_each_currency():
    spent = [CostTotal(*each) for each in (("EUR", 1, 1, 1, 1, 1_500_000), ("", 1, 1, 1, 1, 0))]
    spent += [CostTotal("USD", 1, 1, 1, 1, 7_000_000), CostTotal("EUR", 1, 1, 1, 1, 750_000)]
    told = {"name": "winter", "channel": "clinic", "survey": "clinic", "states": {}, "parts": []}
    page = PageTemplates(()).render(
        "campaign.html",
        {
            "user": ConsoleUser("vera", ("viewer",)),
            "path": "/campaigns/winter",
            "problem": "",
            "name": "winter",
            "campaign": shown_campaign(told),
            "states": STATES,
            "spending": KeptReading(1, CampaignSpending(spent, 0)),
            "budget": BudgetView(CampaignBudget(), 4, 0),
        },
    )
    shown = " ".join(re.sub("<[^>]*>", "", page).split())
    assert "4 segments; 2.25 EUR told by providers; 7 USD told by providers" in shown.replace("7.0 ", "7 ")
