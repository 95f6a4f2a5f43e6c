"""What is wrong with the ways through a survey: steps and routes that are never taken, answers that no route takes,
cycles without an end, placeholders with nothing to put in.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from graphlib import CycleError, TopologicalSorter

from engine.proofs.regions import UNANSWERED, AnswerRegion, may_hold
from engine.proofs.walks import WalkGraph, WalkMove, closing_texts, has_known_sms, texts_of, uncounted_targets
from engine.surveys.findings import SurveyFinding
from engine.surveys.program import END_INDEX, QuestionStep, Route, Survey, SurveyStep
from engine.surveys.step_graph import endless_statements
from engine.surveys.texts import template_slots
from engine.surveys.variables import CONTACT_KEY, MESSAGES_KEY, NUMBER_KEY, is_variable
from engine.surveys.wording import describe_condition, show_delay, show_duration


def endless_cycles(survey: Survey) -> list[SurveyFinding]:
    """Cycles that nothing ends: statements only, or questions without a count."""
    found = [
        SurveyFinding("error", "endless", "", each, "put a question between them")
        for each in endless_statements(survey.steps)
    ]
    if found or survey.most_sms is not None:
        return found
    free = {place: uncounted_targets(step) for place, step in enumerate(survey.steps)}
    try:
        TopologicalSorter(free).prepare()
    except CycleError as e:
        way = [survey.steps[place].id for place in reversed(e.args[1])]
        return [
            SurveyFinding(
                "error", "endless", way[0], f"{_format_path(way)} can go round for ever",
                "give one of its routes `times: 3`, or the survey `most_sms: 50`",
            )
        ]  # fmt: skip
    return []


class FlowChecker:
    """One survey's findings about its walks; `rough` ones, if there may be some that no session can go."""

    def __init__(self, survey: Survey, walks: WalkGraph, *, rough: bool = False) -> None:
        self._survey = survey
        self._rough = rough
        self._steps = survey.steps
        self._walks = walks
        self._reached = {spot.step for spot in walks.spots}
        self._used = {
            (walks.spots[number].step, move.route)
            for number, moves in enumerate(walks.moves)
            for move in moves
        }

    def findings(self) -> list[SurveyFinding]:
        found = self._unreachable_steps()
        for place, step in enumerate(self._steps):
            if place in self._reached:
                found += self._shadowed_routes(place, step)
                found += self._unmatched_answers(place, step)
                found += self._unsent_reminders(step)
        return found + _PlaceholderChecker(self._survey, self._walks, rough=self._rough).findings()

    def _unreachable_steps(self) -> list[SurveyFinding]:
        return [
            SurveyFinding(
                "error", "unreachable", step.id, "it is never reached",
                "let a route lead to it, or take it out",
            )
            for place, step in enumerate(self._steps)
            if place not in self._reached
        ]  # fmt: skip

    def _shadowed_routes(self, place: int, step: SurveyStep) -> Iterator[SurveyFinding]:
        for number, route in enumerate(step.routes):
            if route.implied or (place, number) in self._used:
                continue
            if route.when is None:
                reason = (
                    f"next[{number}], the default, is never taken: the routes before it take every answer"
                )
                yield SurveyFinding("warning", "shadowed", step.id, reason, "take it out")
                continue
            words = f"next[{number}] ({describe_condition(route.when, step.id)}) is never taken"
            before = self._shadowing_routes(step, number)
            if before:
                taken = " and ".join(f"next[{each}]" for each in before)
                yield SurveyFinding(
                    "error", "shadowed", step.id, f"{words}: {taken} takes every answer that it would",
                    f"put it before next[{before[0]}], or change its condition",
                )  # fmt: skip
            else:
                yield SurveyFinding(
                    "error", "shadowed", step.id, f"{words}: no answer that can be given is like that",
                    "change its condition, or what the question takes",
                )  # fmt: skip

    def _shadowing_routes(self, step: SurveyStep, number: int) -> list[int]:
        """The earlier routes that take the answers for which route `number` would be open."""
        takers: set[int] = set()
        for region in self._answer_regions(step):
            answers = {step.id: region} if region is not None else {}
            if may_hold(step.routes[number].when, answers, self._walks.regions) is False:
                continue
            for earlier, route in enumerate(step.routes[:number]):
                if may_hold(route.when, answers, self._walks.regions) is not False:
                    takers.add(earlier)
                    break
        return sorted(takers)

    def _unmatched_answers(self, place: int, step: SurveyStep) -> Iterator[SurveyFinding]:
        number = len(step.routes) - 1
        if not step.routes[number].implied or (place, number) not in self._used:
            return
        if any(route.times is not None for route in step.routes):
            return  # when its routes are used up, a session goes on: that is what counts are for
        following = step.routes[number].go
        to = "the end" if following == END_INDEX else f"'{self._steps[following].id}', the step after"
        samples = self._unmatched_samples(step, step.routes[:number])
        such = f" such as {', '.join(samples)}" if samples else ""
        yield SurveyFinding(
            "warning", "no_route", step.id, f"answers{such} match no route and go on to {to}",
            "end `next` with `- {go: …}`, if only to say so",
        )  # fmt: skip

    def _unmatched_samples(self, step: SurveyStep, routes: Sequence[Route]) -> list[str]:
        found = []
        for region in self._answer_regions(step):
            if region is None or region.sms is None:
                continue
            held = [may_hold(route.when, {step.id: region}, self._walks.regions) for route in routes]
            if True not in held:
                found.append(_quote_shortened(region.sms))
        return found[:3]

    def _answer_regions(self, step: SurveyStep) -> Sequence[AnswerRegion | None]:
        return self._walks.regions[step.id].every if isinstance(step, QuestionStep) else (None,)

    def _unsent_reminders(self, step: SurveyStep) -> Iterator[SurveyFinding]:
        if not isinstance(step, QuestionStep) or step.remind is None:
            return
        idle = self._survey.idle_ms
        if idle is not None and step.remind.after_ms > idle:
            reminder = f"field remind.after: its reminder, after {show_delay(step.remind)}, is never sent"
            yield SurveyFinding(
                "warning", "never_reminded", step.id,
                f"{reminder}: silence ends the session after {show_duration(self._survey, 'idle', idle)}",
                "let `idle` be longer, or `remind.after` shorter",
            )  # fmt: skip
        elif step.remind.after_ms * step.remind.times > self._survey.expires_ms:
            yield SurveyFinding(
                "warning", "never_reminded", step.id,
                "field remind.after: the session expires before its last reminder, "
                f"after {show_duration(self._survey, 'expires', self._survey.expires_ms)}",
                "let `expires` be longer, or remind sooner or less often",
            )  # fmt: skip


class _PlaceholderChecker:
    """Checks that every placeholder without a default has an answer on every path to its text."""

    def __init__(self, survey: Survey, walks: WalkGraph, *, rough: bool) -> None:
        self._survey = survey
        self._walks = walks
        self._is_known = not rough and all(each.known for each in walks.regions.values())
        asks = [step.id for step in survey.steps if isinstance(step, QuestionStep)]
        self._question_bits = {identity: 1 << number for number, identity in enumerate(asks)}
        self._always_answered, self._ever_answered = self._answered_before(walks.begin, walks.moves)
        self._proven_unanswered = self._surely_unanswered()

    def findings(self) -> list[SurveyFinding]:
        """The most telling of each step and placeholder, though several spots have one."""
        found: dict[tuple[int, str], SurveyFinding] = {}
        named: dict[int, list[str]] = {}
        for number, spot in enumerate(self._walks.spots):
            if spot.step not in named:
                named[spot.step] = self._required_answers(spot.step)
            for name in named[spot.step]:
                other = found.get((spot.step, name))
                if other is None or (
                    other.level == "warning" and self._proven_unanswered[number] & self._question_bits[name]
                ):
                    for each in self._placeholder_findings(spot.step, name, number):
                        found[spot.step, name] = each
        return [*found.values(), *self._variable_findings()]

    def _required_answers(self, place: int) -> list[str]:
        """The questions whose answers must be there for the texts of a step, or of the end."""
        closing = closing_texts(self._survey)
        texts = (
            texts_of(self._survey.steps[place])
            if place >= 0
            else [closing[place]]
            if place in closing
            else []
        )
        named = {
            slot.step for text in texts for template in text.values() for slot in template_slots(template)
            if slot.default is None and slot.step in self._question_bits
        }  # fmt: skip
        return sorted(named)

    def _placeholder_findings(self, place: int, name: str, number: int) -> Iterator[SurveyFinding]:
        where = self._survey.steps[place].id if place >= 0 else ""
        mend = f"write {{{name}|…}}, with what is to stand there without an answer"
        if not self._ever_answered[number] & self._question_bits[name]:
            yield SurveyFinding("error", "unanswered", where, f"{{{name}}} is answered only later", mend)
        elif not self._always_answered[number] & self._question_bits[name]:
            way = _format_path([*self._path_without(name, number), where or "the end"])
            if self._proven_unanswered[number] & self._question_bits[name]:
                reason = f"{{{name}}} is not answered on every way to it, as by {way}"
                yield SurveyFinding("error", "unanswered", where, reason, mend)
            else:
                reason = (
                    f"{{{name}}} may not be answered on every way to it, such as {way}, if anyone can go it"
                )
                yield SurveyFinding("warning", "unanswered", where, reason, mend)

    def _surely_unanswered(self) -> list[int]:
        """For each spot, return as bits the questions that are unanswered on some path for which an SMS is known at
        every move. All zero if the walks are rough or a region is not exact."""
        walks = self._walks
        if not self._is_known:
            return [0] * len(walks.spots)
        begin = [
            number for number in walks.begin
            if all(
                region is UNANSWERED or region.sms is not None
                for region in walks.regions_at(walks.spots[number]).values()
            )
        ]  # fmt: skip
        moves = [[move for move in each if has_known_sms(move)] for each in walks.moves]
        every, _ = self._answered_before(begin, moves)
        return [sum(self._question_bits.values()) & ~bits for bits in every]

    def _answered_before(
        self, begin: Sequence[int], moves: Sequence[Sequence[WalkMove]]
    ) -> tuple[list[int], list[int]]:
        """For each spot, return as bits the questions answered on every path to it, and those answered on at least
        one."""
        walks = self._walks
        every, some = [sum(self._question_bits.values())] * len(walks.spots), [0] * len(walks.spots)
        waiting, queued = deque(begin), set(begin)
        seen = set(begin)
        for number in begin:
            every[number] = 0
        while waiting:
            number = waiting.popleft()
            queued.discard(number)
            for move in moves[number]:
                own = self._question_bit(number) if move.region is not None else 0
                told = every[move.to] & (every[number] | own), some[move.to] | some[number] | own
                if told != (every[move.to], some[move.to]) or move.to not in seen:
                    every[move.to], some[move.to] = told
                    seen.add(move.to)
                    if move.to not in queued:
                        queued.add(move.to)
                        waiting.append(move.to)
        return every, some

    def _question_bit(self, number: int) -> int:
        return self._question_bits.get(self._survey.steps[self._walks.spots[number].step].id, 0)

    def _path_without(self, name: str, goal: int) -> list[str]:
        """The steps of a shortest way to the spot on which the question `name` is not answered."""
        came: dict[int, int] = dict.fromkeys(self._walks.begin, -1)
        waiting = deque(self._walks.begin)
        while waiting:
            number = waiting.popleft()
            if number == goal:
                break
            for move in self._walks.moves[number]:
                answers = move.region is not None and self._question_bit(number) == self._question_bits[name]
                if not answers and move.to not in came:
                    came[move.to] = number
                    waiting.append(move.to)
        way, number = [], came.get(goal, -1)
        while number >= 0:
            way.append(self._survey.steps[self._walks.spots[number].step].id)
            number = came[number]
        return way[::-1]

    def _variable_findings(self) -> list[SurveyFinding]:
        """Variables are there only for those who were invited, and names for those whom the channel knows."""
        named: dict[str, str] = {}
        for step in self._survey.steps:
            for text in texts_of(step):
                for template in text.values():
                    for slot in template_slots(template):
                        if is_variable(slot.step) and slot.default is None:
                            named.setdefault(slot.step, step.id)
        return [
            SurveyFinding(
                "warning", "no_variable", step, _absence_reason(place),
                f"write {{{place[1:]}|…}}, with what is to stand there without it",
            )
            for place, step in named.items()
            if place not in (NUMBER_KEY, MESSAGES_KEY)
        ]  # fmt: skip


def _absence_reason(place: str) -> str:
    """For whom a variable is not there."""
    if place == CONTACT_KEY:
        return "{$contact} is empty for whoever is not among the channel's contacts"
    return f"the session variable {{{place[1:]}}} is empty for whoever texts START"


def _format_path(steps: Iterable[str]) -> str:
    return " -> ".join(f"'{step}'" if step != "the end" else step for step in steps)


def _quote_shortened(text: str) -> str:
    return f"'{text}'" if len(text) <= 20 else f"'{text[:17]}…'"
