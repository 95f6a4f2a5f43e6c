"""Libraries that Parley does without, unless somebody wants what they are for: the extras of pyproject.toml."""

from importlib import import_module
from typing import Any

from engine.model.errors import ParleyError


class MissingExtraError(ParleyError):
    """A library that comes with an extra is not installed."""

    def __init__(self, what: str, library: str, extra: str) -> None:
        super().__init__(f"{what} wants {library}, which is not installed: pip install 'parley[{extra}]'")


def import_extra(module: str, extra: str, what: str) -> Any:
    """Import a module that comes with `extra`, for `what` an operator asked for. Raises MissingExtraError."""
    try:
        return import_module(module)
    except ModuleNotFoundError as e:
        raise MissingExtraError(what, (e.name or module).partition(".")[0], extra) from e
