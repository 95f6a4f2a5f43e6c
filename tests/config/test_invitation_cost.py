"""What invitations cost at most is never less than what a session does cost."""

import pytest

from config.invitations.invitation_cost import InvitationWording, SurveyCosts
from engine import proofs
from engine.model.segments import count_segments
from engine.surveys.survey_reader import read_survey
from engine.surveys.texts import prepend_content

SURVEY = """survey: asked
start: [START]
languages: [en, no]
steps:
  - id: pain
    ask:
      en: How much pain?
      no: >-
        Hvor vondt gjør det, på en skala fra null til ti, der null er slett ikke vondt og ti er så vondt som det noen
        gang har gjort i livet, så vidt du kan huske det nå, i dag, her?
    answer: {type: scale, from: 0, to: 10}
  - id: bye
    say: {en: Get well soon., no: God bedring.}
"""


@pytest.fixture(scope="module")
def survey():
    survey, _ = read_survey("asked.yaml", SURVEY.encode())
    return survey


def test_each_language_has_its_own_bound_and_one_that_nobody_knows_the_dearest(survey):
    bounds = proofs.survey_bounds(survey).segments
    assert bounds["no"].most > bounds["en"].most
    costs = SurveyCosts(survey)
    for language, most in (("", bounds["en"].most), ("no", bounds["no"].most), ("no-NO", bounds["no"].most)):
        found = costs.cost_of({InvitationWording(language, ""): 7})
        assert (found.people, found.segments) == (7, 7 * most)
    mixed = costs.cost_of({InvitationWording("en", ""): 2, InvitationWording("no", ""): 3})
    assert mixed.segments == 2 * bounds["en"].most + 3 * bounds["no"].most
    assert costs.dearest_session == bounds["no"].most


@pytest.mark.parametrize("content", ["Hello Ada,", "x" * 612, "Привет, Ада" * 20, "😀" * 612])
def test_what_opens_the_first_sms_is_counted(survey, content):
    without = SurveyCosts(survey).cost_of({InvitationWording("en", ""): 1})
    found = SurveyCosts(survey).cost_of({InvitationWording("en", content): 1})
    opening = count_segments(prepend_content(content, survey.steps[0].text["en"])).segments
    assert found.opening_segments >= opening
    assert found.segments >= without.segments + opening - without.opening_segments
