"""How many of what is drawn at random a run tries: all of them, or a fifth, by Hypothesis' profile. `make quick` has
`--hypothesis-profile=quick`: it is run often, so that what a fifth does not find the next run may."""

from hypothesis import HealthCheck, settings

ALL = 100
"""What Hypothesis tries where nothing else is said."""

settings.register_profile(
    "quick", max_examples=ALL // 5, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


def examples(most: int) -> int:
    """`most`, or this run's share of it."""
    return most * settings().max_examples // ALL
