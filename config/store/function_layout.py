"""Where an argument of a server-side function is among its KEYS or its ARGV, by its declaration in server_functions.py.

Law: single KEYS, single ARGV, then groups, each in order; the elements of a group follow each other. Not more than one group of a function has keys, and
only the last in ARGV has none, or may be missing: so the numbers of KEYS and ARGV say how many elements each group has.
"""

import re
from collections.abc import Sequence
from functools import cache
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

import msgspec

from config.store.server_functions import ArgumentGroup, Key, ServerFunction


class GroupLayout(msgspec.Struct, frozen=True):
    """The members that each element of the group `name` has in KEYS, and in ARGV: of a list of plain values, one without a
    name. `element` is how an element is laid out, if it is declared; `optional`: there is one element, or none."""

    name: str
    keys: tuple[str, ...]
    args: tuple[str, ...]
    element: "ArgumentLayout | None" = None
    optional: bool = False

    @property
    def variable(self) -> bool:
        """Whether elements differ in length, since they have groups of their own, each with its length before it."""
        return self.element is not None and bool(self.element.groups)


class ArgumentLayout(msgspec.Struct, frozen=True):
    """Of what is called `name` in Lua: the single fields in KEYS, those in ARGV, and the groups, each in order."""

    name: str
    keys: tuple[str, ...]
    args: tuple[str, ...]
    groups: tuple[GroupLayout, ...]


@cache
def layout_of(declared: type[ServerFunction] | type[ArgumentGroup]) -> ArgumentLayout:
    """Lay out the fields of a declared call, or of an element of a group."""
    keys, args, groups = list[str](), list[str](), list[GroupLayout]()
    for name, hint in get_type_hints(declared, include_extras=True).items():
        element, optional = _element_type(hint)
        if hint == Key:
            keys.append(name)
        elif element is None:
            args.append(name)
        elif element == Key:
            groups.append(GroupLayout(name, ("",), ()))
        elif isinstance(element, type) and issubclass(element, ArgumentGroup):
            laid_out = layout_of(element)
            groups.append(GroupLayout(name, laid_out.keys, laid_out.args, laid_out, optional))
        else:
            groups.append(GroupLayout(name, (), ("",)))
    return ArgumentLayout(snake_case(declared.__name__), tuple(keys), tuple(args), tuple(groups))


def snake_case(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def _element_type(hint: Any) -> tuple[Any, bool]:
    """Return what a group is of, and whether there may be none; (None, False) of a single field."""
    if get_origin(hint) is Sequence:
        return get_args(hint)[0], False
    groups = [each for each in get_args(hint) if isinstance(each, type) and issubclass(each, ArgumentGroup)]
    return (groups[0], True) if groups and NoneType in get_args(hint) else (None, False)
