"""`python -m workers ratelimit|conversation|delivery|clock`: one Procfile line."""

import sys

from config.settings.settings import exit_with_mistakes
from workers.roles.processes import ROLES


def main(arguments: list[str]) -> None:
    if len(arguments) != 1 or arguments[0] not in ROLES:
        sys.exit(f"usage: python -m workers {'|'.join(ROLES)}")
    with exit_with_mistakes():
        ROLES[arguments[0]]()


if __name__ == "__main__":
    main(sys.argv[1:])
