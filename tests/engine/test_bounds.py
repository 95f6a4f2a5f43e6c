"""No session of any survey sends, hears or costs more than was said before, and what is said to be attained is."""

from functools import cached_property, lru_cache
from itertools import product

import msgspec
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from engine.model.events import (
    AnswerRejected,
    Attachment,
    InboundSms,
    Invitation,
    Mail,
    SmsDecided,
    SmsReceived,
)
from engine.model.lane import Lane, decode_lane, encode_lane
from engine.model.segments import count_segments
from engine.proofs import survey_bounds, survey_findings
from engine.surveys.conditions import AllOf, AnyOf, Not, condition_holds
from engine.surveys.findings import InvalidSurveyError
from engine.surveys.survey_reader import read_survey
from engine.surveys.survey_registry import SurveyRegistry
from engine.surveys.variables import MESSAGES_KEY
from engine.turns.advance import advance
from tests.engine.answer_samples import REPLIES
from tests.engine.chat import SIMULATED_CHANNEL, T0, policy_for
from tests.engine.random_surveys import surveys
from tests.support.example_counts import examples

MANY_ARE_REFUSED = [HealthCheck.filter_too_much]
"""Three random surveys in four have something wrong with them."""

SENDER = "+33612345678"
MEDIA = "a picture, and no text"
TEXTS = ["START", MEDIA, *REPLIES]


def variables_of(survey):
    """What invitations may say: nothing, or whatever costs most, with several values for the one in conditions."""
    dear = {name: "😀" * longest for name, longest in survey.variables.items() if len(name) == 1}
    asked = ("1", "v", "v" + "\U0001e8d0" * 2) if b'"variable": "k"' in survey.source else ()
    return [{}, dear, *({**dear, "K": value} for value in asked)]


def names_in(survey):
    """What the channel's contacts may say: nothing, or whatever costs most, and what is in conditions."""
    asked = ("Rey", "Rey" + "\U0001e8d0") if b'"variable": "$contact"' in survey.source else ()
    return ["", *(["😀" * 4] if b"{$contact" in survey.source else []), *asked]


MOST_STATES = 1_000
"""A survey with more is not small: one in a hundred, which takes as long as all others."""

SOON = 3
"""So many SMS, and whatever conditions say of how many came is as it will be."""


def compiled(source):
    """The survey, if there is nothing wrong with it."""
    try:
        survey, _ = read_survey("s.json", source)
    except InvalidSurveyError:
        assume(False)
    assume(not any(finding.level == "error" for finding in survey_findings(survey)))
    return survey


@lru_cache(8)
def policy_of(name):
    """That of the channel, whose contacts know the sender by `name`."""
    limits = msgspec.structs.replace(policy_for("s"), start_burst=0, pause_ms=0)
    contacts = {SENDER: name} if name else {}
    return {SIMULATED_CHANNEL: msgspec.structs.replace(limits, number="+" + "9" * 15, contacts=contacts)}


def leaves(condition):
    """The conditions on one step of which `condition` is made."""
    match condition:
        case None:
            return []
        case AllOf(conditions) | AnyOf(conditions):
            return [leaf for each in conditions for leaf in leaves(each)]
        case Not(inner):
            return leaves(inner)
        case leaf:
            return [leaf]


class Searched:
    """A survey, and what its course depends on."""

    def __init__(self, survey):
        self.survey = survey
        self.registry = SurveyRegistry([survey])
        self._leaves = [leaf for step in survey.steps for route in step.routes for leaf in leaves(route.when)]

    def matters(self, step, answer):
        """All of an answer that anything can depend on later: its value if a text shows it, or which conditions hold."""
        if step == MESSAGES_KEY:
            return min(answer.value, SOON)
        if step.startswith("$") or b"{%s" % step.encode() in self.survey.source:
            return (answer.value, answer.indexes)
        return tuple(condition_holds(leaf, {step: answer}) for leaf in self._leaves if leaf.step == step)


class Session:
    """One session of a survey; what it has sent, heard and cost."""

    def __init__(self, searched, name, lane, now, alarm, totals):
        self.searched, self.name = searched, name
        self.lane, self.now, self.alarm, self.totals = lane, now, alarm, totals

    @classmethod
    def opened(cls, searched, variables, name):
        start = (
            Invitation("i", SIMULATED_CHANNEL, "s", variables=variables)
            if variables
            else InboundSms("i", SIMULATED_CHANNEL, "START", True)
        )
        return cls(searched, name, encode_lane(Lane()), T0, None, (0, 1, 0))._advanced(start, T0)

    @cached_property
    def open(self):
        return decode_lane(self.lane).lines[SIMULATED_CHANNEL].session

    def heard(self, text):
        """The session after the SMS; None if that changed nothing."""
        identity = f"e{self.totals}{text}"
        sms = (
            InboundSms(identity, SIMULATED_CHANNEL, "", attachments=(Attachment("image/png", "u"),))
            if text == MEDIA
            else InboundSms(identity, SIMULATED_CHANNEL, text, text == "START")
        )
        after = self._advanced(sms, self.now + 1000)
        return None if after.state == self.state else after

    def waited(self):
        return self._advanced(None, self.alarm)

    @cached_property
    def state(self):
        """All that what follows can depend on; times relative to now."""
        session = self.open
        if session is None:
            return None
        return (
            session.step, session.invalid_answers, session.reminders_sent,
            session.sms_count if self.searched.survey.most_sms else 0,
            tuple(sorted(session.routes_taken.items())),
            tuple((step, self.searched.matters(step, answer)) for step, answer in sorted(session.answers.items())),
        )  # fmt: skip

    def _advanced(self, event, now):
        mail = [Mail(now, event)] if event else []
        lane = decode_lane(self.lane)
        advanced = advance(lane, SENDER, mail, now, self.searched.registry, policy_of(self.name))
        said = [
            record.text for record in advanced.records if isinstance(record, SmsDecided) and record.session
        ]
        moved = sum(
            isinstance(record, SmsReceived) for record in advanced.records if event and event.id != "i"
        )
        if any(isinstance(record, AnswerRejected) for record in advanced.records) and not said:
            moved = int(lane.lines[SIMULATED_CHANNEL].session is None)
        out, came, segments = self.totals
        totals = (
            out + len(said),
            came + moved,
            segments + sum(count_segments(text).segments for text in said),
        )
        return Session(self.searched, self.name, encode_lane(lane), now, advanced.alarm, totals)


def limits(survey):
    proved = survey_bounds(survey)
    return proved.sms_out, proved.sms_in, proved.segments["en"]


@settings(max_examples=examples(300), deadline=None, suppress_health_check=MANY_ARE_REFUSED)
@given(surveys(), st.data())
def test_no_session_goes_beyond_the_bounds(source, data):
    survey = compiled(source)
    most = [limit.most for limit in limits(survey)]
    variables = data.draw(st.sampled_from(variables_of(survey)))
    session = Session.opened(Searched(survey), variables, data.draw(st.sampled_from(names_in(survey))))
    for _ in range(60):
        if session.open is None:
            break
        text = data.draw(st.sampled_from([None, *TEXTS]))
        session = session.waited() if text is None else session.heard(text) or session
        assert all(total <= limit for total, limit in zip(session.totals, most, strict=True))


def exhausted(survey):
    """The most that any session comes to, by trying everything at every place."""
    known = {}

    def ahead(session):
        if session.open is None:
            return (0, 0, 0)
        key = session.state
        if key not in known:
            assume(len(known) < MOST_STATES)
            known[key] = (0, 0, 0)
            best = (0, 0, 0)
            for after in [session.waited(), *map(session.heard, TEXTS)]:
                if after is not None and (after.open is None or after.state != key):
                    more = [now - then for now, then in zip(after.totals, session.totals, strict=True)]
                    best = tuple(max(b, m + a) for b, m, a in zip(best, more, ahead(after), strict=True))
            known[key] = best
        return known[key]

    searched = Searched(survey)
    starts = [Session.opened(searched, *each) for each in product(variables_of(survey), names_in(survey))]
    return [max(each.totals[n] + ahead(each)[n] for each in starts) for n in range(3)]


@settings(max_examples=examples(100), deadline=None, suppress_health_check=MANY_ARE_REFUSED)
@given(surveys(most_steps=3))
def test_an_exhaustive_search_of_a_small_survey_comes_to_the_bounds_and_no_further(source):
    survey = compiled(source)
    found = exhausted(survey)
    for limit, most in zip(limits(survey), found, strict=True):
        assert most <= limit.most
        if limit.attained:
            assert most == limit.most
