"""Who types a command, and how long do they mean? Options that commands share."""

from collections.abc import Callable
from typing import Any

import click

from config.store.audit import operator_name
from engine.model.durations import parse_duration


def operator_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--as NAME`, the argument `by`."""
    option = click.option("--as", "by", default=operator_name, show_default="user@host", help="Who does it.")
    return option(command)


class DurationParam(click.ParamType[int]):
    """`2h`, `90s`, `1d12h`, as ms."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        ms = parse_duration(str(value).strip())
        if not ms:
            self.fail(f"{value!r}: expected a length of time such as 30s, 10m, 2h or 1d12h", param, ctx)
        return ms
