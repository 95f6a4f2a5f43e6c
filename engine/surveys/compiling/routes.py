"""Routes: `next` and its conditions, with steps by index and values as the readers give them."""

from collections.abc import Iterable
from datetime import date
from typing import assert_never

import msgspec

from engine.answers import Unread, read
from engine.model.events import Answer
from engine.model.patterns import BadPattern, Pattern, compile_folded
from engine.model.suggestions import meant
from engine.model.text_normalization import fold
from engine.surveys.compiling.answer_compiler import is_date, yes_no_reader
from engine.surveys.compiling.scope import Scope, Source
from engine.surveys.compiling.text_parsing import option_of
from engine.surveys.conditions import (
    Above,
    All,
    Answered,
    Any,
    AtLeast,
    AtMost,
    Below,
    Condition,
    Contains,
    Includes,
    Matches,
    Not,
    OneOf,
)
from engine.surveys.program import END, Route
from engine.surveys.survey_file import (
    Bound,
    ChoiceAnswer,
    ChoicesAnswer,
    DateAnswer,
    Goto,
    NumberAnswer,
    SayStep,
    ScaleAnswer,
    TextAnswer,
    When,
    YesNoAnswer,
)
from engine.surveys.variables import MESSAGES, NUMBER, place_of, read_variable

Value = str | float | bool


class RouteCompiler:
    def __init__(self, scope: Scope) -> None:
        self._scope = scope

    def routes(self, place: int, source: Source) -> tuple[Route, ...]:
        """The routes of a step. The last one is always open: if the author left it out, it leads to the step after."""
        following = Route(None, place + 1 if place + 1 < len(self._scope.sources) else END)
        match source.next:
            case None:
                return (following,)
            case str():
                return (Route(None, self.go("next", source.next)),)
            case list():
                routes = [self._route(f"next[{n}]", each, source) for n, each in enumerate(source.next)]
                self._check_order(source.next)
                if all(map(_is_limited, routes)):
                    return (*routes, msgspec.structs.replace(following, implied=True))
                return tuple(routes)
            case _:
                assert_never(source.next)

    def go(self, field: str, target: str) -> int:
        if target == "end":
            return END
        if target not in self._scope.ids:
            self._scope.problem(
                f"field {field}: no step is called '{target}'{meant(target, [*self._scope.ids, 'end'])}"
            )
        return self._scope.ids.get(target, END)

    def pattern(self, field: str, source: str) -> Pattern | None:
        """A pattern for folded text."""
        try:
            return compile_folded(source)
        except BadPattern as e:
            self._scope.problem(f"field {field}: RE2 refuses '{source}': {e}")
            return None

    def _route(self, field: str, source: Goto, step: Source) -> Route:
        go = self.go(f"{field}.go", source.go)
        when = self._condition(f"{field}.when", source.when, step) if source.when else None
        if source.times is None:
            return Route(when, go)
        if source.times < 1:
            self._scope.problem(f"field {field}.times: found {source.times}, expected 1 or more")
        return Route(when, go, source.times, self._scope.counter())

    def _check_order(self, written: list[Goto]) -> None:
        for n, each in enumerate(written[:-1]):
            if each.when is None and each.times is None:
                self._scope.problem(
                    f"field next[{n + 1}]: it is never tried, since next[{n}] has no condition: put that one last"
                )
                return

    # -- conditions

    def _condition(self, field: str, when: When, step: Source) -> Condition:
        about = self._about(field, when, step)
        conditions = [
            *self._bounds(field, when, about),
            *self._comparisons(field, when, about),
            *self._combined(field, when, step),
        ]
        if not conditions:
            self._scope.problem(f"field {field}: it holds no condition")
        return conditions[0] if len(conditions) == 1 else All(tuple(conditions))

    def _about(self, field: str, when: When, step: Source) -> str:
        """What the condition compares: a step's id, or a session variable's place."""
        scope = self._scope
        if when.variable is not None:
            if when.answer is not None:
                scope.problem(f"field {field}: either `answer` or `variable` is expected, not both")
            scope.variable(when.variable)
            return place_of(when.variable)
        if when.answer is None:
            if isinstance(step, SayStep) and not (when.all or when.any or when.not_):
                scope.problem(f"field {field}: a `say` has no answer; name a question with `answer`")
            return step.id
        if when.answer not in scope.ids:
            scope.problem(
                f"field {field}.answer: no step is called '{when.answer}'{meant(when.answer, scope.ids)}"
            )
        elif scope.says(when.answer):
            scope.problem(f"field {field}.answer: '{when.answer}' asks nothing")
        return when.answer

    def _bounds(self, field: str, when: When, about: str) -> Iterable[Condition]:
        written: dict[str, tuple[type[AtLeast | AtMost | Above | Below], Bound | None]] = {
            "at_least": (AtLeast, when.at_least),
            "at_most": (AtMost, when.at_most),
            "above": (Above, when.above),
            "below": (Below, when.below),
        }
        for name, (condition, bound) in written.items():
            if bound is not None:
                self._check_bound(f"{field}.{name}", bound, about)
                yield condition(about, bound)

    def _check_bound(self, field: str, bound: Bound, about: str) -> None:
        asked = self._scope.asks.get(about)
        match asked.answer if asked else None:
            case DateAnswer():
                if not is_date(bound):
                    self._scope.problem(f"field {field}: found '{bound}', expected a date as YYYY-MM-DD")
            case None if about == NUMBER:
                self._scope.problem(
                    f"field {field}: no number of a channel is more than another: "
                    "expected equals, one_of, matches or contains"
                )
            case NumberAnswer() | ScaleAnswer() | None:
                if isinstance(bound, str):
                    self._scope.problem(f"field {field}: found '{bound}', expected a number")
            case _:
                self._scope.problem(f"field {field}: the answer to '{about}' is no number")

    def _check_told(self, field: str, written: Value, about: str) -> None:
        if about == NUMBER and not isinstance(written, str):
            self._scope.problem(
                f'field {field}: found {written}, expected a number in quotation marks, as in "+33700000001"'
            )
        if about == MESSAGES and (isinstance(written, bool) or not isinstance(written, (int, float))):
            self._scope.problem(f"field {field}: found '{written}', but $messages is a number")

    def _comparisons(self, field: str, when: When, about: str) -> Iterable[Condition]:
        if when.equals is not None:
            yield OneOf(about, frozenset([self._value(f"{field}.equals", when.equals, about)]))
        if when.one_of is not None:
            values = [self._value(f"{field}.one_of", each, about) for each in when.one_of]
            yield OneOf(about, frozenset(values))
        if when.matches is not None:
            pattern = self.pattern(f"{field}.matches", when.matches)
            yield Matches(about, pattern) if pattern else Answered(about)
        if when.contains is not None:
            yield self._contains(field, when.contains, about)
        if when.answered is not None:
            yield Answered(about) if when.answered else Not(Answered(about))

    def _contains(self, field: str, written: str | list[str], about: str) -> Condition:
        words = [written] if isinstance(written, str) else written
        if not words:
            self._scope.problem(f"field {field}.contains: at least one is expected")
        asked = self._scope.asks.get(about)
        if asked and isinstance(asked.answer, ChoicesAnswer):
            values = [self._value(f"{field}.contains", each, about) for each in words]
            return Includes(about, frozenset(map(str, values)))
        return Contains(about, tuple(map(fold, words)))

    def _combined(self, field: str, when: When, step: Source) -> Iterable[Condition]:
        for name, written, combined in (("all", when.all, All), ("any", when.any, Any)):
            if written is not None:
                yield combined(
                    tuple(
                        self._condition(f"{field}.{name}[{n}]", each, step) for n, each in enumerate(written)
                    )
                )
        if when.not_ is not None:
            yield Not(self._condition(f"{field}.not", when.not_, step))

    def _value(self, field: str, written: Value, about: str) -> Value:
        """What the reader of `about` gives for the answer that the author wrote."""
        asked = self._scope.asks.get(about)
        if asked is None:
            self._check_told(field, written, about)
            value = read_variable(str(written)).value
            return fold(value) if isinstance(value, str) else float(str(value))
        match asked.answer:
            case NumberAnswer() | ScaleAnswer():
                if isinstance(written, bool) or not isinstance(written, (int, float)):
                    self._scope.problem(
                        f"field {field}: found '{written}', but the answer to '{about}' is a number"
                    )
                return written
            case YesNoAnswer() if not isinstance(written, bool):
                answer = read(yes_no_reader(asked.answer), str(written), lambda: date.min)
                if isinstance(answer, Unread):
                    self._scope.problem(
                        f"field {field}: found '{written}', but the answer to '{about}' is yes or no"
                    )
                return isinstance(answer, Answer) and bool(answer.value)
            case ChoiceAnswer(options=options) | ChoicesAnswer(options=options):
                if written not in [option_of(each).id for each in options]:
                    self._scope.problem(f"field {field}: '{about}' has no option '{written}'")
                return written
            case DateAnswer():
                if not is_date(written):
                    self._scope.problem(f"field {field}: found '{written}', expected a date as YYYY-MM-DD")
                return written
            case TextAnswer():
                return fold(str(written))
            case _:
                return written


def _is_limited(route: Route) -> bool:
    """May the route be closed?"""
    return route.when is not None or route.times is not None
