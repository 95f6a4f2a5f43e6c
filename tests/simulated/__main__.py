"""`python -m tests.simulated`: search for a schedule under which a promise is broken, or replay one.

A run depends on its play and its seed alone, if Python hashes strings in one way: it is started again with that.
"""

import os
import sys

from tests.simulated.exploring.cli import main

if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != "0":
        os.execve(
            sys.executable,
            [sys.executable, "-m", "tests.simulated", *sys.argv[1:]],
            {**os.environ, "PYTHONHASHSEED": "0"},
        )
    sys.exit(main())
