"""How does a language write a number's decimals, and a day? By the Unicode CLDR, version 49 (https://cldr.unicode.org): the
decimal sign of Latin digits, and the order and signs of the skeleton `yMd`.

Day and month have two digits everywhere and the year four, without blanks between them, so that all days of a language are of
one length, and short. English has the month's name (`MMM`), as 03/04/2026 is another day to either half of its readers. A language that is not here writes the decimal
point and YYYY-MM-DD.
"""

from typing import Literal

DayOrder = Literal["dmy", "mdy"]


def _listed(names: str) -> list[str]:
    return names.split()


_COMMA_LANGUAGES = _listed(
    "af az be bg bs ca cs da de el es et eu fi fr gl hr hu hy id is it ka kk lt lv mk nb nl nn no pl pt ro "
    "ru sk sl sq sr sv tr uk uz vi"
)
_POINT_REGIONS = _listed(
    "de-ch de-li es-419 es-bz es-cu es-do es-gt es-hn es-mx es-ni es-pa es-pe es-pr es-sv es-us it-ch"
)
"""Those that write a point where their language has the comma."""

_ISO_DAY = "{year}-{month}-{day}"
_ENGLISH_DAY = "{day} {name} {year}"
_DAY_FORMS = {
    language: form
    for form, languages in (
        (_ENGLISH_DAY, "en"),
        (
            "{day}.{month}.{year}",
            "az be bg bs cs da de et fi fr-ch he hr hy is ka kk lv mk nb nn no pl ro ru sk sl sq sr tr uk",
        ),
        ("{day}/{month}/{year}", "ca cy el es fr ga gl hi id it ms nl-be pt sw uz vi"),
        ("{day}-{month}-{year}", "nl"),
        ("{year}/{month}/{day}", "eu ja zh"),
        ("{year}. {month}. {day}.", "hu"),
        (_ISO_DAY, "fr-ca"),
    )
    for language in _listed(languages)
}
"""By a language, or by a language and a region where those write otherwise."""

_MONTH_FIRST_FORMS = {
    _ENGLISH_DAY: "{name} {day}, {year}",
    "{day}.{month}.{year}": "{month}.{day}.{year}",
    "{day}/{month}/{year}": "{month}/{day}/{year}",
    "{day}-{month}-{year}": "{month}-{day}-{year}",
}
_MONTH_NAMES = _listed("Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec")


def decimal_point(language: str) -> Literal[".", ","]:
    """Return what stands before a number's decimals in the language with a tag such as `no` or `de-CH`."""
    region, primary = _known_tags(language)
    return "," if primary in _COMMA_LANGUAGES and region not in _POINT_REGIONS else "."


def day_form(language: str, order: DayOrder) -> str:
    """Return how the language writes a day, for `format_day`. With the order `mdy` the month stands before the day, except where
    the year is first."""
    region, primary = _known_tags(language)
    form = _DAY_FORMS.get(region) or _DAY_FORMS.get(primary, _ISO_DAY)
    return _MONTH_FIRST_FORMS.get(form, form) if order == "mdy" else form


def format_day(day: str, form: str) -> str:
    """Write `day`, which is YYYY-MM-DD, in the form."""
    year, month, number = day.split("-")
    return form.format(year=year, month=month, day=number, name=_MONTH_NAMES[int(month) - 1])


def _known_tags(language: str) -> tuple[str, str]:
    """Return the tag with its region, and without it, both in lower case."""
    subtags = language.lower().split("-")
    return f"{subtags[0]}-{subtags[-1]}", subtags[0]


WIDEST_DAY_FORM = max(
    (*_DAY_FORMS.values(), *_MONTH_FIRST_FORMS.values()), key=lambda form: len(format_day("2000-01-01", form))
)
"""The form that takes most characters, of all languages."""
