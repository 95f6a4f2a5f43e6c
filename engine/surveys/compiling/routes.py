"""Routes: `next` and its conditions, with steps by index and values as the readers give them."""

from collections.abc import Iterable
from typing import assert_never

import msgspec

from engine.answers.answer_type import ComparedValue, ReportProblem
from engine.model.patterns import BadPatternError, CompiledPattern, compile_folded
from engine.model.suggestions import did_you_mean
from engine.model.text_normalization import fold_text
from engine.surveys.compiling.scope import CompilerScope, WrittenStep
from engine.surveys.conditions import (
    Above,
    AllOf,
    AnyOf,
    AtLeast,
    AtMost,
    Below,
    Condition,
    ContainsText,
    ContainsWord,
    IncludesOption,
    MatchesPattern,
    Not,
    OneOf,
    StepAnswered,
)
from engine.surveys.program import END_INDEX, Route
from engine.surveys.survey_file import Goto, SayStep, When, WrittenBound
from engine.surveys.variables import MESSAGES_KEY, NUMBER_KEY, answer_key, read_variable


class RouteCompiler:
    def __init__(self, scope: CompilerScope) -> None:
        self._scope = scope

    def compile_routes(self, place: int, source: WrittenStep) -> tuple[Route, ...]:
        """The routes of a step. The last one is always open: if the author left it out, it leads to the step after."""
        following = Route(None, place + 1 if place + 1 < len(self._scope.written_steps) else END_INDEX)
        match source.next:
            case None:
                return (following,)
            case str():
                return (Route(None, self.resolve_step("next", source.next)),)
            case list():
                routes = [
                    self._compile_route(f"next[{n}]", each, source) for n, each in enumerate(source.next)
                ]
                self._check_order(source.next)
                if all(map(_is_limited, routes)):
                    return (*routes, msgspec.structs.replace(following, implied=True))
                return tuple(routes)
            case _:
                assert_never(source.next)

    def resolve_step(self, field: str, target: str) -> int:
        """Return the index of the step called `target`, END for `end`. Reports an unknown step, and returns END for
        it."""
        if target == "end":
            return END_INDEX
        if target not in self._scope.index_by_id:
            self._scope.add_error(
                f"field {field}: no step is called "
                f"'{target}'{did_you_mean(target, [*self._scope.index_by_id, 'end'])}"
            )
        return self._scope.index_by_id.get(target, END_INDEX)

    def compile_folded_pattern(self, field: str, source: str) -> CompiledPattern | None:
        """Compile a pattern that matches folded text; None, and a problem, if RE2 refuses it."""
        try:
            return compile_folded(source)
        except BadPatternError as e:
            self._scope.add_error(f"field {field}: RE2 refuses '{source}': {e}")
            return None

    def _compile_route(self, field: str, source: Goto, step: WrittenStep) -> Route:
        go = self.resolve_step(f"{field}.go", source.go)
        when = self._compile_condition(f"{field}.when", source.when, step) if source.when else None
        if source.times is None:
            return Route(when, go)
        if source.times < 1:
            self._scope.add_error(f"field {field}.times: found {source.times}, expected 1 or more")
        return Route(when, go, source.times, self._scope.next_counter())

    def _check_order(self, written: list[Goto]) -> None:
        for n, each in enumerate(written[:-1]):
            if each.when is None and each.times is None:
                self._scope.add_error(
                    f"field next[{n + 1}]: it is never tried, since next[{n}] has no condition: "
                    "put that one last"
                )
                return

    # -- conditions

    def _compile_condition(self, field: str, when: When, step: WrittenStep) -> Condition:
        about = self._condition_subject(field, when, step)
        conditions = [
            *self._bound_conditions(field, when, about),
            *self._value_conditions(field, when, about),
            *self._nested_conditions(field, when, step),
        ]
        if not conditions:
            self._scope.add_error(f"field {field}: it holds no condition")
        return conditions[0] if len(conditions) == 1 else AllOf(tuple(conditions))

    def _condition_subject(self, field: str, when: When, step: WrittenStep) -> str:
        """Return the subject of a condition: a step's id, or "$" and a session variable's key in lower case."""
        scope = self._scope
        if when.variable is not None:
            if when.answer is not None:
                scope.add_error(f"field {field}: either `answer` or `variable` is expected, not both")
            scope.use_variable(when.variable)
            return answer_key(when.variable)
        if when.answer is None:
            if isinstance(step, SayStep) and not (when.all or when.any or when.not_):
                scope.add_error(f"field {field}: a `say` has no answer; name a question with `answer`")
            return step.id
        if when.answer not in scope.index_by_id:
            scope.add_error(
                f"field {field}.answer: no step is called "
                f"'{when.answer}'{did_you_mean(when.answer, scope.index_by_id)}"
            )
        elif scope.is_statement(when.answer):
            scope.add_error(f"field {field}.answer: '{when.answer}' asks nothing")
        return when.answer

    def _bound_conditions(self, field: str, when: When, about: str) -> Iterable[Condition]:
        written: dict[str, tuple[type[AtLeast | AtMost | Above | Below], WrittenBound | None]] = {
            "at_least": (AtLeast, when.at_least),
            "at_most": (AtMost, when.at_most),
            "above": (Above, when.above),
            "below": (Below, when.below),
        }
        for name, (condition, bound) in written.items():
            if bound is not None:
                self._check_bound(f"{field}.{name}", bound, about)
                yield condition(about, bound)

    def _check_bound(self, field: str, bound: WrittenBound, about: str) -> None:
        asked, report = self._scope.questions_by_id.get(about), self._reporter(field)
        if asked is not None:
            asked.answer.check_bound(bound, about, report)
        elif about == NUMBER_KEY:
            report(
                "no number of a channel is more than another: expected equals, one_of, matches or contains"
            )
        elif isinstance(bound, str):
            report(f"found '{bound}', expected a number")

    def _reporter(self, field: str) -> ReportProblem:
        return lambda sentence: self._scope.add_error(f"field {field}: {sentence}")

    def _check_builtin_variable(self, field: str, written: ComparedValue, about: str) -> None:
        """Report a value that cannot equal the built-in variable `about`: $number is a text, $messages a number."""
        if about == NUMBER_KEY and not isinstance(written, str):
            self._scope.add_error(
                f'field {field}: found {written}, expected a number in quotation marks, as in "+33700000001"'
            )
        if about == MESSAGES_KEY and (isinstance(written, bool) or not isinstance(written, (int, float))):
            self._scope.add_error(f"field {field}: found '{written}', but $messages is a number")

    def _value_conditions(self, field: str, when: When, about: str) -> Iterable[Condition]:
        if when.equals is not None:
            yield OneOf(about, frozenset([self._convert_value(f"{field}.equals", when.equals, about)]))
        if when.one_of is not None:
            values = [self._convert_value(f"{field}.one_of", each, about) for each in when.one_of]
            yield OneOf(about, frozenset(values))
        if when.matches is not None:
            pattern = self.compile_folded_pattern(f"{field}.matches", when.matches)
            yield MatchesPattern(about, pattern) if pattern else StepAnswered(about)
        if when.contains is not None:
            yield self._contains_condition(field, when.contains, about)
        if when.contains_word is not None:
            yield self._contains_word_condition(f"{field}.contains_word", when.contains_word, about)
        if when.answered is not None:
            yield StepAnswered(about) if when.answered else Not(StepAnswered(about))

    def _contains_condition(self, field: str, written: str | list[str], about: str) -> Condition:
        words = [written] if isinstance(written, str) else written
        if not words:
            self._scope.add_error(f"field {field}.contains: at least one is expected")
        asked = self._scope.questions_by_id.get(about)
        if asked and asked.answer.has_several_values:
            values = [self._convert_value(f"{field}.contains", each, about) for each in words]
            return IncludesOption(about, frozenset(map(str, values)))
        return ContainsText(about, tuple(map(fold_text, words)))

    def _contains_word_condition(self, field: str, written: str | list[str], about: str) -> Condition:
        words = tuple(map(fold_text, [written] if isinstance(written, str) else written))
        if not words or "" in words:
            self._scope.add_error(f"field {field}: at least one word is expected, and no empty one")
        asked = self._scope.questions_by_id.get(about)
        if asked and asked.answer.has_several_values:
            self._scope.add_error(
                f"field {field}: the answer to '{about}' is options: name them with `contains`"
            )
        return ContainsWord(about, words)

    def _nested_conditions(self, field: str, when: When, step: WrittenStep) -> Iterable[Condition]:
        for name, written, combined in (("all", when.all, AllOf), ("any", when.any, AnyOf)):
            if written is not None:
                yield combined(
                    tuple(
                        self._compile_condition(f"{field}.{name}[{n}]", each, step)
                        for n, each in enumerate(written)
                    )
                )
        if when.not_ is not None:
            yield Not(self._compile_condition(f"{field}.not", when.not_, step))

    def _convert_value(self, field: str, written: ComparedValue, about: str) -> ComparedValue:
        """Convert the value that the author compares with to the type and spelling that the reader of `about` gives."""
        asked = self._scope.questions_by_id.get(about)
        if asked is None:
            self._check_builtin_variable(field, written, about)
            value = read_variable(str(written)).value
            return fold_text(value) if isinstance(value, str) else float(str(value))
        return asked.answer.convert_compared(written, about, self._reporter(field))


def _is_limited(route: Route) -> bool:
    """Return whether the route may be closed: it has a condition, or a count."""
    return route.when is not None or route.times is not None
