"""What can be said of a survey from its routes alone, without an answer."""

from collections.abc import Iterable, Sequence
from graphlib import CycleError, TopologicalSorter
from typing import assert_never

from engine.program import END, Ask, Reask, Remind, Say, Step, targets
from engine.texts import Text, slots


def chatter(steps: Sequence[Step]) -> list[str]:
    """A problem for statements that follow each other for ever."""
    says = {place: step for place, step in enumerate(steps) if isinstance(step, Say)}
    graph = {place: [each for each in targets(step) if each in says] for place, step in says.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as e:
        # graphlib lists each step after the one that it was given as its successor
        way = " -> ".join(f"'{steps[place].id}'" for place in reversed(e.args[1]))
        return [f"the steps {way} go round without asking anything"]
    return []


def reachable(steps: Sequence[Step], start: Iterable[int]) -> set[int]:
    """The indexes that routes lead to from `start`, these included."""
    found: set[int] = set()
    waiting = [place for place in start if place != END]
    while waiting:
        place = waiting.pop()
        if place not in found:
            found.add(place)
            waiting += [each for each in targets(steps[place]) if each != END]
    return found


def unreachable(steps: Sequence[Step]) -> list[str]:
    """A sentence for each step that nothing leads to."""
    found = reachable(steps, [0])
    return [f"step '{step.id}' is never reached" for place, step in enumerate(steps) if place not in found]


def untimely(steps: Sequence[Step]) -> list[str]:
    """A problem for each placeholder whose question cannot have been answered before it is filled in."""
    problems: list[str] = []
    after = {
        step.id: reachable(steps, [route.go for route in step.routes])
        for step in steps
        if isinstance(step, Ask)
    }
    for place, step in enumerate(steps):
        names = {
            slot.step for text in _texts_of(step) for template in text.values() for slot in slots(template)
        }
        problems += [
            f"step '{step.id}': {{{name}}} is answered only later"
            for name in sorted(names)
            if name in after and place not in after[name]
        ]
    return problems


def _texts_of(step: Step) -> list[Text]:
    match step:
        case Say(text=text):
            return [text]
        case Ask(text=text, invalid=Reask(text=reask), remind=Remind(text=reminder)):
            return [text, reask, reminder]
        case Ask(text=text, invalid=Reask(text=reask)):
            return [text, reask]
        case Ask(text=text):
            return [text]
        case _:
            assert_never(step)


def bound_sms(steps: Sequence[Step], closing: int = 0) -> int:
    """The most SMS that a session can send, `closing` of them after its last step; 0 if cycles leave it unbounded."""
    follows = {place: [each for each in targets(step) if each != END] for place, step in enumerate(steps)}
    try:
        last_first = list(TopologicalSorter(follows).static_order())
    except CycleError:
        return 0
    most: dict[int, int] = {}
    for place in last_first:
        most[place] = _sms_of(steps[place]) + max((most[each] for each in follows[place]), default=closing)
    return most[0]


def _sms_of(step: Step) -> int:
    if isinstance(step, Say):
        return 1
    repeats = step.invalid.attempts - 1 if isinstance(step.invalid, Reask) else 0
    return 1 + repeats + (step.remind.times if step.remind else 0)
