"""Which walk weighs most? The heaviest way from spot to spot, under one weight: SMS out, SMS in, or segments.

At a question a session may, besides being answered, repeat it for every invalid answer but the last, and remind of it.
Where nothing cuts a session short, it does all of that. Where it ends after a number of SMS, it does what weighs most
within them.
"""

from collections.abc import Callable, Mapping, Sequence
from operator import add

import msgspec

from engine.proofs.regions import UNANSWERED, AnswerRegion
from engine.proofs.walks import WalkGraph, WalkMove, closing_texts
from engine.surveys.program import QuestionStep, ReaskInvalid, Survey, SurveyStep, reask_texts
from engine.surveys.texts import LocalizedText

NOTHING_KNOWN: Mapping[str, AnswerRegion] = {}


class WalkWeights(msgspec.Struct, frozen=True):
    """What counts: a text that is sent, and an SMS that comes in."""

    text: Callable[[LocalizedText, Mapping[str, AnswerRegion]], int]
    sms_in: int


class StepVisit(msgspec.Struct, frozen=True):
    """A walk comes by a step: it is repeated and reminded of so often, then left by `move`; None: never left."""

    step: int
    repeats: int
    reminders: int
    move: WalkMove | None


class HeaviestWalk(msgspec.Struct, frozen=True):
    """`bound` is None if there is none; `visits` is a walk that comes to it, empty if none is known.

    `variables` are the session variables that it begins with, those that conditions ask about.
    """

    bound: int | None
    visits: tuple[StepVisit, ...] = ()
    variables: Mapping[str, AnswerRegion] = {}


class SpotLoad(msgspec.Struct, frozen=True):
    """Weights of one spot: its text, each of `repeats` repetitions, each of `reminders` reminders, and the SMS that
    moves on (`leave`). At the end of a session `text` weighs the closing text."""

    text: int
    repeat: int = 0
    repeats: int = 0
    remind: int = 0
    reminders: int = 0
    leave: int = 0

    @property
    def total_weight(self) -> int:
        return self.text + self.repeats * self.repeat + self.reminders * self.remind + self.leave

    def weigh_extras(self, sms: int) -> tuple[int, int, int]:
        """The heaviest choice of so many SMS beside the text: its weight, repetitions, reminders."""
        repeats = min(sms, self.repeats) if self.repeat >= self.remind else max(0, sms - self.reminders)
        return repeats * self.repeat + (sms - repeats) * self.remind, repeats, sms - repeats


class SpotChoice(msgspec.Struct, frozen=True):
    """The best that can be done at a spot with so many SMS left."""

    weight: int
    repeats: int = 0
    reminders: int = 0
    move: WalkMove | None = None


class _SpotWindow:
    """One spot, while the number of SMS left grows: the best of what may be sent there, and of what follows."""

    def __init__(self, load: SpotLoad, moves: Sequence[WalkMove]) -> None:
        self._load = load
        self._answers = [move for move in moves if not move.gave_up]
        self._giving_up = next((move for move in moves if move.gave_up), None)
        self._beside = [load.weigh_extras(sms) for sms in range(load.repeats + load.reminders + 1)]
        self._extras = [extra for extra, _, _ in reversed(self._beside)]
        worn = load.repeats * load.repeat
        self._worn = [worn + reminders * load.remind for reminders in range(load.reminders, -1, -1)]
        self._ahead: list[int] = []  # by SMS left, the best after an answer
        self._ahead_by: list[WalkMove] = []
        self._given_up: list[int] = []

    def add_layer(self, layer: Sequence[SpotChoice]) -> None:
        """What each spot comes to with one SMS more."""
        if self._answers:
            best = max(self._answers, key=lambda move: layer[move.to].weight)
            self._ahead.append(layer[best.to].weight)
            self._ahead_by.append(best)
        if self._giving_up:
            self._given_up.append(layer[self._giving_up.to].weight)

    def best_choice(self) -> SpotChoice:
        """The best with so many SMS left."""
        load = self._load
        best = SpotChoice(load.text + load.leave)
        if self._answers:
            weight, sms = _best_sum(self._extras, self._ahead)
            _, repeats, reminders = self._beside[sms]
            move = self._ahead_by[len(self._ahead) - 1 - sms]
            best = SpotChoice(load.text + load.leave + weight, repeats, reminders, move)
        # nobody gives up before the question was repeated as often as it can be
        if self._giving_up and len(self._given_up) > load.repeats:
            weight, reminders = _best_sum(self._worn, self._given_up[: len(self._given_up) - load.repeats])
            weight += load.text + load.leave
            if weight > best.weight or best.move is None:
                best = SpotChoice(weight, load.repeats, reminders, self._giving_up)
        return best


def _best_sum(extras: Sequence[int], ahead: Sequence[int]) -> tuple[int, int]:
    """The best of `extras` (the last is that of none) with what is ahead of those left; and of how many."""
    most = min(len(extras), len(ahead))
    sums = list(map(add, extras[len(extras) - most :], ahead[len(ahead) - most :]))
    best = max(sums)
    return best, sums[::-1].index(best)


class WalkWeigher:
    """One weight over all walks."""

    def __init__(self, survey: Survey, walks: WalkGraph, weights: WalkWeights) -> None:
        self._walks = walks
        self._sms_in = weights.sms_in
        self._known = [walks.regions_at(spot) for spot in walks.spots]
        self._loads = [
            _spot_load(survey, spot.step, weights, known)
            for spot, known in zip(walks.spots, self._known, strict=True)
        ]

    def heaviest_complete(self, last_first: Sequence[int]) -> HeaviestWalk:
        """The heaviest of walks that are all gone to their ends. `last_first`: the spots' numbers in such an order."""
        best: dict[int, int] = {}
        left_by: dict[int, WalkMove] = {}
        for number in last_first:
            best[number] = self._loads[number].total_weight
            if moves := self._walks.moves[number]:
                left_by[number] = max(moves, key=lambda move: best[move.to])
                best[number] += best[left_by[number].to]
        first = max(self._walks.begin, key=lambda number: best[number])
        visits: list[StepVisit] = []
        number = first
        while number in left_by:
            load, move = self._loads[number], left_by[number]
            visits.append(StepVisit(self._walks.spots[number].step, load.repeats, load.reminders, move))
            number = move.to
        return self._with_start(best[first], visits, first)

    def heaviest_within(self, most: int) -> HeaviestWalk:
        """The heaviest of walks on which a session is over when it would send more than `most` SMS."""
        windows = [
            _SpotWindow(load, moves) for load, moves in zip(self._loads, self._walks.moves, strict=True)
        ]
        layers = [[SpotChoice(0)] * len(windows)]  # by SMS left, then by spot
        for _ in range(most):
            for window in windows:
                window.add_layer(layers[-1])
            layers.append([window.best_choice() for window in windows])
        first = max(self._walks.begin, key=lambda number: layers[most][number].weight)
        visits: list[StepVisit] = []
        number, left = first, most
        while (place := self._walks.spots[number].step) >= 0 and left:
            choice = layers[left][number]
            visits.append(StepVisit(place, choice.repeats, choice.reminders, choice.move))
            if choice.move is None:
                break
            left -= 1 + choice.repeats + choice.reminders
            number = choice.move.to
        return self._with_start(layers[most][first].weight, visits, first)

    def _with_start(self, weight: int, visits: Sequence[StepVisit], begin: int) -> HeaviestWalk:
        """With what came in first: the START."""
        variables = {
            place: region for place, region in self._known[begin].items() if region is not UNANSWERED
        }
        return HeaviestWalk(weight + self._sms_in, tuple(visits), variables)


def _spot_load(
    survey: Survey, place: int, weights: WalkWeights, known: Mapping[str, AnswerRegion]
) -> SpotLoad:
    """Return the weights of a step if earlier answers lie in `known`."""
    if place < 0:
        told = closing_texts(survey).get(place)
        return SpotLoad(weights.text(told, known) if told else 0)
    return step_load(survey, survey.steps[place], weights, known)


def step_load(
    survey: Survey, step: SurveyStep, weights: WalkWeights, known: Mapping[str, AnswerRegion]
) -> SpotLoad:
    """What a session weighs at a step where the answers are `known`."""
    text = weights.text(step.text, known)
    if not isinstance(step, QuestionStep):
        return SpotLoad(text)
    repeated = [weights.text(each, known) for each in reask_texts(step)]
    remind = weights.text(step.remind.text, known) if step.remind else 0
    return SpotLoad(
        text=text,
        repeat=max(repeated) + weights.sms_in if repeated else 0,
        repeats=step.invalid.attempts - 1 if isinstance(step.invalid, ReaskInvalid) and repeated else 0,
        remind=remind,
        reminders=_reminder_count(survey, step) if remind else 0,
        leave=weights.sms_in,
    )


def _reminder_count(survey: Survey, step: QuestionStep) -> int:
    """How many reminders there is time for before the session is over. When it expires is for an invitation to say."""
    remind = step.remind
    if remind is None or (survey.idle_ms is not None and remind.after_ms > survey.idle_ms):
        return 0
    return remind.times
