"""How many of what is drawn at random a run tries: all of them, or a fifth, by Hypothesis' profile. `make quick` and `make test`
have `--hypothesis-profile=quick`: they are run often, so that what a fifth does not find the next run may. `make drawn` runs
the tests that draw, found by `draws`, with all of it."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, FunctionType

from hypothesis import HealthCheck, given, is_hypothesis_test, settings

TESTS = f"{Path(__file__).parents[1]}/"

ALL = 100
"""What Hypothesis tries where nothing else is said."""

EXAMPLES_EVENT = "tests.examples"
"""For audit hooks: somebody asks how many to draw."""

settings.register_profile(
    "quick", max_examples=ALL // 5, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


def examples(most: int) -> int:
    """`most`, or this run's share of it."""
    sys.audit(EXAMPLES_EVENT, most)
    return most * settings().max_examples // ALL


def draws(test: Callable[..., object]) -> bool:
    """Does a test draw at random? It has @given; or it uses `given` or `examples`, itself or by functions of the tests."""
    return is_hypothesis_test(test) or any(
        used is given or used is examples for used in _functions_used(test, set())
    )


def _functions_used(function: object, seen: set[object]) -> Iterator[object]:
    if not isinstance(function, FunctionType) or function in seen:
        return
    seen.add(function)
    if function.__code__.co_filename.startswith(TESTS):
        for name in _names_in(function.__code__):
            used = function.__globals__.get(name)
            yield used
            yield from _functions_used(used, seen)


def _names_in(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names_in(constant)
