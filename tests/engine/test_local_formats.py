"""Days and decimals stand in texts as the text's language writes them, and their length is proved."""

from datetime import date

import pytest

from engine.model import local_formats
from engine.model.local_formats import WIDEST_DAY_FORM, day_form, decimal_point, format_day
from engine.model.segments import is_gsm
from engine.proofs import survey_bounds
from engine.surveys.survey_reader import read_survey
from tests.engine.chat import SimulatedPhone, policy_for, surveys_of
from tests.engine.test_findings import ask, say, survey

FORMS = {
    day_form(language, order) for language in [*local_formats._DAY_FORMS, "xx"] for order in ("dmy", "mdy")
}


@pytest.mark.parametrize(
    "language, day, number",
    [
        ("en", "30 Nov 2026", "1.5"),
        ("en-US", "30 Nov 2026", "1.5"),
        ("de", "30.11.2026", "1,5"),
        ("de-CH", "30.11.2026", "1.5"),
        ("de-AT", "30.11.2026", "1,5"),
        ("fr", "30/11/2026", "1,5"),
        ("fr-CA", "2026-11-30", "1,5"),
        ("no", "30.11.2026", "1,5"),
        ("nb-NO", "30.11.2026", "1,5"),
        ("nl", "30-11-2026", "1,5"),
        ("nl-BE", "30/11/2026", "1,5"),
        ("sv", "2026-11-30", "1,5"),
        ("es-MX", "30/11/2026", "1.5"),
        ("hu", "2026. 11. 30.", "1,5"),
        ("ja", "2026/11/30", "1.5"),
        ("zh-Hant-TW", "2026/11/30", "1.5"),
        ("sw", "30/11/2026", "1.5"),
        ("tlh", "2026-11-30", "1.5"),
    ],
)
def test_a_survey_says_both_as_its_language_does(language, day, number):
    steps = [ask("due", "?", "date"), ask("much", "?", "number"), say("b", "{due} {much}")]
    phone = SimulatedPhone(surveys_of({"s.json": survey(*steps, languages=[language])}), policy_for("s"))
    for text in ("START", "30/11/2026"):
        phone.text(text)
    assert phone.text("1.5") == [f"{day} {number}"]


@pytest.mark.parametrize(
    "language, day",
    [
        ("en", "Nov 30, 2026"),
        ("fr", "11/30/2026"),
        ("no", "11.30.2026"),
        ("sv", "2026-11-30"),
        ("xx", "2026-11-30"),
    ],
)
def test_where_the_month_is_asked_for_first_it_is_said_first(language, day):
    assert format_day("2026-11-30", day_form(language, "mdy")) == day


def test_each_language_of_a_survey_writes_its_own():
    texts = {"en": "Due {due}.", "no": "Innen {due}."}
    steps = [ask("due", "?", "date"), say("b", texts)]
    of = survey(*steps, languages=["en", "no"], start={"en": "START", "no": "BEGYNN"})
    for keyword, said in {"START": "Due 01 Feb 2030.", "BEGYNN": "Innen 01.02.2030."}.items():
        phone = SimulatedPhone(surveys_of({"s.json": of}), policy_for("s"))
        phone.text(keyword)
        assert phone.text("2030-02-01") == [said]


def test_what_is_compared_and_stored_is_the_day_itself():
    steps = [
        ask("due", "?", "date", next=[{"when": {"at_least": "2026-11-30"}, "go": "late"}, {"go": "end"}]),
        say("late", "{due:6}"),
    ]
    phone = SimulatedPhone(surveys_of({"s.json": survey(*steps, languages=["de"])}), policy_for("s"))
    phone.text("START")
    assert phone.text("30.11.2026") == ["30.11."]
    assert phone.records[-1].answers["due"].value == "2026-11-30"


def test_all_days_of_a_form_are_of_one_length_and_cost_no_more_than_digits():
    days = [date(year, month, 28).isoformat() for year in (1000, 2026, 9999) for month in range(1, 13)]
    for form in FORMS:
        assert len({len(format_day(day, form)) for day in days}) == 1
        assert all(map(is_gsm, "".join(format_day(day, form) for day in days)))
        assert len(format_day(days[0], form)) <= len(format_day(days[0], WIDEST_DAY_FORM))


@pytest.mark.parametrize("language, longest", [("en", 11), ("de", 10), ("hu", 13)])
def test_the_bound_knows_how_long_a_day_is(language, longest):
    for room, segments in ((160 - longest, 1), (161 - longest, 2)):
        steps = [ask("due", "?", "date", attempts=1), say("b", "x" * room + "{due}", next="end")]
        of, _ = read_survey("s.json", survey(*steps, languages=[language], texts={"gave_up": "none"}))
        bound = survey_bounds(of).segments[language]
        assert (bound.most, bound.attained) == (1 + segments, True)


def test_a_region_of_a_language_may_differ():
    assert [decimal_point(tag) for tag in ("es", "es-419", "es-AR", "it", "it-CH")] == [
        ",",
        ".",
        ",",
        ",",
        ".",
    ]
