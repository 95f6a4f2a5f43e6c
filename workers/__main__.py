"""`python -m workers ratelimit|conversation|delivery|clock|archive|hooks`: one Procfile line."""

import sys
from importlib import import_module

from config.settings.redis_rights import explained_refusals
from config.settings.settings import exit_on_config_error

ROLES = ("ratelimit", "conversation", "delivery", "clock", "archive", "hooks")
"""The files of workers/roles/ that are a line of the Procfile, each with a function `run`."""


def main(arguments: list[str]) -> None:
    if len(arguments) != 1 or arguments[0] not in ROLES:
        sys.exit(f"usage: python -m workers {'|'.join(ROLES)}")
    with exit_on_config_error(), explained_refusals():
        import_module(f"workers.roles.{arguments[0]}").run()


if __name__ == "__main__":
    main(sys.argv[1:])
