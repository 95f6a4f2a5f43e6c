"""The filters of results as a form sends them, and as the addresses of the page and of its exports carry them.

An address is kept by browsers and proxies: so none carries a phone number, and a filter that has one is refused.
"""

import re
from collections.abc import Iterator

import falcon
from falcon.asgi import Request

from config.archive.result_filters import InvalidFilterError
from workers.results.written_filters import WrittenFilters, may_be_number

MOST_VALUES = 20
LONGEST_VALUE = 200

_SURVEY_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,199}")

_SEVERAL = {
    "channel": "channels",
    "state": "states",
    "language": "languages",
    "version": "versions",
    "campaign": "campaigns",
    "variable": "variables",
    "where": "conditions",
}
"""What the form calls it, as the commands' options do -> a field of WrittenFilters."""


def read_form_filters(req: Request) -> WrittenFilters:
    """Raises InvalidFilterError."""
    several = {field: _values(req, name) for name, field in _SEVERAL.items()}
    written = WrittenFilters(
        since=(req.get_param("since") or "").strip()[:LONGEST_VALUE],
        until=(req.get_param("until") or "").strip()[:LONGEST_VALUE],
        **several,
    )
    for each in (*written.variables, *written.conditions):
        if any(may_be_number(word) for word in _compared(each)):
            raise InvalidFilterError(
                "a filter that has a phone number stays out of addresses: look for the person, "
                "or use `parley results`"
            )
    return written


def filter_fields(written: WrittenFilters) -> Iterator[tuple[str, str]]:
    """The filters as fields of a form: names and values. An address has them so, too."""
    pairs = [("since", written.since), ("until", written.until)]
    pairs += [(name, each) for name, field in _SEVERAL.items() for each in getattr(written, field)]
    yield from ((name, value) for name, value in pairs if value)


def _values(req: Request, name: str) -> tuple[str, ...]:
    given = req.get_param_as_list(name) or []
    found = tuple(each.strip() for each in given if each.strip())
    if len(found) > MOST_VALUES or any(len(each) > LONGEST_VALUE for each in found):
        raise InvalidFilterError(f"{name}: expected at most {MOST_VALUES} short values")
    return found


def _compared(condition: str) -> list[str]:
    """What it compares with, as far as a number may be in it."""
    _, _, value = condition.replace("!=", "=").replace(">", "=").replace("<", "=").rpartition("=")
    return [value.strip().strip("'\""), condition.rsplit(maxsplit=1)[-1]]


def require_survey_name(name: str) -> None:
    """Raise the 404 if no survey can be called so."""
    if not _SURVEY_NAME.fullmatch(name):
        raise falcon.HTTPNotFound(description="No survey is called so.")
