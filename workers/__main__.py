"""`python -m workers ratelimit|conversation|delivery|clock|archive|hooks|console`: one Procfile line."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module

import structlog

from config.settings.redis_rights import explained_refusals
from config.settings.settings import exit_on_config_error
from config.store import redis_client
from engine.commands.exit_status import EXIT_PROBLEMS

log = structlog.get_logger()

ROLES = ("ratelimit", "conversation", "delivery", "clock", "archive", "hooks", "console")
"""The files of workers/roles/ that are a line of the Procfile, each with a function `run`."""


def main(arguments: list[str]) -> None:
    if len(arguments) != 1 or arguments[0] not in ROLES:
        sys.exit(f"usage: python -m workers {'|'.join(ROLES)}")
    with exit_on_config_error(), exit_while_away(), explained_refusals():
        import_module(f"workers.roles.{arguments[0]}").run()


@contextmanager
def exit_while_away() -> Iterator[None]:
    """End the process with a sentence if a Redis that it needs to start does not answer: whoever supervises it tries again."""
    try:
        yield
    except redis_client.AWAY_ERRORS as e:
        log.error("this process cannot start: a Redis does not answer", error=str(e))  # noqa: TRY400
        sys.exit(EXIT_PROBLEMS)


if __name__ == "__main__":
    main(sys.argv[1:])
