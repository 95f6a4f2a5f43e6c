"""A process of the tests parses each YAML once, which takes longer than all the rest of a start: most of the tests, and all
of the processes that they start, read the same shipped surveys. Whoever reads them gets a copy, as ever."""

from functools import lru_cache

from engine.surveys import documents

MOST = 64
"""How many are remembered: the shipped ones, and those of the test that runs."""


def parse_yaml_once() -> None:
    """From now on, in this process and in those that are forked from it. What cannot be parsed is parsed each time."""
    documents._parse_yaml = lru_cache(MOST)(documents._parse_yaml)  # what it answers is copied there
