"""What do so many invitations cost at most? By what is proved of the survey, whatever people answer. Pure.

A session takes no more SMS and segments than the dearest walk through the survey in its language. What `content` opens the first SMS
with comes on top: that SMS with it, less the fewest segments that it takes without it.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from engine import proofs
from engine.answers.proof_terms import DEAREST_CHARACTER
from engine.model.segments import LONGEST_SMS, is_gsm, most_segments
from engine.proofs.costs import TextCosts
from engine.proofs.regions import UNANSWERED
from engine.surveys.program import QuestionStep, Survey
from engine.surveys.texts import prepend_content


class InvitationWording(NamedTuple):
    """What decides of the cost of an invitation: its language (empty: the survey's first), and what opens its first SMS."""

    language: str
    content: str


def wording_of(body: Mapping[str, Any]) -> InvitationWording:
    """Of an invitation as the API takes it."""
    return InvitationWording(body.get("language", ""), body.get("content", ""))


class InvitationCost(msgspec.Struct, frozen=True):
    """Of so many people: SMS to them and segments of these, at most; `opening_segments` are those of the first SMS alone."""

    people: int
    sms: int
    segments: int
    opening_segments: int


class SurveyCosts:
    """What sessions of a survey cost at most. What is proved is proved once; it may take a second."""

    def __init__(self, survey: Survey) -> None:
        self._survey = survey
        self._bounds = proofs.survey_bounds(survey)

    @property
    def is_bounded(self) -> bool:
        return self._bounds is not None and bool(self._bounds.segments)

    @property
    def dearest_session(self) -> int:
        """The most segments of a session, in any language; without what `content` adds. For surveys that are bounded."""
        return max(bound.most for bound in self._bounds.segments.values()) if self._bounds else 0

    def cost_of(self, invited: Mapping[InvitationWording, int]) -> InvitationCost | None:
        """What so many invitations of each wording cost at most; None if nothing bounds the survey."""
        if self._bounds is None or not self._bounds.segments:
            return None
        people = segments = opening_segments = 0
        for wording, count in invited.items():
            opening, more = self._opening_of(wording)
            bound = self._bounds.segments.get(wording.language or self._survey.languages[0])
            people += count
            segments += count * ((bound.most if bound else self.dearest_session) + more)
            opening_segments += count * opening
        return InvitationCost(people, people * self._bounds.sms_out.most, segments, opening_segments)

    def _opening_of(self, wording: InvitationWording) -> tuple[int, int]:
        """The most segments of the first SMS, and how many of them what opens it may add."""
        languages = self._survey.languages
        spoken = [wording.language or languages[0]] if wording.language in ("", *languages) else languages
        found = [self._opening_in(language, wording.content) for language in spoken]
        return max(opening for opening, _ in found), max(more for _, more in found)

    def _opening_in(self, language: str, content: str) -> tuple[int, int]:
        text = self._survey.steps[0].text
        unanswered = {step.id: UNANSWERED for step in self._survey.steps if isinstance(step, QuestionStep)}
        dearest = TextCosts(self._survey, language).dearest_text(text, unanswered)
        if not content:
            return most_segments(dearest), 0
        least = most_segments(dearest) if isinstance(text[language], str) else 1
        opening = most_segments(prepend_content(content, dearest))
        if len(content) + len(dearest) >= LONGEST_SMS and not (is_gsm(content) and is_gsm(dearest)):
            # another value may be cut off less dearly
            opening = most_segments(DEAREST_CHARACTER * LONGEST_SMS)
        return opening, max(0, opening - least)
