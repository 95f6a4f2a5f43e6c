"""`python -m tests.support.parley_command status` is `parley status`, as a module that can be forked: see fork_server.py."""

import sys

from config.cli import main

if __name__ == "__main__":
    sys.argv[0] = "parley"
    main()
